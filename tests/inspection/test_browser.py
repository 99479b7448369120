"""The pages in a real browser: Debian's Chromium, without a screen."""

import warnings

import numpy as np
import pytest

from wbcclf import SimpleCNNClassifier, make_blood_cells
from wbcclf.inspection import (
    compare,
    evaluate,
    explain,
    explore_images,
    write_explanation_page,
    write_exploration_page,
)

axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
)

PAGES = ["evaluation", "comparison", "explanation", "exploration"]
WIDTHS = (375, 800, 1280)  # a telephone, a tablet, a screen
EVIL = {"lymphocyte": "<script>alert(1)</script>", "monocyte": '"><img onerror=alert(1) src=x>'}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return the folder of pages of one small network, whose classes have names that do harm."""
    folder = tmp_path_factory.mktemp("pages")
    cells = make_blood_cells(60, classes=4, image_size=32, n_copies=1, random_state=0)
    y = np.array([EVIL.get(label, label) for label in cells.target.tolist()])
    train = np.isin(cells.groups, np.unique(cells.groups)[:36])
    options = {"device": "cpu", "random_state": 0}
    models = {
        name: SimpleCNNClassifier(max_epochs=n, **options).fit(cells.images[train], y[train])
        for name, n in (("<b>longer</b>", 3), ("shorter", 1))
    }
    test = cells.images[~train], y[~train], cells.groups[~train]
    evaluate(models["<b>longer</b>"], *test).to_html(folder / "evaluation.html")
    compare(models, *test).to_html(folder / "comparison.html")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of maps of drawn cells; the page has it
        maps = explain(models["shorter"], test[0][:12])
    write_explanation_page(maps, folder / "explanation.html")
    found = explore_images(test[0], test[1])
    write_exploration_page(found, test[0], folder / "exploration.html")
    return folder


def open_page(chromium, path, width=1280, **options):
    """Return an open page, and what it has asked for, said on its console, or opened as dialogs."""
    page = chromium.new_page(viewport={"width": width, "height": 900}, **options)
    heard = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("dialog", lambda dialog: heard.append(dialog.message))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(path.as_uri())
    return page, [each for each in heard if not each.startswith(("data:", path.as_uri()))]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_asks_for_nothing_says_nothing_and_fits(name, width, pages, chromium):
    page, heard = open_page(chromium, pages / f"{name}.html", width)
    assert heard == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").count() == 1 and page.locator("img").count() > 3
    page.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "width"), [("light", 375), ("dark", 1280)])
def test_a_page_is_accessible_by_axe(name, scheme, width, pages, chromium):
    page, _ = open_page(chromium, pages / f"{name}.html", width, color_scheme=scheme)
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []
    page.close()


@pytest.mark.parametrize("name", ["evaluation", "comparison"])
def test_pictures_are_filtered_and_sorted(name, pages, chromium):
    page, _ = open_page(chromium, pages / f"{name}.html")
    cards, form = page.locator(".card"), page.locator("form.controls")
    n_cards = cards.count()
    assert n_cards > 3 and form.is_visible()
    assert form.locator("output").inner_text() == f"{n_cards} of {n_cards} pictures"
    label = cards.first.get_attribute("data-true")
    of_label = page.evaluate(
        "label => [...document.querySelectorAll('.card')].filter(c => c.dataset.true === label)"
        ".length",
        label,
    )
    form.locator("select[name=true]").select_option(label=label)
    assert page.locator(".card:visible").count() == of_label < n_cards
    assert form.locator("output").inner_text() == f"{of_label} of {n_cards} pictures"
    form.locator("select[name=true]").select_option("")
    assert page.locator(".card:visible").count() == n_cards
    if name == "evaluation":
        form.locator("select[name=sort]").select_option("familiarity")
        shown = page.locator("[data-gallery=errors] .card").evaluate_all(
            "cards => cards.map(card => Number(card.dataset.familiarity))"
        )
        assert shown == sorted(shown) and len(set(shown)) > 1
        form.locator("select[name=sort]").select_option("inside")
        shown = page.locator("[data-gallery=errors] .card").evaluate_all(
            "cards => cards.map(card => card.dataset.inside)"
        )
        with_map = [float(each) for each in shown if each not in (None, "nan")]
        assert with_map == sorted(with_map) and with_map[0] == float(shown[0])
    else:
        assert form.locator("select[name=sort]").count() == 0
    page.close()


def test_the_filter_is_worked_with_the_keyboard(pages, chromium):
    page, _ = open_page(chromium, pages / "evaluation.html")
    n_cards = page.locator(".card").count()
    page.locator("select[name=true]").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "called"
    assert page.locator(".card:visible").count() < n_cards
    page.close()


def test_without_javascript_all_is_there_to_read(pages, chromium):
    page, heard = open_page(chromium, pages / "evaluation.html", java_script_enabled=False)
    assert page.locator("form.controls").is_hidden()
    cards = page.locator(".card")
    assert all(cards.nth(row).is_visible() for row in range(cards.count())) and cards.count() > 3
    assert heard == []
    page.close()


def test_a_page_prints_on_a4(pages, chromium):
    page, _ = open_page(chromium, pages / "evaluation.html")
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and 1 < pdf.count(b"/Type /Page\n") < 15
    page.emulate_media(media="print")
    assert page.locator("form.controls").is_hidden()
    page.close()
