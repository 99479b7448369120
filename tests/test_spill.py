"""Arrays in files: nothing lost, nothing left behind."""

import errno
import gc
import os
import pickle
import re
import subprocess
import sys
import time

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imblearn.pipeline import Pipeline
from sklearn.model_selection import GridSearchCV

from wbcclf import SMOTE, Augmenter, SimpleCNNClassifier, _spill, make_blood_cells


def files(folder):
    gc.collect()
    return sorted(path.name for path in folder.iterdir())


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    st.sampled_from(["u1", "<f4", "<f8", ">i2"]),
)
def test_it_is_an_array_like_any_other(tmp_path_factory, shape, dtype):
    folder = tmp_path_factory.mktemp("spill")
    array = _spill.empty(tuple(shape), np.dtype(dtype), folder)
    assert array.shape == tuple(shape)
    assert array.dtype == np.dtype(dtype)
    values = np.arange(array.size).reshape(shape) % 100
    array[...] = values
    np.testing.assert_array_equal(array, values)
    assert len([*folder.iterdir()]) == (array.size > 0)
    del array
    assert [*folder.iterdir()] == []  # at once, without the garbage collector


def test_without_a_folder_it_is_memory():
    assert type(_spill.empty((3, 2), np.uint8, None)) is np.ndarray


def test_the_file_stays_as_long_as_any_view(tmp_path):
    array = _spill.empty((10, 4), np.uint8, tmp_path)
    array[:] = 7
    view = np.asarray(array)[2:4].reshape(-1)
    del array
    assert len(files(tmp_path)) == 1
    assert view.sum() == 56
    del view
    assert files(tmp_path) == []


def run(code, folder):
    """Run `code` in a process of its own, with an array in `folder`; return its process number."""
    code = (
        "import os, signal, sys, numpy as np\n"
        "from wbcclf import _spill\n"
        "array = _spill.empty((9, 9), np.uint8, sys.argv[1])\n"
        "print(os.getpid(), flush=True)\n" + code
    )
    done = subprocess.run([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, check=False)
    return int(done.stdout)


def test_it_goes_when_the_process_ends(tmp_path):
    run("", tmp_path)
    assert files(tmp_path) == []


posix = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL, fork and flock")


@posix
def test_what_a_killed_process_left_goes_when_the_folder_is_next_used(tmp_path):
    (tmp_path / "notes.spill").write_text("not ours")
    (tmp_path / "wbcclf-just-made.spill").touch()
    run("os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    others = {"notes.spill", "wbcclf-just-made.spill"}
    (left,) = set(files(tmp_path)) - others
    array = _spill.empty((2, 2), np.uint8, tmp_path)
    now = set(files(tmp_path))
    assert left not in now
    assert now > others
    assert len(now) == 3
    del array


@posix
def test_what_a_forked_process_left_goes_when_the_folder_is_next_used(tmp_path):
    child = os.fork()
    if child == 0:
        array = _spill.empty((2, 2), np.uint8, tmp_path)
        os._exit(0)
    os.waitpid(child, 0)
    assert len(files(tmp_path)) == 1
    array = _spill.empty((2, 2), np.uint8, tmp_path)
    assert files(tmp_path) == [os.path.basename(array.filename)]


@posix
def test_what_another_process_uses_stays_whatever_its_number(tmp_path):
    # As in another container: not even its process number is known here.
    code = (
        "import sys, numpy as np; from wbcclf import _spill\n"
        "array = _spill.empty((9, 9), np.uint8, sys.argv[1]); array[:] = 7\n"
        "print(flush=True); sys.stdin.read(); print(int(array.sum()))"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path], **pipes)
    other.stdout.readline()
    (theirs,) = files(tmp_path)
    array = _spill.empty((2, 2), np.uint8, tmp_path)
    assert theirs in files(tmp_path)
    assert int(other.communicate()[0]) == 81 * 7
    del array
    assert files(tmp_path) == []


@posix
def test_a_forked_child_leaves_its_parents_file(tmp_path):
    array = _spill.empty((2, 2), np.uint8, tmp_path)
    child = os.fork()
    if child == 0:
        del array
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(files(tmp_path)) == 1


def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path, limit_files):
    limit_files(99_999)
    with pytest.raises(OSError, match=r"spill_dir='.*' has no room .* \(0.1 MB\)") as caught:
        _spill.empty((1000, 100), np.uint8, tmp_path)
    assert caught.value.errno == errno.EFBIG
    assert files(tmp_path) == []


