"""The rendered pages and a browser without network, for tests/book/test_pages.py."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = Path(os.environ.get("KAF_PAGES", ROOT / "_build" / "html"))
REQUIRED = bool(os.environ.get("CI"))  # what is missing is then an error
NAMES = ("chromium", "chromium-browser", "google-chrome")
KNOWN = "Identifier 'THEBE_JS_URL' has already been declared"  # sphinx-thebe puts one line twice into each page


def chromium() -> str | None:
    """The browser: KAF_CHROMIUM, or the first of NAMES on the path."""
    return os.environ.get("KAF_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def missing() -> str:
    """What the tests of the pages lack, with what to do about it; empty: nothing."""
    if not (PAGES / "index.html").is_file():
        return f"no pages in {PAGES}; run `make pages` first"
    if not chromium():
        return "no Chromium; install it, or set KAF_CHROMIUM to a Chromium or Chrome that is already there"
    return ""


def pages() -> list[Path]:
    """Every page, but for what only forwards to another."""
    found = sorted(path for path in PAGES.rglob("*.html") if "_static" not in path.parts)
    return [path for path in found if path != PAGES / "index.html"]


def watch(page) -> list[str]:
    """A list that grows with every script error, failed request and request for the network of a tab."""
    faults: list[str] = []

    def console(message):
        if message.type == "error" and "invalid theme mode" not in message.text:  # of a first visit
            faults.append(f"console: {message.text}")

    def request(sent):
        if not sent.url.startswith(("file:", "data:", "blob:")):
            faults.append(f"asks the network for {sent.url}")

    page.on("pageerror", lambda error: KNOWN in str(error) or faults.append(f"script: {error}"))
    page.on("console", console)
    page.on("request", request)
    page.on("requestfailed", lambda sent: faults.append(f"failed: {sent.url}"))
    return faults


# Texts whose contrast with what lies behind them is below WCAG 2.1 AA: 4.5, or 3 for large letters. Colours are laid
# over each other with their opacity. Text above a picture or a gradient cannot be judged and is left out.
CONTRAST = r"""
() => {
  const parse = (text) => {
    const [r, g, b, a] = (text.match(/[\d.]+/g) || []).map(Number);
    return [r, g, b, a ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = (c) => {
    const line = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = c.slice(0, 3).map((v) => line(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const below = (node) => {
    const layers = [];
    for (let n = node; n; n = n.parentElement) {
      const style = getComputedStyle(n);
      if (style.backgroundImage !== "none") return null;
      layers.push(parse(style.backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reduceRight((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const found = new Map();
  const walker = document.createTreeWalker(document.querySelector("main") ?? document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement, style = getComputedStyle(node);
    if (!text.data.trim() || ["SCRIPT", "STYLE", "NOSCRIPT", "TITLE"].includes(node.tagName)) continue;
    if (!node.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) continue;
    if (!node.getClientRects().length) continue;
    if (node.closest("mjx-assistive-mml, .sd-card-img, [disabled]")) continue;
    const ground = below(node);
    if (!ground) continue;
    const svg = node.closest("svg") && !node.closest("foreignObject");
    let colour = parse(svg ? style.fill : style.color);
    let opacity = 1;
    for (let n = node; n; n = n.parentElement) opacity *= Number(getComputedStyle(n).opacity);
    colour = over([...colour.slice(0, 3), colour[3] * opacity], ground);
    const [a, b] = [light(colour), light(ground)].sort((p, q) => q - p), ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) {
      const key = `${node.tagName.toLowerCase()}.${node.className.baseVal ?? node.className}`;
      if (!found.has(key)) found.set(key, `${ratio.toFixed(2)} ${key}: ${text.data.trim().slice(0, 40)}`);
    }
  }
  return [...found.values()];
}
"""

# What an explorer shows, without its controls: these change with every key even where nothing follows from it.
SHOWN = r"""
(root) => {
  const copy = root.querySelector(".kx-body").cloneNode(true);
  for (const control of copy.querySelectorAll("label, button, .kx-help")) control.remove();
  return copy.innerHTML;
}
"""

# What is wider than the window, for the message.
WIDE = r"""
() => [...document.querySelectorAll("main *")]
  .filter((n) => n.getBoundingClientRect().right > innerWidth + 1 && n.getBoundingClientRect().width)
  .map((n) => `${n.tagName.toLowerCase()}.${n.className.baseVal ?? n.className}`).slice(0, 5)
"""
