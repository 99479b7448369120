"""Folders and tables of images."""

import csv
import os
import re
import shutil
import socket
import sys
import threading
import warnings
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from wbcclf.datasets import list_image_folder, load_image_csv, load_image_folder
from wbcclf.datasets._files import natural_key
from wbcclf.exceptions import DuplicateImageWarning, ImageReadError, SkippedFileWarning


def write(root, names, size=(12, 9)):
    """Write images whose value, 10 times the position in `names`, tells them apart."""
    for k, name in enumerate(names):
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (10 * k,) * 3).save(path)
    return root


def write_table(path, *rows, delimiter=","):
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def values_of(images):
    return images[:, 0, 0, 0].tolist()


def names_of(paths):
    return [os.path.basename(path) for path in paths]


def reasons_of(bunch):
    return {os.path.basename(path): reason for path, reason in bunch.skipped}


# --- layouts ------------------------------------------------------------------------------------


def test_class_folders(tmp_path):
    write(tmp_path, ["mono/10.png", "mono/2.png", "Neutro phil/é 1.jpg", "mono/x.PNG", "eo/1.tif"])
    cells = load_image_folder(tmp_path)
    assert cells.images.shape == (5, 9, 12, 3)
    assert cells.images.dtype == np.uint8
    assert values_of(cells.images) == [20, 40, 10, 0, 30]
    assert cells.target.tolist() == ["Neutro phil", "eo", "mono", "mono", "mono"]
    assert cells.target_names == ["Neutro phil", "eo", "mono"]
    assert names_of(cells.paths) == ["é 1.jpg", "1.tif", "2.png", "10.png", "x.PNG"]
    assert all(path.startswith(str(tmp_path)) for path in cells.paths)
    assert (cells.groups, cells.split, cells.skipped) == (None, None, [])
    assert "5 images of 9 x 12" in cells.DESCR and "mono: 3" in cells.DESCR


def test_relative_root_and_str(tmp_path, monkeypatch):
    write(tmp_path, ["a/1.png"])
    monkeypatch.chdir(tmp_path.parent)
    listing = list_image_folder(tmp_path.name)
    assert listing.paths.tolist() == [os.path.join(tmp_path.name, "a", "1.png")]


def test_unlabelled(tmp_path):
    write(tmp_path, ["2.png", "1.png"])
    (tmp_path / "empty").mkdir()
    cells = load_image_folder(tmp_path)
    assert values_of(cells.images) == [10, 0]
    assert (cells.target, cells.target_names, cells.split) == (None, None, None)
    assert "Unlabelled" in cells.DESCR


def test_nested_trees(tmp_path):
    write(
        tmp_path, ["TRAIN/a/1.png", "TRAIN/b/1.png", "TEST/a/1.png", "TEST/new/b/1.png", "c/1.png"]
    )
    listing = list_image_folder(tmp_path)
    assert listing.target.tolist() == ["a", "b", "a", "b", "c"]
    by_path = dict(zip(listing.paths.tolist(), listing.split.tolist(), strict=True))
    assert {os.path.relpath(k, tmp_path).replace(os.sep, "/"): v for k, v in by_path.items()} == {
        "TEST/a/1.png": "TEST",
        "TEST/new/b/1.png": "TEST/new",
        "TRAIN/a/1.png": "TRAIN",
        "TRAIN/b/1.png": "TRAIN",
        "c/1.png": "",
    }


@pytest.mark.parametrize("where", [".", "TRAIN"])
def test_images_beside_class_folders_are_ambiguous(tmp_path, where):
    names = [f"{where}/a/1.png", *(f"{where}/loose {k}.png" for k in range(5))]
    write(tmp_path, names)
    with pytest.raises(ValueError, match=r"loose 0.png, .* loose 2.png, and 2 more.*Move"):
        load_image_folder(tmp_path)


def test_natural_order():
    names = ["x10", "x9", "x1", "x01", "y", "X2", "", "2x", "10x"]
    assert sorted(names, key=natural_key) == ["", "2x", "10x", "X2", "x01", "x1", "x9", "x10", "y"]


@given(st.lists(st.text(max_size=6)))
def test_natural_order_is_total(names):
    backwards = names[::-1]
    assert sorted(backwards, key=natural_key) == sorted(names, key=natural_key)


# --- what is left out ---------------------------------------------------------------------------