def test_more_than_any_disk_has_is_refused_at_once(tmp_path):
    with pytest.raises(OSError, match="has no room"):
        _spill.empty((10**9, 10**6), np.uint8, tmp_path)
    assert files(tmp_path) == []


def test_where_blocks_cannot_be_reserved_they_are_written(tmp_path, monkeypatch, limit_files):
    monkeypatch.delattr(os, "posix_fallocate")
    array = _spill.empty((3, 2**20), np.uint8, tmp_path)
    assert (np.asarray(array) == 0).all()
    limit_files(3 * 2**20 - 1)  # the last block is written but for one byte, without an error
    with pytest.raises(OSError, match="has no room"):
        _spill.empty((3, 2**20), np.uint8, tmp_path)
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_folder_that_is_none_is_named(tmp_path, kind):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=re.escape(f"{kind!r} is not a folder")[1:]):
        _spill.empty((3, 3), np.uint8, tmp_path / kind)


@pytest.mark.parametrize("spill_dir", ["", b"folder", 3])
def test_what_is_no_path_is_named(spill_dir):
    with pytest.raises(ValueError, match=f"spill_dir.*{re.escape(repr(spill_dir))}"):
        _spill.empty((3, 3), np.uint8, spill_dir)


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="no file can be made in Linux's /sys")
def test_a_folder_that_cannot_be_written_to_is_named():
    with pytest.raises(OSError, match=r"spill_dir='/sys' cannot be written to \(.+\)"):
        _spill.empty((3, 3), np.uint8, "/sys")


# ------------------------------------------------------------------ all the way


def fitted(cells, folder):
    network = SimpleCNNClassifier(
        input_size=32, max_epochs=2, random_state=0, device="cpu", early_stopping=True
    )
    steps = [
        ("aug", Augmenter(random_state=0, spill_dir=folder)),
        ("smote", SMOTE(random_state=0, spill_dir=folder)),
        ("clf", network),
    ]
    return Pipeline(steps).fit(cells.images, cells.target)


def test_a_pipeline_trains_from_files_and_is_pickled_without_data(tmp_path):
    counts = {"neutrophil": 24, "lymphocyte": 10}
    cells = make_blood_cells(classes=list(counts), imbalance=counts, image_size=32, random_state=0)
    in_memory, in_files = fitted(cells, None), fitted(cells, tmp_path)
    np.testing.assert_array_equal(
        in_memory.predict_proba(cells.images), in_files.predict_proba(cells.images)
    )
    assert files(tmp_path) == []  # the images are gone with their last user
    assert len(pickle.dumps(in_files[:-1])) < 10_000  # 68 images have 209 kB
    assert abs(len(pickle.dumps(in_files)) - len(pickle.dumps(in_memory))) < 10_000


def test_a_search_in_workers_reads_the_file(tmp_path):
    cells = make_blood_cells(24, classes=2, image_size=32, random_state=0)
    images = _spill.empty(cells.images.shape, np.uint8, tmp_path)
    images[:] = cells.images
    clf = SimpleCNNClassifier(input_size=32, max_epochs=1, random_state=0, device="cpu")
    scores = []
    for X in (cells.images, images):
        with joblib.parallel_backend("loky", n_jobs=2):
            search = GridSearchCV(clf, {"lr": [1e-3, 1e-2]}, cv=2)
            scores.append(search.fit(X, cells.target).cv_results_["mean_test_score"])
    np.testing.assert_array_equal(*scores)
    assert len(files(tmp_path)) == 1


def test_work_outlives_a_worker_that_joblib_replaces():
    """As when torch is imported for a task: workers that grow by 300 MB are replaced."""

    def grow(number):
        np.kept = np.ones(50_000_000 if hasattr(np, "kept") else 0)  # 400 MB in the second task
        time.sleep(1.1)  # joblib looks once a second
        return number, os.getpid()

    work = [joblib.delayed(grow)(number) for number in range(6)]
    numbers, processes = zip(*joblib.Parallel(n_jobs=2)(work), strict=True)
    assert numbers == tuple(range(6))
    assert len(set(processes)) > 2
