"""The page in a real browser: Debian's Chromium, without a screen."""

import numpy as np
import pytest
from fields.two_classes import DARK, PALE, draw
from serving.clients import encoded, serving

from wbcclf.fields._count import SIDES
from wbcclf.serving._corrections import Corrections
from wbcclf.serving._limits import Limits
from wbcclf.serving._model import ServedModel

axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
)
EVIL = "<img src=x onerror=alert(1)>.png"
DROP = """([name, bytes]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
    return transfer;
}"""
TIMEOUT = 30_000  # ms, on a machine with much to do


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page") / "corrected"


@pytest.fixture(scope="module")
def client(model, new, folder):
    images, target = new
    served = ServedModel(model, 10**6)
    served.fit_sets(model[0].transform(list(images[20:])), target[20:], None)
    about = {
        "model": "<b>m</b>",
        "model_sha256": "0" * 64,
        "classes": served.classes,
        "worth": "Little.",
        "strange": 0.01,
        "rejection": None,
        "sets": {"confidence_level": 0.9, "cells": {"lymphocyte": 20, "neutrophil": 20}},
        "explains": True,
        "limits": {"pictures": 100, "request_bytes": 10**6},
    }
    with serving(served, Limits(), Corrections(folder, served.classes), **about) as client:
        yield client


def open_page(chromium, client, width=1280, **options):
    """Return an open page, and what it says on its console, opens as dialogs or asks elsewhere."""
    page = chromium.new_page(viewport={"width": width, "height": 900}, **options)
    page.set_default_timeout(TIMEOUT)
    heard = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("dialog", lambda dialog: heard.append(dialog.message))
    own = (client.address, "data:", f"blob:{client.address}")
    page.on("request", lambda each: each.url.startswith(own) or heard.append(each.url))
    page.goto(client.address)
    page.get_by_text("Ready.").wait_for()
    return page, heard


def choose(page, *files):
    given = [{"name": name, "mimeType": "", "buffer": data} for name, data in files]
    page.locator("input[type=file]").set_input_files(given)


def wait_for_answers(page, n_files):
    page.get_by_text(f"Pictures: {n_files} of {n_files} answered.").wait_for()


def violations(page):
    found = axe.Axe().run(page).response["violations"]
    return [(each["id"], each["nodes"][0]["html"]) for each in found]


def test_pictures_are_dropped_answered_and_explained(chromium, client, new):
    page, heard = open_page(chromium, client)
    data = encoded(new[0][0])
    _, expected = client.post("predict", ("a.png", data))
    transfer = page.evaluate_handle(DROP, [EVIL, [*data]])
    page.dispatch_event(".drop", "drop", {"dataTransfer": transfer})
    wait_for_answers(page, 1)
    card = page.locator(".card")
    assert card.locator("h3").inner_text() == EVIL
    [answer] = expected["pictures"]
    assert card.locator(".called").inner_text() == answer["label"]
    text = card.inner_text()
    assert f"{answer['probabilities'][answer['label']]:.3f}" in text
    assert f"Familiarity {answer['familiarity']:.3f}" in text
    assert f"Set (90%): {', '.join(answer['set'])}" in text
    card.get_by_text("What does the model go by?").click()
    card.locator("figure").nth(1).wait_for()
    assert f"Bright: what speaks for {answer['label']}" in card.inner_text()
    assert heard == []
    page.close()


def test_many_files_and_what_is_no_picture(chromium, client, new):
    page, heard = open_page(chromium, client)
    files = [(f"{k}.png", encoded(image)) for k, image in enumerate(new[0][:20])]
    choose(page, *files, ("note.png", b"no picture"), ("scan.tif", encoded(new[0][0], "TIFF")))
    wait_for_answers(page, 22)
    assert page.locator(".card").count() == 22
    assert page.locator(".called").count() == 21
    assert "not a JPEG" in page.locator(".fault").inner_text()
    assert heard == []
    page.close()


