"""The page that runs a model in the browser: what is written, and what it does in Chromium."""

import csv
import functools
import http.server
import re
import shutil
import threading

import numpy as np
import pytest
from onnx_models.drawn_model import CROP, METADATA, write_model
from PIL import Image

import wbcclf.onnx
from wbcclf import CellCropper, export_page, make_blood_cells
from wbcclf.exceptions import ModelFormatError
from wbcclf.exporting import _page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
)
expect = playwright.expect
VENDORED = all((_page._RUNTIME / name).is_file() for name in _page.RUNTIME_FILES)
in_browser = pytest.mark.skipif(not VENDORED, reason="`make browser` was not run")
NUCLEI = {**CROP, "background": "normalise"}
EVIL = "</script><img src=x onerror=alert(1)>"


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Put small files in the place of ONNX Runtime Web, for tests of what is written."""
    folder = tmp_path / "vendor"
    folder.mkdir()
    for name in _page.RUNTIME_FILES:
        (folder / name).write_text(
            f"const {name[:3].lower()} = 1;export{{a$ as Tensor,b as env}};\n"
        )
    monkeypatch.setattr(_page, "_RUNTIME", folder)
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return a folder with the pages of a model of whole pictures and of one that cuts."""
    root = tmp_path_factory.mktemp("pages")
    whole = write_model(root / "whole.onnx", classes=["blue", EVIL, "red"], image_size=[96, 120])
    export_page(whole, root / "whole")
    cut = write_model(root / "cut.onnx", image_size=[32, 32], crop=NUCLEI, rejection=0.05)
    export_page(cut, root / "cut")
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return files of drawn cells, and one that is no picture in their middle."""
    folder = tmp_path_factory.mktemp("pictures")
    cells = make_blood_cells(6, 3, image_size=(96, 120), random_state=5)
    for number, image in enumerate(cells.images):
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "2, broken.png").write_bytes(b"not a picture")
    return sorted(folder.iterdir())


@pytest.fixture
def open_page(chromium):
    """Return a function that opens a page; at the end nothing was asked for or complained of."""
    contexts = []

    def open_page(address, width=1280, **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        page = context.new_page()
        page.heard = []
        page.on("console", lambda message: page.heard.append(message.text))
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("dialog", lambda dialog: page.heard.append(dialog.message))
        page.on("request", lambda request: page.heard.append(request.url))
        page.goto(address)
        contexts.append((context, page, address.rpartition("/")[0]))
        return page

    yield open_page
    for context, page, folder in contexts:
        context.close()
        ours = (folder, "blob:", "data:")
        assert [each for each in page.heard if not each.startswith(ours)] == []


def give(page, files):
    page.locator("#files").set_input_files(files)
    expect(page.locator("#progress")).to_have_text(f"{len(files)} pictures", timeout=60_000)


def table(page):
    """Return the rows of the CSV file that the page saves."""
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "predictions.csv"
    with open(download.value.path(), newline="") as file:
        return list(csv.DictReader(file))


def shares(rows, classes):
    return np.array([[float(row[name]) for name in classes] for row in rows])


def test_the_folder_of_a_page(stand_ins, tmp_path):
    export_page(write_model(tmp_path / "model.onnx", classes=["a", EVIL, "c"]), tmp_path / "page")
    names = {path.name for path in (tmp_path / "page").iterdir()}
    assert names == {"index.html", "sw.js", "manifest.webmanifest", "icon.svg", "licences.txt"}
    text = (tmp_path / "page" / "index.html").read_text()
    assert text.count("</script>") == 4  # those of the template: a class's name ends none
    assert METADATA["limits"] in text
    assert "const ort = { Tensor: a$, env: b };" in text
    (policy,) = re.findall('Content-Security-Policy" content="(.*?)"', text)
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "http" not in policy


def test_without_the_runtime_the_error_says_what_to_run(stand_ins, tmp_path):
    model = write_model(tmp_path / "model.onnx")
    (stand_ins / _page.RUNTIME_WASM).unlink()
    with pytest.raises(FileNotFoundError, match="make browser"):
        export_page(model, tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_what_is_no_model_is_refused(stand_ins, tmp_path):
    model = write_model(tmp_path / "model.onnx")
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(ModelFormatError, match=r"model\.onnx: not a wbcclf ONNX file"):
        export_page(model, tmp_path / "page")


def test_a_model_that_no_browser_holds_is_refused(stand_ins, tmp_path, monkeypatch):
    monkeypatch.setattr(_page, "LARGEST", 100)
    with pytest.raises(ValueError, match="MB; a page takes models of up to"):
        export_page(write_model(tmp_path / "model.onnx"), tmp_path / "page")


@pytest.mark.parametrize(
    "change", [{"scale": "red cell"}, {"stain": "normalise"}, {"background": "remove"}]
)
def test_a_cropper_that_the_page_cannot_imitate_is_refused(change, stand_ins, tmp_path):
    model = write_model(tmp_path / "model.onnx", image_size=[32, 32], crop={**CROP, **change})
    with pytest.raises(ValueError, match=r"model\.onnx cuts pictures with .* Train with"):
        export_page(model, tmp_path / "page")


@in_browser
def test_probabilities_are_those_of_python(pages, pictures, open_page):
    page = open_page((pages / "whole" / "index.html").as_uri())
    give(page, pictures)
    expect(page.locator("#broken li")).to_have_text(
        "2, broken.png: not a picture that this browser can read"
    )
    rows = table(page)
    assert [row["file"] for row in rows] == [path.name for path in pictures]
    (broken,) = (row for row in rows if "broken" in row["file"])
    rows.remove(broken)
    assert broken["label"] == "" and broken["error"].startswith("not a picture")
    model = wbcclf.onnx.load(pages / "whole.onnx", n_threads=1)
    answers = model.answer([str(path) for path in pictures if "broken" not in path.name])
    np.testing.assert_allclose(shares(rows, model.classes_), answers.probabilities, atol=1e-4)
    assert [row["label"] for row in rows] == answers.labels.tolist()
    familiarity = [float(row["familiarity"]) for row in rows]
    np.testing.assert_allclose(familiarity, answers.familiarity, atol=1e-3)


@in_browser
def test_the_square_is_that_of_the_cropper(pages, pictures, open_page):
    page = open_page((pages / "cut" / "index.html").as_uri())
    files = [path for path in pictures if "broken" not in path.name]
    give(page, files)
    rows = table(page)
    squares, _ = CellCropper(background="normalise", image_size=32).crop_pictures(
        [np.asarray(Image.open(path)) for path in files]
    )
    balance = squares.mean(axis=(1, 2)) / 127.5 - 1
    odds = np.exp(4 * balance[:, ::-1])
    found = shares(rows, METADATA["classes"])
    np.testing.assert_allclose(found, odds / odds.sum(axis=1, keepdims=True), atol=0.05)


@in_browser
def test_the_square_is_moved_and_corrections_are_kept(pages, pictures, open_page):
    page = open_page((pages / "cut" / "index.html").as_uri())
    page.locator("#files").set_input_files(pictures[0])
    expect(page.locator("#progress")).to_have_text("1 picture")
    square, bars = page.locator(".square"), page.locator(".bars")
    before, (start,) = bars.inner_text(), table(page)

    def moved(**by):
        (now,) = table(page)
        for name in ("left", "top", "side"):
            assert abs(int(now[name]) - int(start[name]) - by.get(name, 0)) <= 1, name

    for _ in range(9):
        square.press("ArrowRight")
    expect(bars).not_to_have_text(before)
    step = max(1, round(int(start["side"]) / 50))
    moved(left=9 * step)
    square.press("+")
    moved(left=8 * step, top=-step, side=2 * step)
    square.press("Escape")
    moved()
    page.get_by_role("button", name="Larger square").click()
    assert int(table(page)[0]["side"]) > int(start["side"])
    page.get_by_role("button", name="Reset the square").click()
    box, picture = square.bounding_box(), page.locator(".picture").bounding_box()
    pixel = picture["width"] / 120
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 10 * pixel, y + 5 * pixel)
    page.mouse.up()
    moved(left=-10, top=5)
    expect(square).to_have_attribute("aria-label", re.compile("Arrow keys move it"))
    page.get_by_label("Correction of").select_option("green")
    (row,) = table(page)
    assert row["correction"] == "green" and row["rejection"] == "0.05"
    expect(page.locator("#counts tr", has_text="green")).to_contain_text("1")


@in_browser
def test_a_name_that_looks_like_a_formula_is_saved_as_it_is(pages, pictures, tmp_path, open_page):
    page = open_page((pages / "cut" / "index.html").as_uri())
    files = [shutil.copy(pictures[0], tmp_path / name) for name in ("a-1.png", "=1+1.png")]
    page.locator("#files").set_input_files(files[0])
    expect(page.locator("#progress")).to_have_text("1 picture")
    table(page)
    expect(page.locator("#formulas")).to_have_text("")
    page.locator("#files").set_input_files(files[1])
    expect(page.locator("#progress")).to_have_text("2 pictures")
    assert [row["file"] for row in table(page)] == ["a-1.png", "=1+1.png"]
    expect(page.locator("#formulas")).to_contain_text("may take =1+1.png for a formula (1 such")
    page.locator("#clear").click()
    expect(page.locator("#formulas")).to_have_text("")


@in_browser
def test_uncertain_is_what_python_leaves_uncalled(pages, tmp_path, open_page):
    # The drawn model: green is the certainty (0.5 is asked for at 0.05), red the familiarity.
    colours = [[90, 230, 90], [100, 180, 100], [100, 120, 100], [0, 255, 0]]
    files = [tmp_path / f"{number}.bmp" for number in range(len(colours))]
    for file, colour in zip(files, colours, strict=True):
        Image.fromarray(np.full((96, 120, 3), colour, np.uint8)).save(file)
    page = open_page((pages / "whole" / "index.html").as_uri())
    give(page, files)
    model = wbcclf.onnx.load(pages / "whole.onnx", n_threads=1)
    for rejection, n_uncertain in (("", 0), ("0.05", 3), ("0.1", 2)):
        page.locator("#rejection").select_option(rejection)
        model.rejection = float(rejection) if rejection else None
        labels = [row["label"] for row in table(page)]
        assert labels == model.predict([str(file) for file in files]).tolist()
        assert labels.count("uncertain") == n_uncertain
    page.locator("#filter").select_option("uncertain")
    assert page.locator(".card h3").all_inner_texts() == ["uncertain"] * 2


@in_browser
def test_a_thousand_pictures_do_not_fill_the_memory(pages, tmp_path, open_page):
    page = open_page((pages / "whole" / "index.html").as_uri())
    session = page.context.new_cdp_session(page)

    def used():
        session.send("HeapProfiler.collectGarbage")
        return page.evaluate("performance.memory.usedJSHeapSize")

    small = tmp_path / "small.bmp"
    Image.fromarray(np.full((32, 32, 3), 200, np.uint8)).save(small)
    files = [small] * 200
    give(page, files)
    first = used()
    for done in range(400, 1001, 200):
        page.locator("#files").set_input_files(files)
        expect(page.locator("#progress")).to_have_text(f"{done} pictures", timeout=60_000)
    assert used() - first < 5e6  # of 800 pictures
    assert page.locator(".card").count() == 24
    expect(page.locator("#where")).to_have_text("Page 1 of 42")
    page.locator("#after").click()
    expect(page.locator("#where")).to_have_text("Page 2 of 42")
    page.locator("#clear").click()
    expect(page.locator("#progress")).to_have_text("0 pictures")
    assert page.locator(".card").count() == 0


@in_browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 375), ("dark", 1280)])
def test_the_page_is_accessible_by_axe_and_fits(scheme, width, pages, pictures, open_page):
    page = open_page(
        (pages / "cut" / "index.html").as_uri(), width, color_scheme=scheme, bypass_csp=True
    )
    give(page, pictures)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []


@in_browser
def test_served_it_opens_without_a_network(pages, pictures, open_page):
    handler = functools.partial(QuietHandler, directory=pages / "whole")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = open_page(f"http://127.0.0.1:{server.server_port}/")
        page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        assert page.evaluate("caches.keys().then((names) => names.length)") == 1
        server.shutdown()
    page.context.set_offline(True)
    page.reload()
    give(page, pictures[:2])
    assert page.locator(".card").count() == 2


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Write nothing."""


@pytest.mark.parametrize("name", ["uncertain", ".other"])
def test_a_class_that_the_page_would_take_for_something_else_is_refused(name, tmp_path):
    path = tmp_path / "model.onnx"
    write_model(path, classes=[name, "b", "c"])
    with pytest.raises(ValueError, match=r"model.onnx has a class called uncertain or \.other"):
        export_page(path, tmp_path / "page")
    assert not (tmp_path / "page").exists()
