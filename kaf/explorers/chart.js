// A small chart in real pixels, so that its letters stay readable at every width. `given` has: height; x, y = {label,
// range: [low, high], log, ticks, format}; marker (x, a vertical line); and series, each with points [[x, y], ...] and
// optionally low and high ends [[x, low, high], ...], colour, width, dash, symbol (a path), bars (a width in x).
function chart(parent, label) {
  const svg = draw(parent, "svg", { class: "kx-chart", role: "img", "aria-label": label });
  let latest = null;
  const show = (given) => {
    latest = given;
    const width = Math.max(210, Math.floor(parent.clientWidth || 300)), height = given.height;
    const left = 50, right = 10, top = 10, bottom = 40;
    set(svg, { width, height, viewBox: `0 0 ${width} ${height}` });
    svg.replaceChildren();
    const place = (axis, from, to) => {
      const scale = axis.log ? Math.log : (value) => value;
      const [low, high] = axis.range.map(scale);
      return (value) => from + ((scale(value) - low) / (high - low || 1)) * (to - from);
    };
    const X = place(given.x, left, width - right), Y = place(given.y, height - bottom, top);
    axes(svg, given, X, Y, { width, height, left, right, top, bottom });
    if (given.marker !== undefined) {
      draw(svg, "path", { d: `M${X(given.marker)} ${top}V${height - bottom}`, style: "stroke: var(--kx-text)", "stroke-width": 1.5, "stroke-dasharray": "4 3" });
    }
    for (const series of given.series) line_of(svg, series, X, Y);
    return { X, Y };
  };
  new ResizeObserver(() => {
    if (latest && Math.abs(parent.clientWidth - svg.clientWidth) > 2) show(latest);
  }).observe(parent);
  return { svg, show };
}

function axes(svg, given, X, Y, box) {
  const { width, height, left, right, top, bottom } = box;
  const grid = "stroke: var(--kx-border)";
  for (const value of given.y.ticks) {
    draw(svg, "path", { d: `M${left} ${Y(value)}H${width - right}`, style: grid, "stroke-width": 1 });
    draw(svg, "text", { x: left - 6, y: Y(value) + 4, "text-anchor": "end" }, (given.y.format ?? String)(value));
  }
  let last = -Infinity;
  for (const value of given.x.ticks) {
    const name = (given.x.format ?? String)(value), half = 4 + 3.5 * name.length;
    draw(svg, "path", { d: `M${X(value)} ${height - bottom}v4`, style: "stroke: var(--kx-text)", "stroke-width": 1 });
    if (X(value) - half < last) continue;
    last = X(value) + half;
    draw(svg, "text", { x: X(value), y: height - bottom + 17, "text-anchor": "middle" }, name);
  }
  draw(svg, "path", { d: `M${left} ${height - bottom}H${width - right}`, style: "stroke: var(--kx-text)", "stroke-width": 1 });
  draw(svg, "text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, given.x.label);
  const middle = (top + height - bottom) / 2;
  draw(svg, "text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, given.y.label);
}

function line_of(svg, series, X, Y) {
  const style = `stroke: ${series.colour}`, spread = series.ends ?? [];
  const through = (list) => list.map(([x, y], i) => `${i ? "L" : "M"}${X(x)} ${Y(y)}`).join("");
  if (series.bars) {
    for (const [x, y] of series.points) {
      const from = X(x - series.bars / 2), to = X(x + series.bars / 2);
      draw(svg, "rect", { x: from, y: Y(y), width: Math.max(1, to - from), height: Math.max(0, Y(0) - Y(y)), style: `fill: ${series.colour}` });
    }
    return;
  }
  if (spread.length > 1) {
    const band = [...spread.map(([x, low]) => [x, low]), ...spread.map(([x, , high]) => [x, high]).reverse()];
    draw(svg, "path", { d: `${through(band)}Z`, style: `fill: ${series.colour}`, "fill-opacity": 0.16 });
  } else {
    for (const [x, low, high] of spread) {
      draw(svg, "path", { d: `M${X(x)} ${Y(low)}V${Y(high)}m-4 0h8M${X(x) - 4} ${Y(low)}h8`, fill: "none", style, "stroke-width": 1.5 });
    }
  }
  draw(svg, "path", {
    d: through(series.points), fill: "none", style, "stroke-width": series.width ?? 2, "stroke-linejoin": "round",
    "stroke-dasharray": series.dash ?? "none", "stroke-opacity": series.opacity ?? 1,
  });
  if (series.symbol) {
    const d = series.points.map(([x, y]) => series.symbol(X(x), Y(y))).join("");
    draw(svg, "path", { d, style: `${style}; fill: ${series.hollow ? "var(--kx-page)" : series.colour}`, "stroke-width": 1.8 });
  }
}

// Round numbers between low and high, about `count` of them.
function ticks(low, high, count = 5) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.99);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}