def test_a_correction_is_saved_and_changed_with_the_keyboard(chromium, client, new, folder):
    page, heard = open_page(chromium, client)
    data = encoded(new[0][1])
    choose(page, ("a.png", data))
    wait_for_answers(page, 1)
    page.locator("button").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SELECT"
    page.keyboard.press("ArrowDown")
    page.get_by_text("saved", exact=True).wait_for()
    [file] = [path for path in folder.rglob("*.png") if path.read_bytes() == data]
    assert file.parent.name == "lymphocyte"
    page.locator("select").select_option("no cell, or another kind")
    page.locator("select").select_option("neutrophil")
    for _ in range(100):
        page.wait_for_timeout(50)
        if (folder / "neutrophil" / file.name).exists():
            break
    assert [path.parent.name for path in folder.rglob(file.name)] == ["neutrophil"]
    assert heard == []
    page.close()


def test_the_place_to_choose_files_is_worked_with_the_keyboard(chromium, client):
    page, _ = open_page(chromium, client)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "predict"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.forms[0].elements.kind.value") == "count"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "file"
    page.close()


def test_a_field_is_counted_and_a_cell_of_it_corrected(chromium, client, folder):
    page, heard = open_page(chromium, client, 375)
    page.get_by_label("a whole field").check()
    field = encoded(draw([(80, 80, PALE), (200, 90, DARK)]))
    _, expected = client.post("count", ("field.png", field))
    choose(page, ("field.png", field))
    wait_for_answers(page, 1)
    overlay = page.locator(".field img.overlay")
    assert overlay.get_attribute("alt") == "The field with 2 cells in numbered boxes"
    cells = page.locator(".field .card")
    assert cells.locator("h4").all_inner_texts() == ["Cell 1", "Cell 2"]
    for row, cell in enumerate(expected["cells"]):
        text = cells.nth(row).inner_text()
        called = cell["label"] if cell["status"] == "called" else "uncertain"
        assert cells.nth(row).locator(".called").inner_text() == called
        assert f"Set (90%): {', '.join(cell['set'])}" in text
        assert cells.nth(row).locator("img").get_attribute("src") == cell["picture"]
    cells.nth(1).get_by_text("What does the model go by?").click()
    cells.nth(1).locator("figure").nth(1).wait_for()
    cells.nth(1).locator("select").select_option("neutrophil")
    cells.nth(1).get_by_text("saved", exact=True).wait_for()
    box = ",".join(str(expected["cells"][1][side]) for side in SIDES)
    _, found = client.post("corrections", ("f.png", field), **{"class": "lymphocyte", "box": box})
    # It is the picture that the API saves, so it has been moved now.
    assert (folder / found["file"]).exists()
    assert not (folder / "neutrophil" / found["file"].rpartition("/")[2]).exists()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert violations(page) == [] and heard == []
    page.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 375), ("dark", 1280)])
def test_the_page_is_accessible_and_fits(chromium, client, new, scheme, width):
    page, heard = open_page(chromium, client, width, color_scheme=scheme)
    assert page.locator("#about dd").first.inner_text().startswith("<b>m</b>")
    black = np.zeros((64, 64, 3), np.uint8)
    choose(page, ("a.png", encoded(new[0][0])), ("black.png", encoded(black)), ("b.png", b""))
    wait_for_answers(page, 3)
    assert page.get_by_text("No white cell was found").count() == 1
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert heard == []
    page.close()


def test_a_server_that_is_gone_is_told(chromium, model, new):
    served = ServedModel(model, 10**6)
    about = {"worth": "", "classes": [], "rejection": None, "sets": None, "explains": True}
    with serving(served, Limits(), **about, model="m", model_sha256="0") as client:
        page, _ = open_page(chromium, client)
    page.evaluate("0")
    choose(page, ("a.png", encoded(new[0][0])))
    page.get_by_text("The server cannot be reached.").wait_for()
    page.close()


def test_a_page_from_elsewhere_can_neither_post_nor_read_nor_show_it(chromium, client):
    other = chromium.new_page()
    other.route("http://evil.example/", lambda route: route.fulfill(body="<p>evil</p>"))
    other.goto("http://evil.example/")
    outcome = other.evaluate(
        """async (address) => {
            const ask = async (path, options) => {
                try { return (await fetch(address + path, options)).type; }
                catch { return "refused"; }
            };
            const body = new FormData();
            body.append("class", "neutrophil");
            const frame = document.createElement("iframe");
            frame.src = address;
            document.body.append(frame);
            return [
                await ask("/api/model", {}),
                await ask("/api/corrections", { method: "POST", body }),
                await ask("/api/model", { mode: "no-cors" }),
            ];
        }""",
        client.address,
    )
    assert outcome == ["refused"] * 3
    other.close()
