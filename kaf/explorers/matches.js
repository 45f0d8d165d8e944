function start(root, data) {
  const a = pairs(data.a), b = pairs(data.b), gap = Math.max(3, Math.round(data.width / 40)), shift = data.width + gap;
  const moved = b.map(([x, y]) => [x + shift, y]);
  const partner = data.partners.map((runs) => {
    const list = [];
    data.windows.forEach((_, w) => {
      let at = 0;
      while (at + 2 < runs.length && runs[at + 2] <= w) at += 2;
      list.push(runs[at + 1]);
    });
    return list;
  });
  const bar = add(root, "div", { class: "kx-bar" });
  const window_ = slider(bar, "window (Manhattan distance)", data.windows, data.start, (v) => `${v} px`, () => update());
  const all = tick(bar, "lines for all matches", true, () => update());

  const svg = stage(root, 2 * data.width + gap, data.height, "Two neighbouring slices. Arrow keys choose a keypoint of the left one, Home the strongest.");
  svg.style.background = "none";
  data.images.forEach((href, i) => image(svg, href, data.width, data.height, i * shift));
  const clip = `kx-right-${Math.random().toString(36).slice(2)}`;
  draw(draw(draw(svg, "defs"), "clipPath", { id: clip }), "rect", { x: shift - 0.5, y: -0.5, width: data.width, height: data.height });
  const unit = data.width / 100, LOST = "#c3c9d1", FOUND = "#56B4E9", LINK = "#E69F00", CHOSEN = "#F0E442";
  const lost = path(svg, { class: "kx-lost", stroke: LOST, "stroke-width": 1.2 });
  const links = path(svg, { class: "kx-links", stroke: LINK, "stroke-width": 1.1, "stroke-opacity": 0.75 });
  const found = path(svg, { class: "kx-found", fill: FOUND, stroke: "#000", "stroke-width": 0.6 });
  const focus = draw(svg, "g");
  legend(root, [
    ["matched", circle(0, 0, 4), { fill: FOUND }],
    ["unmatched", cross(0, 0, 3.5), { stroke: LOST, "stroke-width": 1.6 }],
    ["chosen keypoint, its window and candidates", diamond(0, 0, 7), { stroke: CHOSEN, "stroke-width": 2, fill: "none" }],
  ]);
  const row = add(root, "div", { class: "kx-row", style: "margin-top: 12px" });
  const left = add(row, "div", { class: "kx-side" }), right = add(row, "div", { class: "kx-side" });
  const numbers = figures(left, ["matched", "unmatched, left", "unmatched, right", "median shift"]);
  const say = sentence(left);
  const curve = chart(add(right, "div"), "Number of matched and unmatched keypoints of the left slice against the window");
  add(root, "p", { class: "kx-help" }, "Point at a keypoint of the left slice, tap it, or give the picture the focus (Tab) and use the arrow keys.");

  const apart = (p, q) => Math.abs(p[0] - q[0]) + Math.abs(p[1] - q[1]);
  const matched = data.windows.map((_, w) => partner.filter((list) => list[w] >= 0).length);
  const chosen = picker(svg, a, Math.max(0, partner.findIndex((list) => list[data.start] >= 0)), () => update());

  function update() {
    const w = window_.index, size = window_.value, taken = new Set(), shifts = [];
    const d = { lost: "", found: "", links: "" };
    a.forEach((p, i) => {
      const j = partner[i][w];
      if (j < 0) { d.lost += cross(...p, 0.75 * unit); return; }
      taken.add(j);
      shifts.push(apart(p, b[j]));
      d.found += circle(...p, 0.95 * unit) + circle(...moved[j], 0.95 * unit);
      if (all.on) d.links += line(p, moved[j]);
    });
    moved.forEach((p, j) => { if (!taken.has(j)) d.lost += cross(...p, 0.75 * unit); });
    lost.setAttribute("d", d.lost); found.setAttribute("d", d.found); links.setAttribute("d", d.links);
    shifts.sort((x, y) => x - y);
    const n = shifts.length, median = n ? (shifts[(n - 1) >> 1] + shifts[n >> 1]) / 2 : 0;
    numbers(n, a.length - n, b.length - n, n ? `${median.toFixed(1)} px` : "–");
    mark(chosen.index, w, size);
    const series = [
      { points: data.windows.map((v, i) => [v, matched[i]]), colour: "var(--kx-0)", width: 3 },
      { points: data.windows.map((v, i) => [v, a.length - matched[i]]), colour: "var(--kx-muted)", width: 2, dash: "6 4" },
      { points: [[size, n]], colour: "var(--kx-0)", symbol: (x, y) => circle(x, y, 5) },
    ];
    curve.show({
      height: 200, marker: size, series,
      x: { label: "window (px)", range: [data.windows[0], data.windows.at(-1)], ticks: ticks(data.windows[0], data.windows.at(-1), 6) },
      y: { label: "matched (dashes: not)", range: [0, a.length * 1.02], ticks: ticks(0, a.length, 4) },
    });
  }

  function mark(i, w, size) {
    const p = a[i], j = partner[i][w], centre = [p[0] + shift, p[1]];
    const near = b.flatMap((q, k) => (apart(p, q) < size ? [k] : []));
    focus.replaceChildren();
    path(focus, { d: diamond(...centre, size), stroke: CHOSEN, "stroke-width": 1.8, "stroke-dasharray": "5 3", "clip-path": `url(#${clip})` });
    path(focus, { d: near.map((k) => circle(...moved[k], 1.7 * unit)).join(""), stroke: CHOSEN, "stroke-width": 1.8 });
    if (j >= 0) path(focus, { d: line(p, moved[j]), stroke: CHOSEN, "stroke-width": 3 });
    path(focus, { d: circle(...p, 1.9 * unit), stroke: CHOSEN, "stroke-width": 3 });
    const start = `Keypoint ${i + 1} of ${a.length} has ${near.length ? plural(near.length, "candidate") : "no candidate"} in its window`;
    say.textContent = j >= 0 ? `${start}; it is matched to one ${apart(p, b[j]).toFixed(1)} px away.`
      : near.length ? `${start}, but the most similar one is more similar to another keypoint: unmatched.` : `${start}: unmatched.`;
  }
  update();
}
