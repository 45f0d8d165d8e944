function start(root, data) {
  const bar = add(root, "div", { class: "kx-bar" });
  const threshold = slider(bar, "contrast threshold", data.thresholds, Math.max(0, data.thresholds.indexOf(0.04)), String, () => update());
  const blur = slider(bar, "blur (standard deviation)", data.blurs, 0, (value) => `${value} px`, () => update());
  const row = add(root, "div", { class: "kx-row" });
  const main = add(row, "div", { class: "kx-main" }), side = add(row, "div", { class: "kx-side" });

  const svg = stage(main, data.width, data.height, "The slice and its keypoints");
  // The id is made here: the same explorer may stand on a page twice.
  const id = `kx-blur-${Math.random().toString(36).slice(2)}`;
  const filter = draw(draw(svg, "defs"), "filter", { id, "color-interpolation-filters": "sRGB", x: 0, y: 0, width: 1, height: 1 });
  const gauss = draw(filter, "feGaussianBlur", { edgeMode: "duplicate" });
  const slice = image(svg, data.image, data.width, data.height);
  const OTHER = { stroke: "#56B4E9", "stroke-width": 1.6 }, DARK = { stroke: "#F0A030", "stroke-width": 1.6 };
  const other = path(svg, { class: "kx-other", ...OTHER }), dark = path(svg, { class: "kx-dark", ...DARK });
  legend(main, [
    ["on structure; as large as what is described", circle(0, 0, 6), { ...OTHER, fill: "none" }],
    ["on background", diamond(0, 0, 6), { ...DARK, fill: "none" }],
  ]);

  const numbers = figures(side, ["keypoints", "on background"]);
  const say = sentence(side);
  const curve = chart(add(side, "div"), "Number of keypoints against the contrast threshold, one line per blur");
  add(side, "p", { class: "kx-help" }, "Thick line: this blur; thin lines: the others. Move a slider with the mouse or, once it has the focus, with the arrow keys.");

  const count = (layer, bit) => layer.at.reduce((sum, bits) => sum + ((bits >> bit) & 1), 0);
  const counts = data.layers.map((layer) => data.thresholds.map((_, bit) => count(layer, bit)));
  const most = Math.max(10, ...counts.flat());

  function update() {
    const layer = data.layers[blur.index], bit = threshold.index, places = pairs(layer.xy);
    const paths = ["", ""];
    let total = 0, background = 0;
    layer.at.forEach((bits, i) => {
      if (!((bits >> bit) & 1)) return;
      total += 1;
      background += layer.dark[i];
      paths[layer.dark[i]] += (layer.dark[i] ? diamond : circle)(...places[i], layer.size[i] / 2);
    });
    other.setAttribute("d", paths[0]);
    dark.setAttribute("d", paths[1]);
    gauss.setAttribute("stdDeviation", blur.value);
    if (blur.value) slice.setAttribute("filter", `url(#${id})`); else slice.removeAttribute("filter");
    numbers(total, total ? percent(background / total) : "–");
    say.textContent = `Threshold ${threshold.value}, blur ${blur.value} px: ${plural(total, "keypoint")}, ` +
      `${background} of them on background.`;
    const series = counts.map((list, k) => ({
      points: data.thresholds.map((t, i) => [t, Math.max(1, list[i])]),
      colour: k === blur.index ? "var(--kx-accent)" : "var(--kx-muted)",
      width: k === blur.index ? 3 : 1, opacity: k === blur.index ? 1 : 0.55,
    }));
    series.push(series.splice(blur.index, 1)[0]);
    series.push({ points: [[threshold.value, Math.max(1, total)]], colour: "var(--kx-accent)", symbol: (x, y) => circle(x, y, 5) });
    curve.show({
      height: 270, marker: threshold.value, series,
      x: { label: "contrast threshold", log: true, range: [data.thresholds[0], data.thresholds.at(-1)], ticks: data.thresholds.filter((t) => [0.005, 0.01, 0.02, 0.04, 0.08].includes(t)) },
      y: { label: "keypoints", log: true, range: [1, most * 1.2], ticks: [1, 10, 100, 1000, 10000].filter((t) => t <= most * 1.2) },
    });
  }
  update();
}