def test_hidden_and_other_files_are_named_whatever_on_error_is(tmp_path):
    write(tmp_path, ["a/1.png", "a/.hidden.png", ".thumbs/a/1.png", "a/2.png"])
    (tmp_path / "a" / "Thumbs.db").write_text("")
    (tmp_path / "labels.csv").write_text("")
    (tmp_path / "a" / ".DS_Store").write_text("")
    (tmp_path / "x.jpg").mkdir()
    for on_error in ("raise", "warn", "skip"):
        cells = load_image_folder(tmp_path, on_error=on_error)
        assert len(cells.images) == 2
        assert reasons_of(cells) == {
            ".hidden.png": "hidden (the name starts with a dot)",
            ".DS_Store": "hidden (the name starts with a dot)",
            ".thumbs": "hidden (the name starts with a dot)",
            "Thumbs.db": "the suffix is none of .jpg, .jpeg, .png, .bmp, .tif, .tiff",
            "labels.csv": "the suffix is none of .jpg, .jpeg, .png, .bmp, .tif, .tiff",
            "x.jpg": "an empty folder",
        }


def test_folder_named_like_an_image_is_a_class(tmp_path):
    write(tmp_path, ["x.jpg/1.png"])
    assert list_image_folder(tmp_path).target.tolist() == ["x.jpg"]


def test_links(tmp_path):
    write(tmp_path, ["root/a/1.png", "elsewhere/1.png"])
    root = tmp_path / "root"
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "up").symlink_to(root)
    (root / "z").symlink_to(root / "a")
    (root / "a" / "gone.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "a" / "pipe.png")
    listing = list_image_folder(root)
    assert listing.target.tolist() == ["a", "b"]
    assert reasons_of(listing) == {
        "up": "a link to a folder that is read already",
        "z": "a link to a folder that is read already",
        "gone.png": "a link to nothing",
        "pipe.png": "not a regular file",
    }


@pytest.fixture
def with_broken(tmp_path):
    write(tmp_path, [f"{'ab'[k % 2]}/{k}.png" for k in range(20)])
    (tmp_path / "a" / "0.png").write_bytes(b"")
    for k in range(2, 14):
        whole = (tmp_path / "ab"[k % 2] / f"{k}.png").read_bytes()
        (tmp_path / "ab"[k % 2] / f"{k}.png").write_bytes(whole[:-12])
    return tmp_path


def test_broken_files_raise_once_and_are_named(with_broken):
    with pytest.raises(ImageReadError) as caught:
        load_image_folder(with_broken)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("13 of 20 files")
    assert lines[1] == f"  {with_broken / 'a' / '0.png'}: the file is empty"
    assert lines[2].endswith("2.png: truncated: PNG without its end (IEND)")
    assert lines[6] == "  and 8 more"
    assert 'on_error="warn"' in lines[7]


@pytest.mark.parametrize("image_size", [None, 4])
@pytest.mark.parametrize("n_jobs", [1, 3])
@pytest.mark.parametrize("on_error", ["warn", "skip"])
def test_broken_files_are_left_out(with_broken, on_error, image_size, n_jobs):
    def load():
        return load_image_folder(
            with_broken,
            on_error=on_error,
            image_size=image_size,
            n_jobs=n_jobs,
            groups=r"(\d+)\.png",
        )

    if on_error == "warn":
        with pytest.warns(SkippedFileWarning, match=r"13 of 20 files(?s:.*)and 8 more") as caught:
            cells = load()
        assert [warning.filename for warning in caught] == [__file__]
    else:
        cells = load()
    assert values_of(cells.images) == [140, 160, 180, 10, 150, 170, 190]
    assert cells.groups.tolist() == ["14", "16", "18", "1", "15", "17", "19"]
    assert cells.target.tolist() == ["a"] * 3 + ["b"] * 4
    assert names_of(cells.paths) == [f"{k}.png" for k in (14, 16, 18, 1, 15, 17, 19)]
    assert len(cells.skipped) == 13


def test_a_class_of_broken_files_is_no_class(tmp_path):
    write(tmp_path, ["a/1.png", "b/1.png"])
    (tmp_path / "a" / "1.png").write_text("text")
    assert load_image_folder(tmp_path, on_error="skip").target_names == ["b"]


@pytest.mark.parametrize("on_error", ["raise", "warn", "skip"])
def test_nothing_but_broken_files(tmp_path, on_error):
    (tmp_path / "1.jpg").write_text("text")
    with pytest.raises(ImageReadError, match=r"1 of 1 .* nothing to load"):
        load_image_folder(tmp_path, on_error=on_error)


def within(seconds, function):
    """Return what a function returns; fail if it takes longer, as when it waits for ever."""
    result = Future()

    def work():
        try:
            result.set_result(function())
        except Exception as error:
            result.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return result.result(seconds)


def test_files_and_folders_without_permission(tmp_path, monkeypatch, unprivileged):
    write(tmp_path, ["a/1.png", "a/2.png", "b/1.png", "b/in/1.png", "c/1.png"])
    (tmp_path / "a" / "1.png").chmod(0)
    (tmp_path / "b").chmod(0)
    (tmp_path / "c" / "into b.png").symlink_to("../b/1.png")
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # the folders above are closed to others
    with unprivileged():
        cells = load_image_folder(".", on_error="skip")
    (tmp_path / "b").chmod(0o755)
    assert cells.paths.tolist() == ["./a/2.png", "./c/1.png"]
    assert dict(cells.skipped) == {
        "./a/1.png": "cannot be opened (Permission denied)",
        "./b": "a folder that cannot be read (Permission denied)",
        "./c/into b.png": "cannot be opened (Permission denied)",
    }


def test_a_root_without_permission_is_an_error(tmp_path, monkeypatch, unprivileged):
    write(tmp_path, ["a/1.png"])
    (tmp_path / "a").chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    with unprivileged(), pytest.raises(PermissionError, match="a'"):
        load_image_folder("a")
    (tmp_path / "a").chmod(0o755)


def make_what_is_no_file(folder, monkeypatch):
    """Make links, a pipe, a socket and a giant, all named like images; return the reasons."""
    folder.mkdir(exist_ok=True)
    reasons = {
        "loop.png": "cannot be opened (Too many levels of symbolic links)",
        "gone.png": "a link to nothing",
        "pipe.png": "not a regular file",
        "socket.png": "not a regular file",
        "zero.png": "not a regular file",
        "kmsg.png": "the file is empty",
        "giant.png": "cannot be opened (larger than 1 GiB)",
    }
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "kmsg.png").symlink_to("/proc/kmsg")  # a regular file, by its own account
    (folder / "giant.png").touch()
    os.truncate(folder / "giant.png", 2**40)
    monkeypatch.chdir(folder)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket.png")
    return reasons


