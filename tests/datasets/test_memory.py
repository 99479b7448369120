"""Loading with a cache, into a file, and with the JPEG decoder's own scaling."""

import gc
import io
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.base import clone

from wbcclf import Cache, load_image_csv, load_image_folder, make_blood_cells
from wbcclf.datasets import ImageLoader, _decode
from wbcclf.exceptions import ImageReadError, SkippedFileWarning


@pytest.fixture
def folder(tmp_path):
    """Two classes of synthetic cells, and a file that is no image."""
    root = tmp_path / "cells"
    cells = make_blood_cells(12, classes=2, image_size=32, random_state=0)
    for number, (image, label) in enumerate(zip(cells.images, cells.target, strict=True)):
        path = root / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (root / cells.target[0] / "broken.png").write_bytes(b"no image")
    return root


class _Watch:
    """What is done with every image file that is opened: the interpreter's own audit event."""

    def __init__(self):
        self.do = None
        sys.addaudithook(self.hook)  # for the life of the process

    def hook(self, event, arguments):
        # Opened by os.open, which has no mode; open() has one, and an event of its own.
        if self.do and event == "open" and arguments[1] is None:
            path = os.fspath(arguments[0])
            if path.endswith(".png"):
                self.do(path)


_watch = _Watch()


@pytest.fixture
def reads():
    """The paths of the image files that are opened."""
    seen = []
    _watch.do = seen.append
    yield seen
    _watch.do = None


def good(folder):
    return sorted(str(path) for path in folder.rglob("[0-9]*.png"))


def backing(array):
    """Return the kinds of everything that an array is a view of."""
    kinds = []
    while array is not None:
        kinds.append(type(array))
        array = getattr(array, "base", None)
    return kinds


# ------------------------------------------------------------------ memory


@pytest.mark.parametrize("kind", [str, Path, Cache, None, "r", "r+", "c"])
def test_a_later_run_decodes_nothing_but_what_failed(folder, tmp_path, reads, kind):
    def memory():
        if callable(kind):
            return kind(tmp_path / "cache")
        return joblib.Memory(tmp_path / "cache", verbose=0, mmap_mode=kind)

    bunches = [load_image_folder(folder, image_size=16, memory=memory(), on_error="skip")]
    assert {os.path.basename(path) for path in reads} > {"0.png", "broken.png"}
    for _ in range(2):  # the gap that the broken one leaves is closed, but not in the kept file
        reads.clear()
        bunches.append(
            load_image_folder(folder, image_size=16, memory=memory(), on_error="skip", n_jobs=1)
        )
        assert {os.path.basename(path) for path in reads} == {"broken.png"}
    plain = load_image_folder(folder, image_size=16, on_error="skip")
    for bunch in bunches:
        np.testing.assert_array_equal(bunch.images, plain.images)
        np.testing.assert_array_equal(bunch.target, plain.target)
        assert bunch.skipped == plain.skipped


def test_failures_are_reported_again(folder, tmp_path):
    for _ in range(2):
        with pytest.raises(ImageReadError, match=r"1 of 13 files .*\n.*broken\.png"):
            load_image_folder(folder, memory=tmp_path / "cache")
        with pytest.warns(SkippedFileWarning, match=r"broken\.png"):
            load_image_folder(folder, memory=tmp_path / "cache", on_error="warn")


