"use strict";
const SVG = "http://www.w3.org/2000/svg";

// Starts every explorer with these data that has not been started, wherever the front end has put the script.
function begin(key, start) {
  for (const root of document.querySelectorAll(`.kaf-explorer[data-key="${key}"]:not([data-ready])`)) {
    root.dataset.ready = "yes";
    const body = root.querySelector(".kx-body");
    body.replaceChildren();
    start(body, JSON.parse(root.querySelector('script[type="application/json"]').textContent));
  }
}

function set(node, attributes, text) {
  for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
const add = (parent, tag, attributes, text) =>
  parent.appendChild(set(document.createElement(tag), attributes, text));
const draw = (parent, tag, attributes, text) =>
  parent.appendChild(set(document.createElementNS(SVG, tag), attributes, text));

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const percent = (share) => {
  const value = 100 * share;
  return `${value >= 10 || value === 0 ? value.toFixed(0) : value.toFixed(value < 1 ? 2 : 1)} %`;
};

// A slider over a list of values: a name, the value as text, and the native control.
function slider(parent, name, values, index, show, changed) {
  const label = add(parent, "label");
  const line = add(label, "span", { class: "kx-name" });
  add(line, "span", {}, name);
  const value = add(line, "span", { class: "kx-value" });
  const input = add(label, "input", { type: "range", min: 0, max: values.length - 1, step: 1, "aria-label": name });
  input.value = index;
  if (values.length < 2) label.style.display = "none"; // nothing to choose
  const update = () => {
    value.textContent = show(values[input.value]);
    input.setAttribute("aria-valuetext", value.textContent);
  };
  input.addEventListener("input", () => { update(); changed(); });
  update();
  return {
    get index() { return Number(input.value); },
    get value() { return values[input.value]; },
    go(to) { input.value = to; update(); },
  };
}

function choice(parent, name, options, changed) {
  const label = add(parent, "label");
  add(add(label, "span", { class: "kx-name" }), "span", {}, name);
  const input = add(label, "select", { "aria-label": name });
  options.forEach((option, i) => add(input, "option", { value: i }, option));
  input.addEventListener("change", changed);
  if (options.length < 2) label.style.display = "none";
  return { get index() { return Number(input.value); } };
}

function tick(parent, name, checked, changed) {
  const label = add(parent, "label", { class: "kx-tick" });
  const input = add(label, "input", { type: "checkbox" });
  input.checked = checked;
  add(label, "span", {}, name);
  input.addEventListener("change", changed);
  return { label, get on() { return input.checked; } };
}

// Large numbers with their names: returns a function that sets them.
function figures(parent, names) {
  const box = add(parent, "div", { class: "kx-figures" });
  const shown = names.map((name) => {
    const cell = add(box, "div");
    const number = add(cell, "b");
    add(cell, "span", {}, name);
    return number;
  });
  return (...values) => values.forEach((value, i) => { shown[i].textContent = value; });
}

// The sentence that screen readers announce.
const sentence = (parent) => add(parent, "p", { class: "kx-say", role: "status", "aria-live": "polite" });

function legend(parent, entries) {
  const box = add(parent, "div", { class: "kx-key" });
  for (const [name, shape, attributes] of entries) {
    const entry = add(box, "span");
    const svg = draw(entry, "svg", { width: 22, height: 18, viewBox: "-11 -9 22 18", "aria-hidden": "true" });
    draw(svg, "path", { d: shape, ...attributes });
    add(entry, "span", {}, name);
  }
}

const circle = (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
const diamond = (x, y, r) => `M${x} ${y - r}l${r} ${r}l${-r} ${r}l${-r} ${-r}z`;
const cross = (x, y, r) => `M${x - r} ${y - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`;
const line = (a, b) => `M${a[0]} ${a[1]}L${b[0]} ${b[1]}`;
const pairs = (flat) => Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);

// A picture of W x H pixels, pixel centres at integers.
function stage(parent, width, height, label) {
  return draw(parent, "svg", {
    class: "kx-stage", viewBox: `-0.5 -0.5 ${width} ${height}`, role: "img", "aria-label": label,
  });
}
const image = (svg, href, width, height, x = 0) =>
  draw(svg, "image", { href, x: x - 0.5, y: -0.5, width, height, preserveAspectRatio: "none" });
const path = (svg, attributes) => draw(svg, "path", { fill: "none", "vector-effect": "non-scaling-stroke", ...attributes });

// Lets mouse, finger and arrow keys choose one of the points [[x, y], ...]; returns the choice.
function picker(svg, points, start, changed) {
  const chosen = { index: start, go(to) { if (to >= 0 && to !== chosen.index) { chosen.index = to; changed(); } } };
  const nearest = (score) => {
    let best = -1, least = Infinity;
    points.forEach((point, i) => {
      const value = score(point[0], point[1], i);
      if (value < least) { least = value; best = i; }
    });
    return best;
  };
  const follow = (event) => {
    const matrix = svg.getScreenCTM();
    if (!matrix) return;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
    chosen.go(nearest((x, y) => (x - at.x) ** 2 + (y - at.y) ** 2));
  };
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  set(svg, { tabindex: 0, role: "application", "aria-roledescription": "picture with points" });
  svg.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") follow(event); });
  svg.addEventListener("pointerdown", follow);
  svg.addEventListener("keydown", (event) => {
    const [cx, cy] = points[chosen.index], step = steps[event.key];
    if (step) {
      chosen.go(nearest((x, y, i) => {
        const along = (x - cx) * step[0] + (y - cy) * step[1];
        const aside = Math.abs((x - cx) * step[1]) + Math.abs((y - cy) * step[0]);
        return i === chosen.index || along <= 0 || aside > along ? Infinity : along + 1.5 * aside;
      }));
    } else if (event.key === "Home" || event.key === "End") {
      chosen.go(event.key === "Home" ? 0 : points.length - 1);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  return chosen;
}