def test_only_regular_files_are_opened(tmp_path, monkeypatch):
    write(tmp_path, ["a/1.png"])
    reasons = make_what_is_no_file(tmp_path / "a", monkeypatch)
    cells = within(30, lambda: load_image_folder(tmp_path, on_error="skip"))
    assert names_of(cells.paths) == ["1.png"]
    assert reasons_of(cells) == reasons
    with pytest.raises(ImageReadError, match=r"2 of 3 files .*\n.*giant.png: .*\n.*kmsg.png"):
        within(30, lambda: load_image_folder(tmp_path))


def test_only_regular_files_of_a_table_are_opened(tmp_path, monkeypatch):
    write(tmp_path, ["1.png"])
    reasons = make_what_is_no_file(tmp_path, monkeypatch)
    (tmp_path / "folder.png").mkdir()
    names = [
        *reasons,
        "1.png",
        "folder.png",
        "/dev/zero",
        "no\nsuch\r.png",
        "nul\0.png",
        "9" * 5000,
    ]
    table = write_table(tmp_path / "t.csv", ("path",), *[(name,) for name in [*names, "x" * 5000]])
    cells = within(30, lambda: load_image_csv(table, on_error="skip"))
    assert names_of(cells.paths) == ["1.png"]
    found = reasons_of(cells)
    for name in ("loop.png", "pipe.png", "socket.png", "zero.png", "folder.png", "zero"):
        assert found[name] == "not a regular file"
    for name in ("kmsg.png", "giant.png"):
        assert found[name] == reasons[name]
    for name in ("no\nsuch\r.png", "nul\0.png"):
        assert found[name] == "no such file"
    for name in ("9" * 5000, "x" * 5000):
        assert found[name].startswith("no image with that name")


def test_tables_that_are_no_regular_files(tmp_path):
    write(tmp_path, ["1.png"])
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    for name in ("pipe.csv", "folder.csv", "/dev/zero"):
        for load in (
            lambda path: load_image_csv(path),
            lambda path: list_image_folder(tmp_path, groups=Path(path)),
        ):
            with pytest.raises(OSError, match=r"not a regular file|a folder"):
                within(30, lambda load=load, name=name: load(tmp_path / name))


