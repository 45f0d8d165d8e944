"""The explorers in Chromium: mouse and keyboard change what they show, without network and without errors."""

import re
from pathlib import Path

import pandas as pd
import pytest

from kaf.explorers import explore_attention, explore_keypoints, explore_labels, explore_matches
from kaf.keypoints import detect_sift, prepare
from tests.book.browser import REQUIRED, chromium
from tests.scenes import attention_maps, corruption_explorer, few_shot_rows, published, slices

KINDS = ("keypoints", "attention", "matches", "labels", "corruption")
WIDTHS = {"page": 732, "telephone": 360}
READABLE = 4.5  # smallest contrast of text


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("the package playwright")
    if not chromium():
        missing("chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


def missing(what):
    (pytest.fail if REQUIRED else pytest.skip)(f"{what} is not installed")


@pytest.fixture(scope="module")
def document(tmp_path_factory, store):
    """A page with all explorers, the first one twice."""
    pair = slices()
    points = [prepare(detect_sift(image), 120) for image in pair]
    maps = attention_maps(points[0], ("level 0", "level 3"))
    shown = [explore_keypoints(pair[0]), explore_attention(pair[0], points[0], maps), explore_matches(*pair, *points),
             explore_labels(few_shot_rows(), published()), corruption_explorer(store)]  # fmt: skip
    path = tmp_path_factory.mktemp("explorers") / "page.html"
    body = "\n".join(f"<section>{html.data}</section>" for html in [*shown, shown[0]])
    path.write_text(f'<!DOCTYPE html><html><head><meta charset="utf-8"><title>x</title></head>{body}</html>')
    return path


@pytest.fixture
def visit(browser, document):
    """Opens the page at a width and in a theme; whatever went wrong in it fails the test."""
    wrong, contexts = [], []

    def open_page(width=WIDTHS["page"], theme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        context.add_init_script(f"document.documentElement?.setAttribute('data-theme', '{theme}')")
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url)
                if not request.url.startswith(("data:", Path(document).as_uri())) else None)
        page.goto(document.as_uri())
        page.evaluate(f"document.documentElement.setAttribute('data-theme', '{theme}')")
        page.wait_for_timeout(50)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def root(page, kind):
    found = page.locator(f'.kaf-explorer[data-kind="{kind}"]').first
    found.scroll_into_view_if_needed()
    return found


def said(explorer):
    return explorer.locator('[role="status"]').inner_text()


def big(explorer):
    return explorer.locator(".kx-figures b").all_inner_texts()


def test_all_start_also_twice_on_a_page(visit):
    page = visit()
    assert page.locator(".kaf-explorer[data-ready]").count() == len(KINDS) + 1
    twins = page.locator('.kaf-explorer[data-kind="keypoints"]')
    before = said(twins.nth(1))
    twins.nth(0).locator("input").first.focus()
    page.keyboard.press("End")
    assert said(twins.nth(0)) != before == said(twins.nth(1))


def test_keypoints_follow_both_sliders(visit):
    page = visit()
    explorer = root(page, "keypoints")
    threshold, blur = explorer.locator("input").all()
    counts = [int(big(explorer)[0])]
    threshold.focus()
    page.keyboard.press("Home")
    counts.append(int(big(explorer)[0]))
    page.keyboard.press("End")
    counts.append(int(big(explorer)[0]))
    assert counts[1] > counts[0] > counts[2] and threshold.get_attribute("aria-valuetext") == "0.12"
    page.keyboard.press("Home")
    drawn = sum(explorer.locator(f".kx-{name}").get_attribute("d").count("M") for name in ("other", "dark"))
    assert drawn == counts[1]
    blur.focus()
    page.keyboard.press("End")
    assert int(big(explorer)[0]) < counts[1] and f"{big(explorer)[0]} keypoints" in said(explorer)
    assert explorer.locator("feGaussianBlur").get_attribute("stdDeviation") == "4"
    assert explorer.locator("image").get_attribute("filter")


def test_attention_follows_mouse_keys_slider_and_map(visit):
    page = visit()
    explorer = root(page, "attention")
    stage = explorer.locator(".kx-stage")
    texts = [said(explorer)]
    stage.focus()
    for key in ("ArrowLeft", "ArrowDown", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
        texts.append(said(explorer))
    assert len(set(texts)) >= 3
    page.keyboard.press("Home")
    assert said(explorer) == texts[0] and texts[0].startswith("Keypoint 1 of")
    box = stage.bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.8 * box["height"])
    assert said(explorer) != texts[0]
    explorer.locator("select").focus()
    before = said(explorer)
    page.keyboard.press("ArrowDown")
    assert "level 3" in said(explorer) and "level 0" in before
    links = explorer.locator("input").first
    links.focus()
    page.keyboard.press("Home")
    assert explorer.locator(".kx-stage g").first.locator("path").count() == 2  # one line, one dot


