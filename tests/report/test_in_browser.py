"""A page in Chromium: nothing from outside, nothing obeyed, readable by everybody."""

import re

import pytest
from runs import HOSTILE, MARKUP

from oracles.report.html import write_page

WIDTHS, THEMES = (390, 1440), ("light", "dark")


@pytest.fixture(scope="module")
def files(passed, refused, tmp_path_factory):
    """The path of each page, by its name."""
    folder = tmp_path_factory.mktemp("pages")
    write_page(passed, str(folder / "passed.html"))
    write_page(refused, str(folder / "refused.html"), passed)
    return {name: folder / f"{name}.html" for name in ("passed", "refused")}


@pytest.fixture
def opened(browser, files):
    """Opens a page; what its console says, and what it asks the network for, is in ``page.said`` and ``page.asked``."""
    pages = []

    def open_page(name, width=1440, theme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        pages.append(page)
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("dialog", lambda dialog: page.said.append(dialog.message))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(files[name].as_uri())
        return page

    yield open_page
    for page in pages:
        page.close()


def open_all_details(page):
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", ["passed", "refused"])
def test_nothing_is_violated_at_any_width_in_any_theme(opened, axe, files, name, theme, width):
    page = opened(name, width, theme)
    for reads_everything in (False, True):
        if reads_everything:
            open_all_details(page)
        violations = axe.run(page).response["violations"]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in violations] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.said == []
    assert page.asked == [files[name].as_uri()]


@pytest.mark.parametrize("name", ["passed", "refused"])
def test_the_page_fits_without_scripts(browser, files, name):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(files[name].as_uri())
    assert page.locator("#results .matrix td").count() > 0
    assert page.locator("h1").inner_text() == "oracles verify"
    context.close()


def test_what_users_name_is_shown_and_not_obeyed(opened):
    page = opened("refused")
    page.wait_for_timeout(100)
    assert page.evaluate("window.obeyed") is None
    assert page.locator("#results tbody th", has_text=HOSTILE).count() == 1
    assert MARKUP in page.locator("#refusals article").first.inner_text()
    assert page.locator("img").count() == 0


def test_no_script_but_ours_can_run(opened):
    page = opened("refused")
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.obeyed = 3";
        document.body.append(script);
    }""")
    assert page.evaluate("window.obeyed") is None
    assert "Content Security Policy" in " ".join(page.said)


@pytest.mark.parametrize("name", ["passed", "refused"])
def test_the_cells_are_those_of_the_document(opened, request, name):
    document = request.getfixturevalue(name)
    searches = {(row["layer"], row["property"], row["dtype"]) for row in document["results"]}
    unjudged = {(f["layer"], f["property"], f["dtype"]) for f in document["failures"] if f["verdict"] == "not judged"}
    columns = len({key[1] for key in searches}) * len({key[2] for key in searches})
    page = opened(name)
    assert page.locator("#results .matrix tbody tr").count() == len(document["layers"])
    assert page.locator("#results .matrix td").count() == len(document["layers"]) * columns
    assert page.locator("#results .matrix td[data-kind=absent]").count() == len(document["layers"]) * columns - len(
        searches | unjudged
    )
    assert page.locator("#results .matrix td[data-kind=not-judged]").count() == len(unjudged)


def cell(page, layer, kind):
    return page.locator("#results .matrix tbody tr", has=page.get_by_text(layer, exact=True)).locator(
        f"td[data-kind={kind}]"
    )


def test_the_refused_cell_says_so_in_words(opened):
    page = opened("refused")
    refused = cell(page, HOSTILE, "wrong")
    assert refused.count() == 1
    text = refused.text_content()
    assert f"{HOSTILE}, cotangents_agree, float64: wrong. 30 verdicts by torch; error / tolerance up to inf" in text
    assert refused.locator("a").get_attribute("href") == "#refusal-1"
    assert page.locator("#refusal-1").count() == 1


def greens(css):
    colours = [tuple(map(int, found)) for found in re.findall(r"rgb\((\d+), (\d+), (\d+)\)", css)]
    assert colours
    return [c for c in colours if c[1] > c[0] + 10 and c[1] > c[2] + 10]


@pytest.mark.parametrize("theme", THEMES)
def test_inconclusive_is_hatched_and_not_green(opened, theme):
    page = opened("refused", theme=theme)
    unclear = cell(page, "Huber", "inconclusive")
    assert unclear.count() == 1
    style = "(cell) => getComputedStyle(cell).backgroundImage + getComputedStyle(cell).backgroundColor"
    background = unclear.evaluate(style)
    assert "repeating-linear-gradient" in background
    assert not greens(background)
    assert greens(cell(page, "Linear", "agrees").first.evaluate(style))
    assert not greens(cell(page, HOSTILE, "wrong").evaluate(style))
    counts = page.locator(".counts .inconclusive")
    assert not greens(counts.evaluate(style))


def test_the_keyboard_reaches_a_refusal(opened):
    page = opened("refused")
    focused = "document.activeElement.closest('td')?.querySelector('.hidden').textContent ?? ''"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate(focused):
            break
    assert page.evaluate(focused).startswith("Linear, cotangents_agree, float64: agrees")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused).startswith(f"{HOSTILE}, cotangents_agree, float64: wrong")
    assert page.locator("#cell-details").inner_text() == page.evaluate(focused)
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused).startswith(f"{HOSTILE}, cotangents_agree, float32: agrees")
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")  # there is nothing further
    assert HOSTILE in page.evaluate(focused)
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#refusal-1"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#refusal-1') !== null")


def test_the_matrix_is_one_stop_of_the_tab_key(opened):
    page = opened("refused")
    assert page.locator("#results .matrix [tabindex='0']").count() == 1
    assert page.locator("#results .matrix").get_attribute("role") == "grid"


@pytest.mark.parametrize("has_clipboard", [True, False])
def test_the_script_is_copied(opened, disagreement, has_clipboard):
    page = opened("refused")
    if has_clipboard:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    else:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.locator("#refusal-1 summary", has_text="A script").click()
    page.locator("#refusal-1 button.copy").click()
    says = page.locator("#refusal-1 .copied")
    page.wait_for_function("document.querySelector('#refusal-1 .copied').textContent")
    assert says.inner_text() == "copied"
    if has_clipboard:
        assert page.evaluate("navigator.clipboard.readText()") == disagreement.script()
    else:
        assert page.evaluate("getSelection().toString()").strip() == disagreement.script().strip()


def test_a_link_opens_what_it_leads_to(opened):
    page = opened("refused")
    page.goto(page.url + "#refusal-3")
    assert page.locator("#refusal-3").is_visible()


def test_the_scatter_has_its_line_and_the_heat_map_its_entries(opened):
    page = opened("refused")
    assert page.locator("#errors svg").first.get_by_text("refused above 1").count() == 1
    assert page.locator("#errors .dots.refused").count() > 0
    maps = page.locator("#refusal-1 > .maps svg")
    assert [maps.nth(i).locator("rect").count() for i in range(3)] == [2, 2, 2]
    assert page.locator("#refusal-1 .distances circle.subject").count() == 1