def test_a_file_that_changes_or_is_mended_is_read_again(folder, tmp_path):
    paths, loader = good(folder), ImageLoader(memory=tmp_path / "cache")
    before = loader.transform(paths)
    Image.fromarray(255 - before[3]).save(paths[3])
    os.utime(paths[3], ns=(1, 1))  # even into the past
    after = loader.transform(paths)
    np.testing.assert_array_equal(after[3], 255 - before[3])
    # Replaced by one of the same size and time of modification, as some copying tools do.
    found, data = os.stat(paths[5]), Path(paths[5]).read_bytes()
    Path(paths[5]).write_bytes(bytes(len(data)))
    os.utime(paths[5], ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(ImageReadError, match=os.path.basename(paths[5])):
        loader.transform(paths)
    Path(paths[5]).write_bytes(data)
    np.testing.assert_array_equal(after[3], 255 - before[3])
    np.testing.assert_array_equal(np.delete(after, 3, 0), np.delete(before, 3, 0))
    Path(paths[0]).unlink()
    for _ in range(2):
        with pytest.raises(ImageReadError, match="no such file"):
            loader.transform(paths)
    Image.fromarray(before[0]).save(paths[0])
    np.testing.assert_array_equal(loader.transform(paths), after)


@pytest.mark.parametrize("size", [16, None])
def test_a_failure_that_passes_is_not_kept(folder, tmp_path, monkeypatch, unprivileged, size):
    # The file itself stays the same, as where a network drive is away for a while.
    paths = [os.path.relpath(path, tmp_path) for path in good(folder)]
    for path in good(folder):
        os.chmod(path, 0)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # the folders above are closed to others
    loader = ImageLoader(size, memory="cache")
    with unprivileged(), pytest.raises(ImageReadError, match=r"nothing to load(?s:.*)Permission"):
        loader.transform(paths)
    if os.geteuid() != 0:
        for path in paths:
            os.chmod(path, 0o644)
    expected = ImageLoader(size).transform(paths)
    np.testing.assert_array_equal(loader.transform(paths), expected)


def test_sizes_and_limits_are_kept_apart(folder, tmp_path):
    paths = good(folder)
    for size in (8, 16, (8, 16), None):
        loader = ImageLoader(size, memory=tmp_path / "cache")
        for _ in range(2):
            np.testing.assert_array_equal(
                loader.transform(paths), ImageLoader(size).transform(paths)
            )
    with pytest.raises(ImageReadError):
        ImageLoader(8, memory=tmp_path / "cache", max_pixels=10).transform(paths)
    backwards = ImageLoader(8, memory=tmp_path / "cache").transform(paths[::-1])
    np.testing.assert_array_equal(backwards, ImageLoader(8).transform(paths)[::-1])


def kept_files(memory):
    return sorted(path for path in memory.rglob("*") if path.is_file())


@pytest.mark.parametrize("spilled", [False, True])
def test_a_damaged_cache_is_built_again(folder, tmp_path, spilled):
    loader = ImageLoader(memory=tmp_path / "cache", spill_dir=tmp_path if spilled else None)
    expected = loader.transform(good(folder)).copy()
    stored = kept_files(tmp_path / "cache")
    assert len(stored) == 12
    for path in stored[:3]:
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="Damaged files in .*computed again") as caught:
        np.testing.assert_array_equal(loader.transform(good(folder)), expected)
    assert [warning.filename for warning in caught] == [__file__]
    np.testing.assert_array_equal(loader.transform(good(folder)), expected)


class _Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_who_can_write_to_the_cache_cannot_run_code(folder, tmp_path):
    loader = ImageLoader(16, memory=tmp_path / "cache")
    expected = loader.transform(good(folder))
    for path in kept_files(tmp_path / "cache"):
        if path.name != "func_code.py":  # without which joblib would not look at the rest
            path.write_bytes(pickle.dumps(_Payload(str(tmp_path / "code was run"))))
    with pytest.warns(UserWarning, match="Damaged"):
        np.testing.assert_array_equal(loader.transform(good(folder)), expected)
    assert not (tmp_path / "code was run").exists()


