"""The folder that activations and trainings are kept in: whole entries, the oldest go first."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import joblib
import pytest

from wbcclf import Cache
from wbcclf._files import replacing
from wbcclf._store import Store, make_store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", 1e6)


def test_a_full_disk_names_the_file_that_has_no_room(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: .*whole\.csv"):
        with replacing(tmp_path / "whole.csv") as temporary:
            temporary.write_text("a part")
            raise OSError(errno.ENOSPC, "No space left on device")  # as a write gives it
    assert not list(tmp_path.iterdir())


def files(store):
    return sorted(path for path in store.folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("wrap", [str, Path, joblib.Memory, Cache])
def test_every_form_of_memory_is_the_same_store(wrap, tmp_path):
    Store(tmp_path / "wbcclf", 1e6).write("name", b"content")
    store = make_store(wrap(tmp_path))
    assert bytes(store.read("name")) == b"content"
    assert store.limit == 20e9


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert make_store("~/kept").folder == tmp_path / "kept" / "wbcclf"


def test_a_cache_says_how_much_room_there_is(tmp_path):
    assert make_store(Cache(tmp_path, max_gb=0.5)).limit == 5e8
    assert make_store(None) is None
    assert make_store(joblib.Memory(None)) is None


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (3, r"memory must be None, a folder, joblib.Memory or Cache, got 3"),
        (True, "got True"),
        ("", r"got ''"),
        (Cache(""), r"got Cache\(folder=''\)"),
        (Cache(None), r"got Cache\(folder=None\)"),
        (Cache("here", max_gb=0), r"The 'max_gb' parameter of Cache must be"),
        (Cache("here", max_gb="20 GB"), r"The 'max_gb' parameter of Cache must be"),
    ],
)
def test_what_memory_cannot_be(memory, words):
    with pytest.raises(ValueError, match=words):
        make_store(memory)


def test_what_was_written_is_read(store):
    assert store.read("kind/name") is None
    assert "kind/name" not in store
    store.write("kind/name", b"content")
    assert "kind/name" in store
    assert bytes(store.read("kind/name")) == b"content"
    assert store.read("kind/other") is None
    assert bytes(Store(store.folder, 1).read("kind/name")) == b"content"
    store.write("kind/name", b"other")
    assert bytes(store.read("kind/name")) == b"other"
    assert len(files(store)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:3],
        lambda content: bytes(4),
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: content[:9] + b"x" + content[10:],
        lambda content: b"x" + content[1:],
        lambda content: bytes(len(content)),
    ],
)
def test_damaged_entries_are_removed_with_one_warning(damage, store):
    for name in "ab":
        store.write(name, b"some content")
    for path in files(store):
        path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="Damaged files in .*store .* computed again") as caught:
        assert store.read("a") is None
        assert store.read("b") is None
    assert len(caught) == 1
    assert not files(store)


def test_what_was_used_longest_ago_goes_first(store):
    for number in range(9):
        store.write(f"kind/{number}", bytes(100_000))
    for number, path in enumerate(files(store)):
        os.utime(path, (number, number))
    assert store.read("kind/0") is not None  # now the latest
    store.write("kind/9", bytes(100_000))
    store.prune()
    assert {number for number in range(10) if f"kind/{number}" in store} == {0, 3, 4, 5, 6, 7, 8, 9}
    assert sum(path.stat().st_size for path in files(store)) <= 0.9 * store.limit


def test_only_entries_go(store):
    names = ["LICENSE", "ab/about", "ab/about.part", "ab/no.entry", "wbcclf-in-use.spill"]
    others = [store.folder / name for name in names]  # the folder may be a checkout of wbcclf
    (store.folder / "ab").mkdir()
    for path in others:
        path.write_bytes(bytes(2_000_000))  # twice the limit: and not counted to it
        os.utime(path, (0, 0))
    store.write("kind/name", bytes(1000))
    store.prune()
    assert set(files(store)) > set(others)
    assert "kind/name" in store


def test_the_limit_holds_while_writing(tmp_path):
    store = Store(tmp_path, 1e5)
    for number in range(300):
        store.write(f"{number:03}", bytes(1000))
        assert sum(path.stat().st_size for path in files(store)) <= 1.1 * store.limit
    assert "299" in store


def test_files_of_killed_writers_are_removed(store):
    store.folder.joinpath("ab").mkdir()
    old, new = (store.folder / "ab" / f"{name}.0123.part.entry" for name in ("abold", "abnew"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    store.write("name", b"content")
    store.prune()
    assert not old.exists()
    assert new.exists()


def test_a_folder_that_vanishes_is_made_again(store):
    shutil.rmtree(store.folder)
    assert store.read("name") is None
    store.write("name", b"content")
    store.prune()
    assert bytes(store.read("name")) == b"content"


def test_entries_of_another_user_are_read_and_stay(store, monkeypatch):
    unlink = Path.unlink

    def refused(path, *args, **kwargs):
        if ".part" in Path(path).suffixes:  # this one is ours
            return unlink(path, *args, **kwargs)
        raise PermissionError(errno.EPERM, "Operation not permitted")

    for number in range(9):
        store.write(f"kind/{number}", bytes(100_000))
    monkeypatch.setattr(os, "utime", refused)
    assert "x" * 300 not in store  # what the system refuses to look at is not there
    monkeypatch.setattr(Path, "unlink", refused)
    assert bytes(store.read("kind/0")) == bytes(100_000)
    store.limit = 1
    store.write("kind/9", b"content")
    store.prune()
    assert len(files(store)) == 10
    (path,) = (path for path in files(store) if path.name.startswith("0"))
    path.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="Damaged"):
        assert store.read("kind/0") is None


def test_a_full_disk_leaves_what_is_there(store, limit_files):
    store.write("a", b"content")
    limit_files(10)  # of the checksum's 4 and the content's 7 bytes
    with pytest.raises(OSError, match="File too large"):
        store.write("b", b"content")
    assert bytes(store.read("a")) == b"content"
    assert len(files(store)) == 1


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"memory: the folder .*file.* cannot be written to"):
        Store(tmp_path / "file" / "store", 1)
    with pytest.raises(OSError, match=r"memory: the folder .*file' cannot be written to"):
        Store(tmp_path / "file", 1)


def _write_many(arguments):
    folder, seed = arguments
    store = Store(folder, 2e5)  # so small that entries are removed while others read them
    wrong = 0
    for turn in range(400):
        name = str((turn * 7 + seed) % 50)
        entry = store.read(name)
        if entry is None:
            store.write(name, name.encode() * 5000)
        else:
            wrong += bytes(entry) != name.encode() * 5000
    store.prune()
    return wrong


def test_processes_write_read_and_remove_at_once(tmp_path):
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        wrong = list(pool.map(_write_many, [(tmp_path, seed) for seed in (0, 0, 25, 25)]))
    assert wrong == [0] * 4
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 2.2e5


def test_a_killed_writer_leaves_no_wrong_entry(tmp_path):
    code = (
        "import sys; from wbcclf._store import Store\n"
        "store = Store(sys.argv[1], 1e12)\n"
        "for turn in range(10**9):\n"
        "    store.write(str(turn % 20), bytes([turn % 20]) * 3_000_000)\n"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
        deadline = time.monotonic() + 60
        while len(list(tmp_path.rglob("*"))) < 30 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        store = Store(tmp_path, 1e12)
        read = [store.read(str(number)) for number in range(20)]  # a warning would be an error
        assert sum(entry is not None for entry in read) > 5
        for number, entry in enumerate(read):
            assert entry is None or bytes(entry) == bytes([number]) * 3_000_000
