function start(root, data) {
  const bar = add(root, "div", { class: "kx-bar" });
  const kind = choice(bar, "corruption", data.kinds.map((k) => k.name), () => changed());
  const steps = [0, ...data.kinds[0].levels.map((_, i) => i + 1)];
  const unit = (k) => (data.kinds[k].unit ? ` (${data.kinds[k].unit})` : "");
  const named = (k, step) => (step ? String(data.kinds[k].levels[step - 1]) : "none");
  const level = slider(bar, "level", steps, 2, (step) => named(kind.index, step), () => update());
  const network = choice(bar, "network", data.networks, () => update());
  const dots = tick(bar, "keypoints", true, () => update());
  const row = add(root, "div", { class: "kx-row" });
  const main = add(row, "div", { class: "kx-main" }), side = add(row, "div", { class: "kx-side" });

  const svg = stage(main, data.width, data.height, "The slice, its keypoints, and the true and the predicted contours");
  const slice = image(svg, data.clean.image, data.width, data.height);
  const COLOURS = ["#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2"];
  const colour = (i) => COLOURS[i % COLOURS.length];
  const outline = (lines) => lines.map((flat) => `M${pairs(flat).map((p) => p.join(" ")).join("L")}Z`).join("");
  data.truth.forEach((lines, i) => path(svg, { d: outline(lines), stroke: colour(i), "stroke-width": 1.4 }));
  const guessed = data.truth.map((_, i) =>
    path(svg, { class: "kx-predicted", stroke: colour(i), "stroke-width": 2.6, "stroke-dasharray": "6 4" }));
  const old = path(svg, { class: "kx-old", fill: "#FFFFFF", stroke: "#000", "stroke-width": 0.8 });
  const fresh = path(svg, { class: "kx-new", stroke: "#F0E442", "stroke-width": 1.6 });
  legend(main, [
    ...data.structures.map((name, i) => [name, "M-9 0H9", { stroke: colour(i), "stroke-width": 3 }]),
    ["truth", "M-9 0H9", { stroke: "#FFFFFF", "stroke-width": 1.4 }],
    ["prediction", "M-9 0H9", { stroke: "#FFFFFF", "stroke-width": 2.6, "stroke-dasharray": "6 4" }],
    ["keypoint that was there before", circle(0, 0, 4), { fill: "#FFFFFF", stroke: "#000" }],
    ["new keypoint", cross(0, 0, 4), { stroke: "#F0E442", "stroke-width": 2, fill: "none" }],
  ]);

  const numbers = figures(side, ["keypoints", "found again", "Dice of the slice", "Dice lost"]);
  const say = sentence(side);
  const curve = chart(add(side, "div"), "Dice of the slice against the level, one line per network");
  add(side, "p", { class: "kx-help" }, "Thick line: this network; thin lines: the others. Move the slider with the mouse or, once it has the focus, with the arrow keys.");

  const frame = (k, step) => (step ? data.kinds[k].frames[step - 1] : data.clean);
  function changed() { level.go(level.index); update(); } // the same step has another name

  function update() {
    const k = kind.index, step = level.value, n = network.index, shown = frame(k, step), d = { old: "", fresh: "" };
    slice.setAttribute("href", shown.image);
    pairs(shown.xy).forEach((p, i) => {
      if (shown.old[i]) d.old += circle(...p, data.width / 130); else d.fresh += cross(...p, data.width / 110);
    });
    old.setAttribute("d", dots.on ? d.old : "");
    fresh.setAttribute("d", dots.on ? d.fresh : "");
    shown.predicted[n].contours.forEach((lines, i) => guessed[i].setAttribute("d", outline(lines)));
    const dice = shown.predicted[n].dice, lost = data.clean.predicted[n].dice - dice, again = shown.again === null ? "–" : percent(shown.again);
    numbers(shown.old.length, again, dice.toFixed(3), lost.toFixed(3));
    const what = step ? `${data.kinds[k].name} ${named(k, step)}` : "The image as it is";
    say.textContent = `${what}: ${plural(shown.old.length, "keypoint")}, ${again} of the earlier ones found again; ` +
      `${data.networks[n]} has a Dice of ${dice.toFixed(3)} in this slice.`;
    const series = data.networks.map((_, i) => ({
      points: steps.map((s) => [s, frame(k, s).predicted[i].dice]),
      colour: i === n ? "var(--kx-accent)" : "var(--kx-muted)", width: i === n ? 3 : 1.5,
    }));
    series.push(series.splice(n, 1)[0]);
    series.push({ points: [[step, dice]], colour: "var(--kx-accent)", symbol: (x, y) => circle(x, y, 5) });
    curve.show({
      height: 240, marker: step, series,
      x: { label: `level of ${data.kinds[k].name}${unit(k)}`, range: [0, steps.length - 1], ticks: steps, format: (s) => named(k, s) },
      y: { label: "Dice of the slice", range: [0, 1], ticks: [0, 0.25, 0.5, 0.75, 1] },
    });
  }
  update();
}