def test_names_that_are_no_text(tmp_path):
    write(tmp_path, ["a/1.png", "a/line\nfeed\r.png"])
    strange = os.fsdecode(b"\xff\xfe.png")
    shutil.copy(tmp_path / "a" / "1.png", tmp_path / "a" / strange)
    (tmp_path / "a" / "broken\x1b[2J\n.png").write_text("text")
    (tmp_path / "a" / os.fsdecode(b"broken \xff.png")).write_text("text")
    for _ in range(2):
        with pytest.warns(SkippedFileWarning) as caught:
            cells = load_image_folder(tmp_path, on_error="warn", memory=tmp_path / "cache")
        assert set(names_of(cells.paths)) == {"1.png", "line\nfeed\r.png", strange}
        _, *lines = str(caught[0].message).splitlines()
        assert len(lines) == 2  # not broken by a line feed, and nothing for the terminal to obey
        assert all(line.isprintable() for line in lines)
        str(caught[0].message).encode()


def test_files_that_change_between_listing_and_reading(tmp_path):
    write(tmp_path, [f"a/{number}.png" for number in range(5)])

    def change(path):  # called for each listed file, before any is read
        name = os.path.basename(path)
        if name in ("1.png", "2.png"):
            os.unlink(path)
        if name == "2.png":
            os.mkdir(path)
        if name == "3.png":
            os.truncate(path, 0)
        return name

    cells = load_image_folder(tmp_path, groups=change, on_error="skip")
    assert names_of(cells.paths) == ["0.png", "4.png"]
    assert reasons_of(cells) == {
        "1.png": "no such file",
        "2.png": "cannot be opened (a folder)",
        "3.png": "the file is empty",
    }


def test_folders_nested_deeper_than_calls_may_be(tmp_path):
    write(tmp_path, ["1.png"])
    folders = [tmp_path]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)  # other tests raise it, beyond the longest path
    try:
        for _ in range(1050):
            folders.append(folders[-1] / "d")
            folders[-1].mkdir()
        shutil.copy(tmp_path / "1.png", folders[-1])
        listing = list_image_folder(tmp_path, labelled=False)
        assert len(listing.paths) == 2
    finally:
        sys.setrecursionlimit(limit)
        (folders[-1] / "1.png").unlink(missing_ok=True)
        for folder in folders[:0:-1]:  # pytest would remove them by as many calls
            folder.rmdir()


def test_folders_without_images(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        load_image_folder(tmp_path)
    for name in ("a.txt", "b.csv", "c.gif", "d.npy"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=r"No image in .*a.txt \(the suffix .* and 1 more"):
        load_image_folder(tmp_path)


def test_root_that_is_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{re.escape(str(tmp_path))} exists"):
        load_image_folder(tmp_path / "none" / "deeper")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="load_image_csv"):
        load_image_folder(tmp_path / "file")


# --- duplicates ---------------------------------------------------------------------------------


def copy(root, *names):
    for name in names[1:]:
        Path(root, name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(root, names[0]), Path(root, name))


@pytest.mark.parametrize("memory", [False, True])
def test_a_file_in_two_classes_is_named(tmp_path, memory):
    root = tmp_path / "root"
    write(root, [f"{'ab'[k % 2]}/{k}.png" for k in range(8)])
    copy(root, "a/0.png", "a/8.png")
    copy(root, "a/4.png", "b/9.png", "b/10.png")
    memory = tmp_path / "cache" if memory else None
    for _ in range(2):
        with pytest.warns(DuplicateImageWarning) as caught:
            cells = load_image_folder(root, memory=memory, image_size=4)
        assert [warning.filename for warning in caught] == [__file__]
        assert str(caught[0].message).splitlines()[1:-1] == [
            f"  {root}/a/4.png = {root}/b/9.png = {root}/b/10.png (classes a, b)"
        ]
        assert list(map(names_of, cells.duplicates)) == [
            ["4.png", "9.png", "10.png"],
            ["0.png", "8.png"],
        ]


def test_duplicates_in_one_class_are_listed_without_a_warning(tmp_path):
    write(tmp_path, ["a/1.png", "a/2.png", "b/1.png"])
    copy(tmp_path, "a/1.png", "a/3.png")
    assert list(map(names_of, load_image_folder(tmp_path).duplicates)) == [["1.png", "3.png"]]


def test_files_of_the_same_size_or_picture_are_no_duplicates(tmp_path):
    write(tmp_path, ["a/1.bmp", "b/2.bmp"])
    assert len({path.stat().st_size for path in tmp_path.rglob("*.bmp")}) == 1
    with Image.open(tmp_path / "a" / "1.bmp") as image:
        image.save(tmp_path / "b" / "1.png")
    assert load_image_folder(tmp_path).duplicates == []


