"""Pages: one file that asks for nothing, and names that are harmless."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from wbcclf import make_blood_cells
from wbcclf.exceptions import ImageReadError
from wbcclf.inspection import explore_images, write_audit_page, write_exploration_page

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'wbcclf[plot]'")

CELLS = make_blood_cells(24, classes=2, image_size=96, random_state=0)


class Reader(HTMLParser):
    """Collects what a page holds."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def page_of(images, y, tmp_path, **options):
    found = explore_images(images, y, **options)
    write_exploration_page(found, images, tmp_path / "page.html")
    return (tmp_path / "page.html").read_text()


def test_a_page_shows_its_pictures_and_asks_for_nothing(tmp_path):
    page = page_of(CELLS.images, CELLS.target, tmp_path)
    reader = Reader(page)
    # Of each class 12 cells are shown, half as typical and half as odd, a mean and a contrast.
    assert reader.tags.count("img") >= 2 * (12 + 2)
    assert {"script", "link", "iframe"}.isdisjoint(reader.tags)
    for name, value in reader.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:image/jpeg;base64,", "#")), value
    assert "24 cells in 24 pictures of 2 classes." in reader.text
    assert "nucleus" in reader.text and reader.tags.count("svg") == 2
    ids = [value for name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 50
    # What is referred to is there.
    used = {v[1:] for name, v in reader.attributes if name == "xlink:href" and v.startswith("#")}
    used |= set(re.findall(r"url\(#([^)]+)\)", page))
    assert used and used <= set(ids)


def test_names_are_harmless(tmp_path):
    names = np.array(["<script>alert(1)</script>", '"><img onerror=x>', "$\\frac{$", "_under"])
    folder = tmp_path / '"><img onerror=y>'
    folder.mkdir()
    paths = []
    for number, image in enumerate(CELLS.images):
        paths.append(folder / f"<b>{number}.png")
        Image.fromarray(image).save(paths[-1])
    page = page_of(paths, names[np.arange(24) % 4], tmp_path)
    reader = Reader(page)
    assert {"script", "b"}.isdisjoint(reader.tags)
    assert "onerror" not in [name for name, _ in reader.attributes]
    for name in names:
        assert name in reader.text
    # In the drawings, too: in the title of its levels and in the legend of the maps.
    assert page.count("_under</text>") >= 2


def test_a_page_of_many_classes_stays_below_two_megabytes(tmp_path):
    rng = np.random.RandomState(0)
    noise = rng.randint(256, size=(200, 112, 112, 3)).astype(np.uint8)  # hardly compressed
    page = page_of(noise, np.arange(200) % 50, tmp_path)
    assert len(page) < 2_000_000
    assert len(re.findall("<h3>", page)) == 50


def test_one_class_and_grey_pictures_make_a_page(tmp_path):
    page = page_of(CELLS.images[..., :1], None, tmp_path)
    assert "Nothing can be compared" in page and "contrast with" not in page


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "cell.png"
    Image.fromarray(CELLS.images[0]).save(path)
    found = explore_images([path])
    page = tmp_path / "page.html"
    page.write_text("old")
    path.unlink()
    with pytest.raises(ImageReadError, match=r"cell\.png"):
        write_exploration_page(found, [path], page)
    with pytest.raises(ValueError, match="images has 2 entries, but found is of 1"):
        write_exploration_page(found, CELLS.images[:2], page)
    with pytest.raises(TypeError, match="found must be what explore_images returned"):
        write_exploration_page({}, CELLS.images, page)
    with pytest.raises(TypeError, match="found must be what check_data returned"):
        write_audit_page(found, page)
    with pytest.raises(FileNotFoundError, match=r"nowhere.page\.html'$"):
        write_exploration_page(found, CELLS.images[:1], tmp_path / "nowhere" / "page.html")
    assert page.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