def test_on_a_full_disk_nothing_is_kept_and_nothing_lost(folder, tmp_path):
    resource = pytest.importorskip("resource")
    loader = ImageLoader(16, memory=tmp_path / "cache")
    expected = ImageLoader(16).transform(good(folder))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))  # an entry takes 788 bytes
    try:
        with pytest.warns(UserWarning, match="Nothing more is kept in .*File too large") as caught:
            images = loader.transform(good(folder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [warning.filename for warning in caught] == [__file__]
    np.testing.assert_array_equal(images, expected)
    assert kept_files(tmp_path / "cache") == []
    for _ in range(2):
        np.testing.assert_array_equal(loader.transform(good(folder)), expected)
    assert len(kept_files(tmp_path / "cache")) == 12


def test_a_cache_takes_no_more_room_than_it_says(folder, tmp_path):
    other = tmp_path / "cache" / "ab" / "about.entry"  # looks like one, but lies beside the store
    other.parent.mkdir(parents=True)
    other.write_bytes(bytes(10_000))
    os.utime(other, (0, 0))
    loader = ImageLoader(16, memory=Cache(tmp_path / "cache", max_gb=8_000 / 1e9))
    expected = ImageLoader(16).transform(good(folder))
    for _ in range(2):
        np.testing.assert_array_equal(loader.transform(good(folder)), expected)
        kept = kept_files(tmp_path / "cache" / "wbcclf")
        assert 5_000 < sum(path.stat().st_size for path in kept) <= 8_000  # of 12 * 788
    assert other.exists()


def test_folds_and_added_files_share_what_is_kept(folder, tmp_path, reads):
    loader = ImageLoader(16, memory=tmp_path / "cache")
    paths = good(folder)
    loader.transform(paths[:8])
    reads.clear()
    images = loader.transform(paths[::-1])
    assert sorted(reads) == paths[8:]
    np.testing.assert_array_equal(images, ImageLoader(16).transform(paths[::-1]))


def test_two_processes_may_fill_it_at_once(folder, tmp_path):
    code = (
        "import sys; from wbcclf.datasets import ImageLoader\n"
        "print(ImageLoader(16, memory=sys.argv[1]).transform(sys.argv[2:]).sum())"
    )
    command = [sys.executable, "-c", code, tmp_path / "cache", *good(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    sums = {int(process.communicate()[0]) for process in running}
    assert sums == {int(ImageLoader(16).transform(good(folder)).sum())}


def test_a_table_takes_both(folder, tmp_path, reads):
    table = folder / "labels.csv"
    rows = [f"{Path(path).relative_to(folder)},{Path(path).parent.name}" for path in good(folder)]
    table.write_text("\n".join(["path,label", *rows]))
    out = [
        load_image_csv(table, memory=tmp_path / "cache", spill_dir=tmp_path).images
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*out)
    assert len(reads) == 12 + 2  # and the first once in each run for the size of all


@pytest.mark.parametrize("memory", [3, [], True])
def test_a_wrong_memory_is_named(folder, memory):
    with pytest.raises(ValueError, match="memory"):
        load_image_folder(folder, memory=memory)
    with pytest.raises(ValueError, match="memory"):
        ImageLoader(memory=memory).fit([])


def test_a_cache_folder_that_cannot_be_made_is_named(folder):
    with pytest.raises(OSError, match=r"memory: the folder '.*broken.png.*' cannot be written to"):
        load_image_folder(folder, memory=next(folder.rglob("broken.png")))


# ------------------------------------------------------------------ spill_dir


@pytest.mark.parametrize("on_error", ["skip", "warn"])
@pytest.mark.filterwarnings("ignore::wbcclf.exceptions.SkippedFileWarning")
def test_spilled_images_are_the_same_and_go_with_their_file(folder, tmp_path, on_error):
    spill = tmp_path / "spill"
    spill.mkdir()
    cells = load_image_folder(folder, spill_dir=spill, on_error=on_error)
    np.testing.assert_array_equal(cells.images, load_image_folder(folder, on_error="skip").images)
    assert np.memmap in backing(cells.images)
    assert len(cells.images) == 12
    gc.collect()
    assert len(list(spill.iterdir())) == 1  # what was there before the broken one left is gone
    del cells
    gc.collect()
    assert list(spill.iterdir()) == []


def test_nothing_is_left_when_loading_fails(folder, tmp_path, reads):
    spill = tmp_path / "spill"
    spill.mkdir()
    with pytest.raises(ImageReadError):
        load_image_folder(folder, spill_dir=spill)
    gc.collect()
    assert list(spill.iterdir()) == []
    _watch.do = lambda path: signal.raise_signal(signal.SIGINT)  # Ctrl+C
    # A run that was started in the background ignores Ctrl+C.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            ImageLoader(8, spill_dir=spill).transform(good(folder))
    finally:
        signal.signal(signal.SIGINT, previous)
    end = time.monotonic() + 60  # another thread may be in the middle of a file; it holds the batch
    while list(spill.iterdir()) and time.monotonic() < end:
        time.sleep(0.01)
        gc.collect()
    assert list(spill.iterdir()) == []


def test_with_memory_images_are_spilled_too(folder, tmp_path):
    spill = tmp_path / "spill"
    spill.mkdir()
    loader = ImageLoader(16, memory=tmp_path / "cache", spill_dir=spill)
    for _ in range(2):
        images = loader.transform(good(folder))
        assert np.memmap in backing(images)
        np.testing.assert_array_equal(images, ImageLoader(16).transform(good(folder)))
        images[:] = 0  # the caller's own: the cache stays as it is
    del images
    gc.collect()
    assert list(spill.iterdir()) == []


def test_a_spill_folder_that_is_none_is_named_before_anything_is_read(folder, reads):
    for load in (
        lambda: load_image_folder(folder, spill_dir="nowhere"),
        lambda: ImageLoader(spill_dir="nowhere").fit([]),
        lambda: ImageLoader(spill_dir="nowhere").transform(good(folder)),
    ):
        with pytest.raises(ValueError, match="spill_dir='nowhere' is not a folder"):
            load()
    assert reads == []


def test_a_loader_is_pickled_and_cloned_without_data(folder, tmp_path):
    loader = ImageLoader(32, memory=str(tmp_path / "cache"), spill_dir=tmp_path)
    images = loader.fit(good(folder)).transform(good(folder))
    assert len(pickle.dumps(loader)) < 1000
    assert clone(loader).get_params() == loader.get_params()
    again = pickle.loads(pickle.dumps(loader)).transform(good(folder))
    np.testing.assert_array_equal(images, again)


# ------------------------------------------------------------------ threads, and JPEG's own scaling


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(6)), st.integers(1, 9), st.sampled_from([None, 5, (9, 20)]))
def test_order_and_values_do_not_depend_on_threads(tmp_path_factory, order, n_jobs, size):
    root = tmp_path_factory.mktemp("order")
    cells = make_blood_cells(6, classes=2, image_size=24, random_state=0)
    paths = [str(root / f"{number}.jpg") for number in range(6)]
    for path, image in zip(paths, cells.images, strict=True):
        Image.fromarray(image).save(path)
    expected = ImageLoader(size, n_jobs=1).transform(paths)
    got = ImageLoader(size, n_jobs=n_jobs).transform([paths[k] for k in order])
    np.testing.assert_array_equal(got, expected[list(order)])


def jpeg(height, width, orientation=1):
    """A smooth picture, brighter to the right and redder to the bottom, as a JPEG file."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([255 * y / height, 255 * x / width, np.full(y.shape, 90)], axis=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("source", "size", "factor"),
    [
        ((240, 320), (128, 128), 1),  # a half would leave 120 rows for 128
        ((256, 512), (128, 128), 1),  # the height would be left as it is, with nothing to average
        ((512, 512), (128, 128), 2),
        ((1024, 1024), (128, 128), 4),
        ((4000, 4000), (16, 16), 4),  # never 8
        ((1024, 500), (128, 128), 1),  # the narrow side decides
        ((512, 512), None, 1),
    ],
)
def test_the_decoder_scales_where_twice_the_size_is_left(source, size, factor):
    assert _decode.reduction(source, size) == factor


@pytest.mark.parametrize("orientation", range(1, 9))
def test_scaling_in_the_decoder_keeps_the_picture(orientation):
    data = jpeg(400, 300, orientation)
    size = (40, 60) if orientation >= 5 else (60, 40)
    reduced = _decode.decode_image(data, size)
    full = _decode.resize(_decode.decode_image(data), size)
    assert np.abs(reduced.astype(int) - full).max() <= 2  # measured: 2, in a smooth picture


def test_a_truncated_jpeg_is_an_error_at_any_size():
    data = jpeg(512, 512)
    with pytest.raises(ImageReadError):
        _decode.decode_image(data[: len(data) // 2], (32, 32))


@pytest.mark.skipif("WBCCLF_DATA" not in os.environ, reason="needs WBCCLF_DATA")
def test_scaling_in_the_decoder_on_real_images():
    root = Path(os.environ["WBCCLF_DATA"], "pbc", "original-size")
    paths = sorted(map(str, root.rglob("*.jpg")))[::6]
    assert len(paths) == 20
    for side in (16, 45, 90):
        apart = []
        for path in paths:
            full = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
            exact = cv2.resize(full, (side, side), interpolation=cv2.INTER_AREA).astype(int)
            apart.append(np.abs(_decode.read_image(path, (side, side))[0] - exact))
        assert np.mean(apart) < 1  # measured on 150 images: 0.5, 0.8 and 0.8
        assert np.max(apart) <= 40  # measured there: 7, 26 and 36