def test_duplicates_in_two_groups_or_splits_are_named(tmp_path):
    write(tmp_path, ["TRAIN/a/1.png", "TRAIN/b/2.png", "TEST/a/3.png"])
    copy(tmp_path, "TRAIN/a/1.png", "TEST/a/4.png")
    copy(tmp_path, "TRAIN/b/2.png", "TRAIN/b/5.png", "TRAIN/a/5.png")
    with pytest.warns(DuplicateImageWarning) as caught:
        cells = load_image_folder(tmp_path, groups=r"(\d)\.png")
    message = str(caught[0].message)
    assert "5.png (classes a, b)" in message
    assert "5.png (groups 2, 5)" in message
    assert "TEST/a/4.png = " in message and "TRAIN/a/1.png (splits TEST, TRAIN)" in message
    assert [len(same) for same in cells.duplicates] == [3, 2]


def test_a_table_names_duplicates(tmp_path):
    write(tmp_path, ["1.png", "2.png"])
    copy(tmp_path, "1.png", "3.png")
    table = write_table(
        tmp_path / "t.csv", ("path", "label"), *zip(("1.png", "2.png", "3.png"), "aab", strict=True)
    )
    with pytest.warns(DuplicateImageWarning, match=r"1.png = .*3.png \(classes a, b\)") as caught:
        cells = load_image_csv(table)
    assert [warning.filename for warning in caught] == [__file__]
    assert list(map(names_of, cells.duplicates)) == [["1.png", "3.png"]]


# --- sizes, threads, parameters -----------------------------------------------------------------


def test_sizes_differ(tmp_path):
    write(tmp_path / "a", [f"{k}.png" for k in range(3)])
    write(tmp_path / "b", ["1.png"], size=(20, 30))
    with pytest.raises(
        ValueError, match=r"9 x 12 \(3 images, 0.png\), 30 x 20 \(1 images, 1.png\).*image_size="
    ):
        load_image_folder(tmp_path)
    assert load_image_folder(tmp_path, image_size=(5, 7)).images.shape == (4, 5, 7, 3)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)), n_jobs=st.integers(1, 5))
def test_any_size_and_number_of_threads(tmp_path, size, n_jobs):
    if not (tmp_path / "0.png").exists():
        write(tmp_path, [f"{k}.png" for k in range(7)])
    images = load_image_folder(tmp_path, image_size=size, n_jobs=n_jobs).images
    assert images.shape == (7, *size, 3)
    assert (images == (np.arange(7) * 10)[:, None, None, None]).all()


def test_max_pixels(tmp_path):
    write(tmp_path, ["1.png", "2.png"])
    write(tmp_path, ["3.png"], size=(13, 9))
    cells = load_image_folder(tmp_path, max_pixels=12 * 9, on_error="skip")
    assert names_of(cells.paths) == ["1.png", "2.png"]
    assert "13 x 9 pixels are more than max_pixels=108" in reasons_of(cells)["3.png"]


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"on_error": "ignore"}, ValueError, "on_error must be one of raise, warn, skip"),
        ({"n_jobs": 0}, ValueError, "n_jobs"),
        ({"n_jobs": "all"}, ValueError, "n_jobs"),
        ({"image_size": 0}, ValueError, "image_size"),
        ({"max_pixels": 0}, ValueError, "max_pixels"),
        ({"groups": 3}, TypeError, "groups"),
        ({"groups": ("a.csv", "path")}, ValueError, "path_column, group_column"),
    ],
)
def test_parameters_out_of_range(tmp_path, params, error, words):
    write(tmp_path, ["1.png"])
    with pytest.raises(error, match=words):
        load_image_folder(tmp_path, **params)


def test_progress_bar(tmp_path, capfd):
    write(tmp_path, ["1.png", "2.png"])
    load_image_folder(tmp_path)
    assert capfd.readouterr() == ("", "")
    load_image_folder(tmp_path, verbose=1)
    out, err = capfd.readouterr()
    assert out == "" and "2/2" in err


# --- groups -------------------------------------------------------------------------------------


@pytest.fixture
def grouped(tmp_path):
    return write(tmp_path / "root", ["a/p1_1.png", "a/p2_1.png", "b/p1_2.png"])


@pytest.mark.parametrize(
    "groups",
    [
        lambda path: os.path.basename(path)[:2],
        r"p\d",
        r"/(p\d)_",
        re.compile(r"(?P<patient>P\d)_(\d)", re.IGNORECASE),
    ],
)
def test_groups_from_paths(grouped, groups):
    assert list_image_folder(grouped, groups=groups).groups.tolist() == ["p1", "p2", "p1"]


def test_groups_of_a_callable_keep_their_type(grouped):
    groups = list_image_folder(grouped, groups=lambda path: len(path)).groups
    assert groups.dtype.kind == "i"


