"""The rendered pages, as a person without network sees them: in Chromium, light and dark, with mouse and keyboard."""

import re
from functools import cache
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from tests.book import browser

MISSING = browser.missing()
if MISSING and not browser.REQUIRED:
    pytest.skip(MISSING, allow_module_level=True)
HTML = browser.pages()
WIDTHS = (1280, 400)
KEYS = {"range": ("ArrowRight", "ArrowLeft"), "checkbox": ("Space",), "select-one": ("ArrowDown", "ArrowUp")}
MOVES = ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "Enter")


def name(path):
    return path.relative_to(browser.PAGES).with_suffix("").as_posix()


def test_there_are_pages_and_a_browser():
    assert not MISSING, MISSING
    assert len(HTML) > 5


# --- without a browser

class Links(HTMLParser):
    """Identifiers of a page, where its links lead, and pictures without a text."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets, self.silent = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[key] for key in ("id", "name") if given.get(key)}
        self.targets |= {given[key] for key in ("href", "src") if given.get(key)}
        if tag == "img" and not (given.get("alt") or "").strip():
            self.silent.append(given.get("src", "")[:80])


@cache
def links(path):
    return Links(path.read_text())


@pytest.mark.parametrize("path", HTML, ids=name)
def test_links_lead_somewhere(path):
    for target in links(path).targets:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        assert file.exists(), f"{target} of {name(path)}"
        if parts.fragment and file.suffix == ".html" and parts.fragment != "#":
            assert unquote(parts.fragment) in links(file).ids, f"{target} of {name(path)}"


@pytest.mark.parametrize("path", HTML, ids=name)
def test_every_picture_has_a_text(path):
    assert not links(path).silent


# --- in the browser

@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        flags = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
        found = started.chromium.launch(executable_path=browser.chromium(), args=flags)
        yield found
        found.close()


@pytest.fixture(scope="module", params=["light", "dark"])
def context(request, chromium):
    opened = chromium.new_context(offline=True, color_scheme=request.param, viewport={"width": 1280, "height": 900})
    yield opened
    opened.close()


@pytest.fixture(params=HTML, ids=name)
def page(request, context):
    tab = context.new_page()
    tab.faults = browser.watch(tab)
    tab.goto(request.param.as_uri(), wait_until="load")
    tab.path = request.param
    yield tab
    tab.close()


def formulas(page):
    """Wait for MathJax; formulas that it was given, and those that it set."""
    given = page.locator(".math").count()
    if given:
        page.wait_for_function("window.MathJax?.startup?.promise")
        page.evaluate("MathJax.startup.promise")
    return given, page.locator("mjx-container").count()


def test_page(page):
    """One visit for all that needs no input: it costs most of the time."""
    assert page.evaluate("document.documentElement.dataset.theme") == page.evaluate(
        "matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'")
    given, done = formulas(page)
    assert given <= done, f"{given - done} formulas are not typeset"
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    prose = page.evaluate("[...document.querySelectorAll('main p, main li, main td, figcaption')]"
                          ".map((n) => n.innerText).join('\\n')")
    assert not re.search(r"\$\$|\\\(|\\\[|\{(math|term|cite|ref|eq|doc)\b[^}]*\}`", prose)
    assert not (poor := page.evaluate(browser.CONTRAST)), f"contrast below 4.5: {poor}"
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        spill = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert spill <= 1, f"{spill} px too wide at {width} px: {page.evaluate(browser.WIDE)}"
    assert not page.faults


PLACE = "(handle) => handle.parentElement.style.transform"  # aria-valuenow is rounded to one decimal
STORED = 'script[type="application/vnd.jupyter.widget-view+json"]'


def with_text(text):
    return [path for path in HTML if text in path.read_text()]


def visit(context, path):
    tab = context.new_page()
    tab.faults = browser.watch(tab)
    tab.goto(path.as_uri(), wait_until="load")
    return tab


@pytest.mark.parametrize("path", with_text("application/vnd.jupyter.widget-view+json") or [None])
def test_widgets_are_shown_and_heed_the_keyboard(context, path):
    if path is None:
        pytest.skip("no page with widgets yet")
    tab = visit(context, path)
    tab.wait_for_selector(".widget-subarea .jupyter-widgets, .jupyter-widgets", state="attached")
    stored = tab.locator(STORED).count()
    tab.wait_for_function("(n) => document.querySelectorAll('.widget-subarea').length >= n", arg=stored)
    sliders = tab.locator(".jupyter-widgets [role=slider], .jupyter-widgets .noUi-handle")
    for i in range(sliders.count()):
        slider = sliders.nth(i)
        slider.focus()
        before = slider.evaluate(PLACE)
        for key in ("ArrowRight", "ArrowLeft"):
            tab.keyboard.press(key)
            if slider.evaluate(PLACE) != before:
                break
        assert slider.evaluate(PLACE) != before, f"slider {i} of {name(path)}"
    assert not tab.faults
    tab.close()


@pytest.mark.parametrize("path", with_text('class="kaf-explorer"') or [None])
def test_explorers_are_started_and_heed_the_keyboard(context, path):
    if path is None:
        pytest.skip("no page with explorers yet")
    tab = visit(context, path)
    roots = tab.locator(".kaf-explorer")
    assert roots.count() == tab.locator(".kaf-explorer[data-ready]").count() > 0
    for i in range(roots.count()):
        controls = roots.nth(i).locator("input, select, [tabindex='0']")
        assert controls.count() > 0, f"explorer {i} of {name(path)} has nothing to take the focus"
        idle = [c for c in range(controls.count()) if not reacts(tab, roots.nth(i), controls.nth(c))]
        assert not idle, f"controls {idle} of explorer {i} of {name(path)} change nothing"
    assert not tab.faults
    tab.close()


def reacts(tab, root, control):
    """Whether what an explorer shows follows a key that its control understands."""
    if not control.is_visible() or control.is_disabled():
        return True
    control.focus()
    for key in KEYS.get(control.evaluate("(node) => node.type ?? ''"), MOVES):
        before = root.evaluate(browser.SHOWN)
        tab.keyboard.press(key)
        tab.wait_for_timeout(50)
        if root.evaluate(browser.SHOWN) != before:
            return True
    return False
