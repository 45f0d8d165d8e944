const SYMBOLS = [
  (x, y) => circle(x, y, 4.5), (x, y) => `M${x - 4} ${y - 4}h8v8h-8z`, (x, y) => diamond(x, y, 5.5),
  (x, y) => `M${x} ${y - 5.5}l5.5 9.5h-11z`, (x, y) => `M${x} ${y + 5.5}l5.5 -9.5h-11z`,
  (x, y) => `M${x} ${y - 6}l5.5 4l-2.1 6.5h-6.8l-2.1 -6.5z`, (x, y) => `M${x - 6} ${y - 2}h4v-4h4v4h4v4h-4v4h-4v-4h-4z`,
];

function start(root, data) {
  const bar = add(root, "div", { class: "kx-bar" });
  const structure = choice(bar, "structure", data.structures, () => update());
  // A published curve has the colour and the symbol of the method of the same name. Where colours come again, symbols
  // differ; the names that are drawn at first come first, so that these have the colours of a figure of them alone.
  const names = data.looks;
  const colour = (name) => `var(--kx-${names.indexOf(name) % 7})`;
  const symbol = (name) => SYMBOLS[(names.indexOf(name) + Math.floor(names.indexOf(name) / 7)) % 7];
  const lines = [
    ...data.methods.map((name, i) => ({ name, own: i, label: name })),
    ...data.paper.map((p) => ({ name: p.name, paper: p, label: `${p.name} (paper${p.dataset ? `, ${p.dataset}` : ""})` })),
  ];
  const box = add(root, "fieldset", { class: "kx-ticks" });
  add(box, "legend", { class: "kx-unseen" }, "methods shown");
  for (const one of lines) {
    one.shown = tick(box, one.label, data.shown.includes(one.name), () => update());
    const svg = draw(one.shown.label, "svg", { width: 30, height: 16, viewBox: "-15 -8 30 16", "aria-hidden": "true" });
    const style = `stroke: ${colour(one.name)}; fill: ${one.paper ? "var(--kx-page)" : colour(one.name)}`;
    draw(svg, "path", { d: "M-15 0H15", style, "stroke-width": 2, "stroke-dasharray": one.paper ? "5 3" : "none" });
    draw(svg, "path", { d: symbol(one.name)(0, 0), style, "stroke-width": 1.6 });
  }
  const ms = [...new Set([...data.curves.flat(2).map((p) => p[0]), ...data.paper.flatMap((p) => p.points.map((q) => q[0]))])].sort((x, y) => x - y);
  const at = slider(bar, "labelled patients", ms, 0, String, () => update());
  const plot = add(root, "div", { class: "kx-wide" });
  const curve = chart(plot, "Dice against the number of labelled patients. Left and right arrow keys choose the number.");
  const table = add(root, "table", { class: "kx-table" });
  const say = add(root, "p", { class: "kx-unseen", role: "status", "aria-live": "polite" });
  const patients = Math.max(0, ...data.curves.flat(2).map((p) => p[4]));
  const dashed = data.paper.length ? " Dashed: published, mean over folds of Dice pooled over the patients of a fold." : "";
  add(root, "p", { class: "kx-help" }, `${data.about ? `${data.about}. ` : ""}Points: mean over ${plural(patients, "test patient")}; bands: 95 % bootstrap interval.${dashed} ` +
    "Point at the picture, tap it, or give it the focus (Tab) and use the arrow keys.");

  set(curve.svg, { tabindex: 0, role: "application", "aria-roledescription": "chart" });
  curve.svg.style.touchAction = "pan-y";
  let X = null;
  const follow = (event) => {
    const x = event.clientX - curve.svg.getBoundingClientRect().left;
    let best = 0;
    ms.forEach((m, i) => { if (Math.abs(X(m) - x) < Math.abs(X(ms[best]) - x)) best = i; });
    if (best !== at.index) { at.go(best); update(); }
  };
  curve.svg.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") follow(event); });
  curve.svg.addEventListener("pointerdown", follow);
  curve.svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    at.go(Math.min(ms.length - 1, Math.max(0, at.index + step)));
    update();
    event.preventDefault();
    event.stopPropagation();
  });

  const pointsOf = (one) => (one.paper ? (structure.index ? [] : one.paper.points) : data.curves[structure.index][one.own]);
  function update() {
    const shown = lines.filter((one) => one.shown.on), m = at.value, found = shown.map(pointsOf).flat();
    for (const one of lines) if (one.paper) one.shown.label.style.display = structure.index ? "none" : "";
    const values = found.flatMap((p) => p.slice(1, 4).filter((v) => v !== null && v <= 1 && v > 0.15));
    const low = Math.max(0, Math.floor(10 * (Math.min(0.9, ...values) - 0.02)) / 10);
    const given = {
      height: 330, marker: m,
      x: { label: "labelled patients", log: true, range: [ms[0] * 0.85, ms.at(-1) * 1.18], ticks: ms },
      y: { label: "Dice", range: [low, 1], ticks: ticks(low, 1, 5), format: (v) => v.toFixed(1) },
      series: shown.map((one) => ({
        points: pointsOf(one).map((p) => [p[0], Math.max(low, p[1])]), colour: colour(one.name), symbol: symbol(one.name), hollow: Boolean(one.paper),
        dash: one.paper ? "6 4" : undefined,
        ends: one.paper ? [] : pointsOf(one).filter((p) => p[2] !== null).map((p) => [p[0], Math.max(low, p[2]), p[3]]),
      })),
    };
    X = curve.show(given).X;
    table.replaceChildren();
    add(table, "caption", {}, `Dice with ${plural(m, "labelled patient")}, ${data.structures[structure.index]}`);
    const read = [];
    for (const one of shown) {
      const p = pointsOf(one).find((q) => q[0] === m);
      if (!p) continue;
      const line_ = add(table, "tr");
      add(line_, "th", { scope: "row" }, one.label);
      add(line_, "td", {}, p[1].toFixed(3));
      const spread = one.paper ? (p[2] === null ? "" : `± ${p[2].toFixed(3)} over folds`) : p[2] === null ? "one patient" : `${p[2].toFixed(3)} to ${p[3].toFixed(3)}`;
      add(line_, "td", {}, spread);
      read.push(`${one.label} ${p[1].toFixed(3)}`);
    }
    if (!read.length) add(add(table, "tr"), "td", {}, "no value of the methods shown");
    say.textContent = `${plural(m, "labelled patient")}: ${read.join(", ") || "no value"}`;
  }
  update();
}