def test_images_without_a_group(grouped):
    with pytest.raises(ValueError, match=r"'p1_1' does not match a/p2_1.png"):
        load_image_folder(grouped, groups="p1_1")
    with pytest.raises(ValueError, match=r"None for .*p1_1.png"):
        load_image_folder(grouped, groups=lambda path: None)


GROUP_ROWS = [("a/p1_1.png", 7), ("b/p1_2.png", 7), ("a/p2_1.png", 8), ("a/other.png", 9)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("place", ["root", "above", "elsewhere", "absolute", "windows"])
def test_groups_from_a_table(grouped, tmp_path, delimiter, place):
    folder = {"root": grouped, "above": tmp_path}.get(place, tmp_path / "tables")
    folder.mkdir(exist_ok=True)
    prefix = {"above": "root/", "absolute": f"{grouped}/", "windows": ".\\"}.get(place, "")
    rows = [(prefix + path, group) for path, group in GROUP_ROWS]
    if place == "windows":
        rows = [(path.replace("/", "\\"), group) for path, group in rows]
    table = folder / "groups.csv"
    write_table(table, ("Path", "Cell_ID", "n"), *[(*row, 1) for row in rows], delimiter=delimiter)
    for groups in (table, str(table), (table, "Path", "Cell_ID"), (str(table), "Path", "Cell_ID")):
        assert list_image_folder(grouped, groups=groups).groups.tolist() == ["7", "8", "7"]


def test_tables_that_do_not_give_groups(grouped, tmp_path):
    header = ("path", "group")
    cases = {
        r"no row for b/p1_2.png": [header, *GROUP_ROWS[:1], *GROUP_ROWS[2:]],
        r"no group for b/p1_2.png": [header, *GROUP_ROWS[2:], GROUP_ROWS[0], ("b/p1_2.png", "")],
        r"line 6: a/p1_1.png has two groups": [header, *GROUP_ROWS, ("a/p1_1.png", 1)],
        r"no group column .*Its columns are 'path', 'well'": [("path", "well"), *GROUP_ROWS],
        r"no path column .*Its columns are 'x', 'group'": [("x", "group"), *GROUP_ROWS],
        r"no header": [],
    }
    for words, rows in cases.items():
        table = write_table(tmp_path / "groups.csv", *rows)
        with pytest.raises(ValueError, match=words):
            list_image_folder(grouped, groups=table)
    write_table(table, header, *GROUP_ROWS)
    with pytest.raises(ValueError, match="no group column 'cell'"):
        list_image_folder(grouped, groups=(table, "path", "cell"))
    with pytest.raises(FileNotFoundError):
        list_image_folder(grouped, groups="none.csv")


# --- load_image_csv -----------------------------------------------------------------------------


def test_table_of_paths(tmp_path):
    write(tmp_path, ["x/0.png", "x/1.png", "2.png"])
    rows = [("x/1.png", "mono", "p1"), ("2.png", "eo", "p2"), (tmp_path / "x/0.png", "mono", "p1")]
    table = write_table(tmp_path / "cells.csv", ("File", "Class", "patient"), *rows)
    cells = load_image_csv(table, group_column="patient", image_size=(4, 6))
    assert cells.images.shape == (3, 4, 6, 3)
    assert values_of(cells.images) == [10, 20, 0]
    assert cells.target.tolist() == ["mono", "eo", "mono"]
    assert cells.target_names == ["eo", "mono"]
    assert cells.groups.tolist() == ["p1", "p2", "p1"]
    assert names_of(cells.paths) == ["1.png", "2.png", "0.png"]
    assert cells.skipped == []
    assert load_image_csv(table).groups is None


def test_columns_by_name_and_without_labels(tmp_path):
    write(tmp_path, ["0.png", "1.png"])
    table = write_table(tmp_path / "t.csv", ("n", "where"), (1, "1.png"), (2, "0.png"))
    cells = load_image_csv(table, path_column="where")
    assert values_of(cells.images) == [10, 0]
    assert (cells.target, cells.target_names, cells.groups) == (None, None, None)
    assert load_image_csv(table, path_column="where", label_column="n").target.tolist() == [
        "1",
        "2",
    ]
    for params in ({}, {"path_column": "w"}, {"path_column": "where", "label_column": "x"}):
        with pytest.raises(ValueError, match="Its columns are 'n', 'where'"):
            load_image_csv(table, **params)
    with pytest.raises(ValueError, match="no group column 'g'"):
        load_image_csv(table, path_column="where", group_column="g")


def test_numbers_stems_and_labels(tmp_path):
    names = ["Image_00000.png", "sub/Image_00001.png", "7.png", "Image_00007.png", "d1_3.png"]
    write(tmp_path / "images", [*names, "d2_3.png", "v1.2.png"])
    rows = [
        ("", 0, "EO"),
        ("", "Image_00001", "MONO"),
        ("", 7, " EO "),
        ("", "v1.2", "EO"),
        ("", 1, ""),
        ("", 99, ""),
        ("", 0, "EO, MONO"),
        ("", 0, "EO,EO,"),
        ("", "Image_00007.png", "MONO"),
    ]
    table = write_table(tmp_path / "labels.csv", ("", "Image", "Category"), *rows)
    cells = load_image_csv(table, root=tmp_path / "images")
    assert values_of(cells.images) == [0, 10, 20, 60, 30]
    assert cells.target.tolist() == ["EO", "MONO", "EO", "EO", "MONO"]
    assert [reason for _, reason in cells.skipped] == [
        "no label",
        "no label",
        "2 labels",
        "2 labels",
    ]
    assert names_of(path for path, _ in cells.skipped) == [
        "Image_00001.png",
        "99",
        "Image_00000.png",
        "Image_00000.png",
    ]

    rows = [("", 3, "EO"), ("", 5, "EO"), ("", "x.png", "EO"), ("", "", "EO"), ("", "a/b", "EO")]
    write_table(table, ("", "Image", "Category"), *rows, ("", 0, "EO"))
    with pytest.raises(ImageReadError, match="5 of 6 files"):
        load_image_csv(table, root=tmp_path / "images")
    cells = load_image_csv(table, root=tmp_path / "images", on_error="skip")
    assert len(cells.images) == 1
    reasons = [reason for _, reason in cells.skipped]
    assert reasons[0] == "2 images match: d1_3.png, d2_3.png"
    assert reasons[1].startswith("no image with that name or number in")
    assert reasons[2:] == ["no such file", "the row has no path", "no such file"]


def test_missing_and_broken_files_follow_on_error(tmp_path):
    write(tmp_path, ["0.png", "1.png"])
    (tmp_path / "1.png").write_text("text")
    table = write_table(tmp_path / "t.csv", ("path",), ("gone.png",), ("0.png",), ("1.png",))
    with pytest.raises(ImageReadError, match=r"2 of 3 files(?s:.*)gone.png(?s:.*)1.png"):
        load_image_csv(table)
    with pytest.warns(SkippedFileWarning, match=r"2 of 3 files") as caught:
        cells = load_image_csv(table, on_error="warn")
    assert [warning.filename for warning in caught] == [__file__]
    assert names_of(cells.paths) == ["0.png"]
    assert list(reasons_of(cells)) == ["gone.png", "1.png"]
    write_table(table, ("path",), ("gone.png",))
    with pytest.raises(ImageReadError, match=r"None of the images.*gone.png.*Give root"):
        load_image_csv(table, on_error="skip")


def test_rows_for_the_same_file(tmp_path):
    write(tmp_path, ["cell_0.png", "cell_1.png"])
    header, rows = ("path", "label", "g"), [("cell_0.png", "a", 1), ("cell_1.png", "b", 1)]
    table = write_table(tmp_path / "t.csv", header, *rows, ("0", "a", 1))
    cells = load_image_csv(table)
    assert cells.target.tolist() == ["a", "b"]
    assert reasons_of(cells) == {"cell_0.png": "the same file as in line 2"}
    for extra, params in (("0", "b", 1), {}), (("./cell_1.png", "b", 2), {"group_column": "g"}):
        write_table(table, header, *rows, extra)
        with pytest.raises(ValueError, match=r"lines [23] and 4 are the same file"):
            load_image_csv(table, **params)


def test_tables_that_cannot_be_used(tmp_path):
    write(tmp_path, ["0.png"])
    table = write_table(tmp_path / "t.csv", ("path", "label", "g"), ("0.png", "", ""))
    with pytest.raises(ValueError, match=r"no row to load.*0.png \(no label\)"):
        load_image_csv(table)
    write_table(table, ("path", "label", "g"), ("0.png", "a", ""))
    with pytest.raises(ValueError, match=r"line 2: 0\.png has no g"):
        load_image_csv(table, group_column="g")
    write_table(table, ("path", "label"))
    with pytest.raises(ValueError, match="no rows below its header"):
        load_image_csv(table)
    table.write_bytes("path,label\n0.png,Größe\n".encode("latin-1"))
    with pytest.raises(ValueError, match="CSV UTF-8"):
        load_image_csv(table)
    with pytest.raises(FileNotFoundError):
        load_image_csv(tmp_path / "none.csv")
    write_table(table, ("path",), ("0.png",))
    with pytest.raises(FileNotFoundError, match="root="):
        load_image_csv(table, root=tmp_path / "none")


def test_rows_of_unequal_length(tmp_path):
    write(tmp_path, ["0.png", "1.png"])
    (tmp_path / "t.csv").write_text("path,label\r\n0.png,a,surplus\r\n\r\n1.png\r\n")
    cells = load_image_csv(tmp_path / "t.csv")
    assert names_of(cells.paths) == ["0.png"]
    assert reasons_of(cells) == {"1.png": "no label"}


# --- real images --------------------------------------------------------------------------------


def test_blood_cells_with_their_cells_as_groups(wbcclf_data):
    folder = wbcclf_data / "blood-cells"
    given_columns = (folder / "cells.csv", "path", "cell_id")
    cells = load_image_folder(folder / "TEST_SIMPLE", groups=given_columns)
    assert cells.images.shape == (71, 240, 320, 3)
    assert len(set(cells.groups)) == 69
    names, counts = np.unique(cells.target, return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {
        "EOSINOPHIL": 13,
        "LYMPHOCYTE": 6,
        "MONOCYTE": 4,
        "NEUTROPHIL": 48,
    }
    guessed = list_image_folder(folder / "TEST_SIMPLE", groups=folder / "cells.csv")
    np.testing.assert_array_equal(guessed.groups, cells.groups)


def test_whole_tree_of_blood_cells(wbcclf_data):
    folder = wbcclf_data / "blood-cells"
    listing = list_image_folder(folder, groups=str(folder / "cells.csv"))
    splits, counts = np.unique(listing.split, return_counts=True)
    assert splits.tolist() == ["TEST", "TEST_SIMPLE", "TRAIN"]
    assert counts.tolist() == [2487, 71, 9957]
    assert names_of(path for path, _ in listing.skipped) == ["cells.csv", "labels.csv"]


def test_labels_csv_of_the_four_classes(wbcclf_data):
    table = wbcclf_data / "blood-cells" / "labels.csv"
    images = wbcclf_data / "bccd" / "JPEGImages"
    cells = load_image_csv(table, root=images, image_size=(48, 64), on_error="skip")
    assert cells.images.shape == (280, 48, 64, 3)
    assert cells.target_names == ["BASOPHIL", "EOSINOPHIL", "LYMPHOCYTE", "MONOCYTE", "NEUTROPHIL"]
    reasons = [reason for _, reason in cells.skipped]
    assert reasons.count("no label") == 44
    assert reasons.count("2 labels") == 15
    assert len(reasons) == 411 - 280
    assert names_of(cells.paths[:2]) == ["BloodImage_00000.jpg", "BloodImage_00001.jpg"]


def test_pbc_at_original_size(wbcclf_data):
    root = wbcclf_data / "pbc" / "original-size"
    with pytest.raises(ValueError, match=r"3 sizes .*363 x 360 \(118 images"):
        load_image_folder(root)
    one, many = (load_image_folder(root, image_size=90, n_jobs=n) for n in (1, 4))
    np.testing.assert_array_equal(one.images, many.images)
    np.testing.assert_array_equal(one.paths, many.paths)
    with Image.open(one.paths[0]) as image:
        # 363 x 360 to 90 x 90 is nearly an average over 4 x 4 pixels in both, so that only the
        # filters' edges differ.
        expected = np.asarray(image.convert("RGB").resize((90, 90), Image.Resampling.BOX), float)
    assert np.abs(one.images[0] - expected).mean() < 1.5


def test_the_picture_that_pbc_has_in_two_classes(wbcclf_data, tmp_path):
    for name, pattern in (("eosinophil", "EO_2259*"), ("neutrophil", "BNE_1911*")):
        (tmp_path / name).mkdir()
        for path in (wbcclf_data / "pbc" / "train" / name).glob(f"{pattern}.jpg"):
            (tmp_path / name / path.name).symlink_to(path)
    with pytest.warns(DuplicateImageWarning, match=r"EO_225902.jpg = .*BNE_191112.jpg"):
        cells = load_image_folder(tmp_path, image_size=32)
    assert list(map(names_of, cells.duplicates)) == [["EO_225902.jpg", "BNE_191112.jpg"]]


def test_file_that_is_no_image(wbcclf_data):
    with pytest.raises(ImageReadError, match=r"not_an_image.jpg: not a JPEG, PNG, BMP or TIFF"):
        load_image_folder(wbcclf_data / "broken")


def test_no_warning_on_real_images(wbcclf_data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_image_folder(wbcclf_data / "bcisc" / "images").images) == 268