def test_matches_follow_window_and_keys(visit):
    page = visit()
    explorer = root(page, "matches")
    window = explorer.locator('input[type="range"]')
    window.focus()
    page.keyboard.press("Home")
    first = big(explorer)
    matched, left = int(first[0]), int(first[1])
    assert explorer.locator(".kx-found").get_attribute("d").count("M") == 2 * matched
    page.keyboard.press("End")
    assert window.get_attribute("aria-valuetext") == "60 px"
    assert big(explorer) != first and int(big(explorer)[0]) + int(big(explorer)[1]) == matched + left
    explorer.locator(".kx-stage").focus()
    before = said(explorer)
    page.keyboard.press("ArrowDown")
    assert said(explorer) != before
    explorer.locator('input[type="checkbox"]').uncheck()
    assert not explorer.locator(".kx-links").get_attribute("d")


def test_labels_follow_boxes_structure_and_keys(visit):
    page = visit()
    explorer = root(page, "labels")
    table = explorer.locator(".kx-table")
    assert "2 labelled patients, mean" in table.inner_text() and "paper, ACDC" in table.inner_text()
    explorer.locator(".kx-chart").focus()
    page.keyboard.press("ArrowRight")
    assert "6 labelled patients" in table.inner_text()
    rows = table.locator("tr").count()
    explorer.get_by_label("UNet", exact=True).focus()
    page.keyboard.press("Space")
    assert table.locator("tr").count() == rows - 1
    explorer.locator("select").select_option(label="RV")
    assert "RV" in table.inner_text() and "paper" not in table.inner_text()
    box = explorer.locator(".kx-chart").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 15, box["y"] + 100)
    assert "20 labelled patients" in table.inner_text()


def test_no_two_of_many_methods_look_alike(browser, tmp_path):
    rows = pd.concat([few_shot_rows().assign(method=f"method {n}") for n in range(10)])
    path = tmp_path / "page.html"
    path.write_text(f'<meta charset="utf-8">{explore_labels(rows, shown=["method 0", "method 9"]).data}')
    page = browser.new_page()
    page.goto(path.as_uri())
    boxes = root(page, "labels").locator(".kx-ticks label")
    looks = {box.locator("path").nth(1).evaluate("e => e.getAttribute('d') + e.getAttribute('style')")
             for box in boxes.all()}
    assert len(looks) == 10 == boxes.count()
    colours = [box.locator("path").nth(1).evaluate("e => e.style.stroke") for box in boxes.all()]
    assert colours[0] == "var(--kx-0)" and colours[9] == "var(--kx-1)", "those drawn at first have the first colours"
    ticked = [box.inner_text().strip() for box in boxes.all() if box.locator("input").is_checked()]
    assert ticked == ["method 0", "method 9"]
    page.close()


def test_corruption_follows_kind_level_and_network(visit):
    page = visit()
    explorer = root(page, "corruption")
    level, (kind, network) = explorer.locator('input[type="range"]'), explorer.locator("select").all()
    level.focus()
    page.keyboard.press("Home")
    assert "as it is" in said(explorer) and big(explorer)[1] == "100 %" and big(explorer)[3] == "0.000"
    page.keyboard.press("End")
    assert level.get_attribute("aria-valuetext") == "2" and "blur 2" in said(explorer)
    kind.select_option(label="noise")
    assert level.get_attribute("aria-valuetext") == "0.3" and "noise 0.3" in said(explorer)
    assert "level of noise (of the range)" in explorer.locator(".kx-chart").inner_html()
    network.select_option(label="kaf_scratch")
    assert "kaf_scratch has a Dice of" in said(explorer)
    assert explorer.locator(".kx-new").get_attribute("d")


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_fits_and_can_be_read(visit, width, theme):
    page = visit(width, theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for kind in KINDS:
        for text, colour, ground, size in root(page, kind).evaluate(TEXTS):
            assert contrast(colour, ground) >= READABLE, f"{kind}, {theme}: {text!r} in {colour} on {ground}"
            assert size >= 12, f"{kind}: {text!r} is {size} px high"


def test_focus_can_be_seen(visit):
    page = visit()
    for selector in (".kx-stage[tabindex]", 'input[type="range"]', "select"):
        page.locator(f".kaf-explorer {selector}").first.focus()
        page.keyboard.press("Shift")  # the ring is for those who use the keyboard
        width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert width == "3px", selector


def test_everything_that_can_have_the_focus_has_a_name(visit):
    page = visit()
    for node in page.locator(".kaf-explorer :is(input, select, [tabindex])").all():
        assert node.get_attribute("aria-label") or node.locator("xpath=ancestor::label").inner_text().strip()


# Every text with its colour, the colour behind it, and its size in pixels.
TEXTS = """(root) => {
  const walker = document.createTreeWalker(root.querySelector(".kx-body"), NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement, style = getComputedStyle(node);
    if (!walker.currentNode.textContent.trim() || node.closest(".kx-unseen")) continue;
    let behind = node;
    while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    found.push([walker.currentNode.textContent, node instanceof SVGElement ? style.fill : style.color,
                getComputedStyle(behind).backgroundColor, parseFloat(style.fontSize)]);
  }
  return found;
}"""


def contrast(one, other):
    """Ratio of the relative luminances of two opaque colours (WCAG 2)."""
    light = sorted(luminance(colour) for colour in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


def luminance(colour):
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear))


def test_contrast_is_that_of_the_standard():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(118, 118, 118)", "rgb(255, 255, 255)") == pytest.approx(4.54, abs=0.01)
