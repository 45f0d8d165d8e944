function start(root, data) {
  const points = pairs(data.xy), count = points.length;
  const bar = add(root, "div", { class: "kx-bar" });
  const map = choice(bar, "attention map", data.maps.map((m) => m.name), () => update());
  const links = slider(bar, "links shown", Array.from({ length: data.links }, (_, i) => i + 1), Math.min(12, data.links) - 1, (n) => `${n} strongest`, () => update());
  const query = slider(bar, "keypoint", points.map((_, i) => i), 0, (i) => `${i + 1} of ${count}`, () => chosen.go(query.index));
  const row = add(root, "div", { class: "kx-row" });
  const main = add(row, "div", { class: "kx-main" }), side = add(row, "div", { class: "kx-side" });

  const svg = stage(main, data.width, data.height, "Slice with keypoints. Arrow keys go to the next keypoint in a direction, Home to the strongest.");
  image(svg, data.image, data.width, data.height);
  const unit = data.width / 100;
  path(svg, { d: points.map((p) => circle(...p, 0.55 * unit)).join(""), fill: "#9aa4b0", "fill-opacity": 0.75 });
  const drawn = draw(svg, "g"), star = draw(svg, "g");
  legend(main, [
    ["chosen keypoint", circle(0, 0, 5), { fill: "#fff", stroke: "#D55E00", "stroke-width": 3 }],
    ["looked at (larger, brighter: more)", `${circle(4, 0, 4)}M-10 0H0`, { fill: "#F0E442", stroke: "#F0E442", "stroke-width": 2 }],
    ["other keypoint", circle(0, 0, 3), { fill: "#9aa4b0" }],
  ]);
  const chosen = picker(svg, points, 0, () => { query.go(chosen.index); update(); });
  const numbers = figures(side, ["of the largest entropy", "mean distance"]);
  const say = sentence(side);
  const bars = chart(add(side, "div"), "Weights of the strongest links, and the weight that all would have if attention were uniform");
  add(side, "p", { class: "kx-help" }, "Keypoint 1 is the strongest. Point at one, tap it, or give the picture the focus (Tab) and use the arrow keys.");

  const decoded = data.maps.map((m) => atob(m.links));
  function linksOf(which, q) {
    return Array.from({ length: data.links }, (_, i) => {
      const at = 3 * (q * data.links + i), [low, high, share] = [0, 1, 2].map((k) => decoded[which].charCodeAt(at + k));
      return { to: low + 256 * high, share: share / 255 };
    });
  }
  // From dark violet over orange to yellow, readable on grey and for every colour vision.
  const STOPS = [[92, 60, 160], [190, 60, 130], [240, 120, 60], [240, 228, 66]];
  const colour = (share) => {
    const at = share * (STOPS.length - 1), i = Math.min(STOPS.length - 2, Math.floor(at));
    return `rgb(${STOPS[i].map((c, k) => Math.round(c + (at - i) * (STOPS[i + 1][k] - c))).join(",")})`;
  };

  function update() {
    const q = chosen.index, which = data.maps[map.index], all = linksOf(map.index, q), shown = all.slice(0, links.value);
    drawn.replaceChildren();
    for (const { to, share } of [...shown].reverse()) {
      path(drawn, { d: line(points[q], points[to]), stroke: colour(share), "stroke-width": 0.8 + 2.4 * share, "stroke-opacity": 0.35 + 0.55 * share });
      path(drawn, { d: circle(...points[to], (0.7 + 1.1 * share) * unit), fill: colour(share), stroke: "#000", "stroke-width": 0.8 });
    }
    star.replaceChildren();
    path(star, { d: circle(...points[q], 1.5 * unit), fill: "#fff", stroke: "#D55E00", "stroke-width": 3 });
    const effective = Math.max(1, count ** which.entropy[q]), top = which.top[q];
    numbers(percent(which.entropy[q]), `${which.distance[q].toFixed(0)} px`);
    const part = all.slice(0, links.value).reduce((sum, link) => sum + link.share * top, 0);
    say.textContent = `Keypoint ${q + 1} of ${count}, ${which.name}: it spreads its attention as if over ` +
      `${effective.toFixed(effective < 10 ? 1 : 0)} points equally. The links shown hold ${percent(Math.min(1, part))}, the strongest ${percent(top)}.`;
    const high = 100 * Math.max(top, 1.3 / count);
    bars.show({
      height: 190,
      series: [
        { points: all.map((link, i) => [i + 1, 100 * link.share * top]), bars: 0.8, colour: "var(--kx-border)" },
        { points: shown.map((link, i) => [i + 1, 100 * link.share * top]), bars: 0.8, colour: "var(--kx-accent)" },
        { points: [[0.4, 100 / count], [data.links + 0.6, 100 / count]], colour: "var(--kx-warm)", dash: "6 4", width: 2 },
      ],
      x: { label: "link, strongest first (dashes: uniform)", range: [0.4, data.links + 0.6], ticks: [1, ...ticks(5, data.links, 4)].filter((v) => v <= data.links && Number.isInteger(v)) },
      y: { label: "weight (%)", range: [0, high * 1.05], ticks: ticks(0, high, 4) },
    });
  }
  update();
}
