"""Every warning of the loaders names the line that called them, however the call went."""

import os
import shutil
import sys

import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline

from wbcclf import Cache, CellCropper, ImageLoader, load_image_csv, load_image_folder
from wbcclf.exceptions import DuplicateImageWarning, SkippedFileWarning


@pytest.fixture
def root(tmp_path):
    """Two classes with one image each, in a table, too."""
    for number, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / name / f"{name}.png")
    (tmp_path / "table.csv").write_text("path,label\na/a.png,a\nb/b.png,b\n")
    return tmp_path


def duplicate(root):
    shutil.copy(root / "a" / "a.png", root / "b" / "b.png")


def damage(root):
    (root / "b" / "b.png").write_text("no image")


def fill_and_damage_cache(root):
    load_image_folder(root, memory=root / "cache")
    for path in (root / "cache").rglob("*.entry"):
        path.write_bytes(b"damaged")


def cut(root):
    return {"crop": CellCropper()}


@pytest.fixture
def tiny_files():
    """Return a function after which no file larger than 100 bytes can be written."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


LOADERS = {
    "folder": lambda root, **how: load_image_folder(root, **how),
    "table": lambda root, **how: load_image_csv(root / "table.csv", **how),
}
PATHS = ("a/a.png", "b/b.png")


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(
    ("prepare", "category", "words"),
    [
        (damage, SkippedFileWarning, "1 of 2 files"),
        (duplicate, DuplicateImageWarning, "byte for byte"),
        (fill_and_damage_cache, UserWarning, "Damaged files"),
        (cut, UserWarning, "No white cell was found in 2 of 2 images"),
    ],
)
def test_a_loader_warns_at_the_line_of_its_call(root, loader, n_jobs, prepare, category, words):
    how = {"on_error": "warn", "n_jobs": n_jobs, "memory": Cache(root / "cache")}
    how |= prepare(root) or {}
    with pytest.warns(category, match=words) as caught:
        LOADERS[loader](root, **how)
    line = LOADERS[loader].__code__.co_firstlineno
    assert [(one.filename, one.lineno) for one in caught] == [(__file__, line)]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_pipeline_warns_at_the_line_of_its_call(root, n_jobs):
    fill_and_damage_cache(root)
    loader = ImageLoader(n_jobs=n_jobs, memory=root / "cache")
    paths = [os.path.join(root, path) for path in PATHS]
    with pytest.warns(UserWarning, match="Damaged files") as caught:
        line, _ = sys._getframe().f_lineno, make_pipeline(loader).transform(paths)
    assert [(one.filename, one.lineno) for one in caught] == [(__file__, line)]


def test_a_full_disk_is_warned_of_at_the_line_of_the_call(root, tiny_files):
    loader = ImageLoader(memory=root / "cache")
    paths = [os.path.join(root, path) for path in PATHS]
    tiny_files()
    with pytest.warns(UserWarning, match="Nothing more is kept") as caught:
        line, _ = sys._getframe().f_lineno, loader.fit_transform(paths)
    assert [(one.filename, one.lineno) for one in caught] == [(__file__, line)]
