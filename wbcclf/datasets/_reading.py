"""Many image files become one image batch, in threads, with or without the broken ones."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from numbers import Integral
from os import PathLike
from typing import Any

import joblib
import numpy as np
from joblib.memory import MemorizedFunc

from wbcclf import _spill
from wbcclf._files import as_memory
from wbcclf.datasets._decode import DECODER, read_image
from wbcclf.datasets._files import some
from wbcclf.exceptions import ImageReadError, SkippedFileWarning

__all__ = ["check_reading", "read_images"]

ON_ERROR = ("raise", "warn", "skip")
MAX_CHUNK = 16  # files handed to a thread at a time: enough to hide the hand-over


def check_reading(
    on_error: str, n_jobs: int | None, max_pixels: int, memory: Any, spill_dir: Any
) -> None:
    """Raise an error for a parameter that `read_images` does not take."""
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {', '.join(ON_ERROR)}, got {on_error!r}.")
    _n_threads(n_jobs)
    if not isinstance(max_pixels, Integral) or max_pixels < 1:
        raise ValueError(f"max_pixels must be a positive int, got {max_pixels!r}.")
    as_memory(memory)
    _spill.empty((0,), np.uint8, spill_dir)


def _n_threads(n_jobs: int | None) -> int:
    if n_jobs is not None and (not isinstance(n_jobs, Integral) or n_jobs == 0):
        raise ValueError(f"n_jobs must be None or an int other than 0, got {n_jobs!r}.")
    if n_jobs is not None and n_jobs > 0:
        return int(n_jobs)
    # joblib counts the cores that this process may use (affinity, containers).
    return max(1, joblib.cpu_count() + 1 + int(-1 if n_jobs is None else n_jobs))


def read_images(
    paths: Sequence[str],
    image_size: tuple[int, int] | None,
    *,
    n_jobs: int | None,
    max_pixels: int,
    verbose: int,
    on_error: str = "raise",
    missing: Sequence[tuple[str, str]] = (),
    memory: Any = None,
    spill_dir: str | PathLike | None = None,
    advice: str = 'Give on_error="warn" to leave such files out.',
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """Read image files into one batch.

    Parameters
    ----------
    paths : sequence of str
    image_size : tuple of (height, width), or None
        None keeps the size of the images, which then must all have the same.
    n_jobs, max_pixels, verbose, on_error, memory, spill_dir
        As in `load_image_folder`.
    missing : sequence of (path, reason)
        Files known to be unreadable, counted with the broken ones.
    advice : str
        The last sentence of the error.

    Returns
    -------
    images : ndarray of shape (n_read, height, width, 3), uint8
    kept : ndarray of shape (n_read,), int
        Index in `paths` of each image.
    failures : list of (path, reason)
        `missing`, and the files that could not be read.

    Raises
    ------
    ImageReadError
        If a file cannot be read and `on_error` is "raise", or if none can.
    ValueError
        If the sizes differ and `image_size` is None.
    OSError
        If `spill_dir` has no room for the batch.
    """
    n_threads = _n_threads(n_jobs)
    stamps = [_stamp(path) for path in paths] if memory is not None else None
    batch_size = image_size or _first_size(paths, max_pixels)
    key = (paths, stamps, image_size, batch_size, max_pixels, DECODER)
    (batch, sizes, reasons), kept_before = _recall(memory, key, n_threads, verbose, spill_dir)
    failed = [index for index, why in enumerate(reasons) if why is not None]
    if failed and kept_before:
        if isinstance(batch, np.memmap) and batch.mode != "c":  # the kept file itself
            mapped, batch = batch, _spill.empty(batch.shape, np.uint8, spill_dir)
            batch[:] = mapped
        # A failure may have been the disk's, or of a file whose permissions changed since.
        for index in failed:
            _decode_one(paths, index, image_size, max_pixels, batch, sizes, reasons)
    broken = [(path, why) for path, why in zip(paths, reasons, strict=True) if why is not None]
    failures = [*missing, *broken]
    _report(failures, len(paths) + len(missing), on_error, advice)
    kept = np.array([k for k, why in enumerate(reasons) if why is None], dtype=np.intp)
    _check_one_size(paths, sizes, kept)
    if broken:
        # In place, since a second batch may not fit into memory; but not in a mapped file: it may
        # be the kept one, and of a private map every changed page would be in memory.
        out = batch
        if isinstance(batch, np.memmap):
            out = _spill.empty((len(kept), *batch.shape[1:]), np.uint8, spill_dir)
        for new, old in enumerate(kept):
            out[new] = batch[old]
        batch = out[: len(kept)]
    return batch, kept, failures


def _recall(memory: Any, key: tuple, *how: Any) -> tuple[tuple[np.ndarray, list, list], bool]:
    """Return what `_decode` returns, and whether it was kept by an earlier run in `memory`."""
    spill_dir = how[-1]
    decode = as_memory(memory, "c" if spill_dir is not None else None).cache(
        _decode, ignore=["n_threads", "verbose", "spill_dir"]
    )
    if not isinstance(decode, MemorizedFunc):  # no memory, or a kind that joblib does not know
        return decode(*key, *how), memory is not None
    is_mapped = decode.mmap_mode is not None
    # Otherwise joblib returns what it has just written by mapping it, and loses it where the disk
    # was full. This leaves the way in which kept results are loaded as it is.
    decode.mmap_mode = None
    if decode.check_call_in_cache(*key, *how):
        return decode(*key, *how), True
    result = decode(*key, *how)
    if not decode.check_call_in_cache(*key, *how):  # joblib has warned; the half of it goes
        call = decode.func_id, decode._get_args_id(*key, *how)
        decode.store_backend.clear_item(call)
    elif is_mapped:
        result = decode(*key, *how)  # the kept file serves for the spilled one
    return result, False


def _stamp(path: str) -> tuple[int, int, int] | None:
    """Return what tells that a file is still the same: its size and times of change.

    The second of these is the file system's own, which no copying tool sets back.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL character in the path
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _decode(
    paths: Sequence[str],
    stamps: Sequence[tuple[int, int, int] | None] | None,
    image_size: tuple[int, int] | None,
    batch_size: tuple[int, int],
    max_pixels: int,
    decoder: int,
    n_threads: int,
    verbose: int,
    spill_dir: str | PathLike | None,
) -> tuple[np.ndarray, list[tuple[int, int] | None], list[str | None]]:
    """Return the batch of all files, and for each its size and why it could not be read.

    The arguments but the last three are the key that joblib.Memory finds the result by.
    """
    batch = _spill.empty((len(paths), *batch_size, 3), np.uint8, spill_dir)
    sizes: list[tuple[int, int] | None] = [image_size] * len(paths)
    reasons: list[str | None] = [None] * len(paths)

    def work(index: int) -> None:
        _decode_one(paths, index, image_size, max_pixels, batch, sizes, reasons)

    _run(work, len(paths), n_threads, verbose)
    return batch, sizes, reasons


def _decode_one(
    paths: Sequence[str],
    index: int,
    image_size: tuple[int, int] | None,
    max_pixels: int,
    batch: np.ndarray,
    sizes: list[tuple[int, int] | None],
    reasons: list[str | None],
) -> None:
    """Read one file into its place, or the reason why not."""
    try:
        image = read_image(paths[index], image_size, max_pixels)
    except ImageReadError as error:
        reasons[index] = str(error)
        return
    reasons[index] = None
    sizes[index] = image.shape[:2]
    if image.shape == batch.shape[1:]:
        batch[index] = image


def _first_size(paths: Sequence[str], max_pixels: int) -> tuple[int, int]:
    for path in paths:
        try:
            return read_image(path, None, max_pixels).shape[:2]
        except ImageReadError:
            continue
    return 0, 0


def _run(work: Callable[[int], None], n_items: int, n_threads: int, verbose: int) -> None:
    chunk = max(1, min(MAX_CHUNK, n_items // (4 * n_threads)))
    starts = range(0, n_items, chunk)
    with _progress(n_items, verbose) as advance:

        def work_chunk(start: int) -> None:
            stop = min(start + chunk, n_items)
            for index in range(start, stop):
                work(index)
            advance(stop - start)

        if n_threads == 1:
            for start in starts:
                work_chunk(start)
            return
        pool = ThreadPoolExecutor(n_threads, thread_name_prefix="wbcclf-read")
        try:
            for _ in pool.map(work_chunk, starts):
                pass
        finally:
            # Also after Ctrl+C: what has not begun is dropped instead of waited for.
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _progress(n_items: int, verbose: int) -> Any:
    """Give a function to call with the number of files done; a bar on stderr if `verbose`."""
    if not verbose:
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Eta

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Eta())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("Reading images", total=n_items)
        yield lambda done: bar.advance(task, done)


def _report(failures: list[tuple[str, str]], n_files: int, on_error: str, advice: str) -> None:
    if not failures:
        return
    listed = "\n".join(f"  {path}: {reason}" for path, reason in failures[:5])
    if len(failures) > 5:
        listed += f"\n  and {len(failures) - 5} more"
    count = f"{len(failures)} of {n_files} files cannot be read as images"
    if len(failures) == n_files:
        raise ImageReadError(f"{count}, so that there is nothing to load:\n{listed}")
    if on_error == "raise":
        raise ImageReadError(f"{count}:\n{listed}\n{advice}")
    if on_error == "warn":
        # 4: past this function, read_images and the loader, to the caller's line.
        message = f"{count} and are left out:\n{listed}"
        warnings.warn(message, SkippedFileWarning, stacklevel=4)


def _check_one_size(
    paths: Sequence[str], sizes: Sequence[tuple[int, int] | None], kept: np.ndarray
) -> None:
    counts = Counter(sizes[k] for k in kept)
    if len(counts) < 2:
        return
    example = {sizes[k]: paths[k] for k in reversed(kept)}
    listed = [
        f"{height} x {width} ({count} images, {os.path.basename(example[height, width])})"
        for (height, width), count in counts.most_common()
    ]
    raise ValueError(
        f"The images have {len(counts)} sizes (height x width): {some(listed, 3)}. Give "
        "image_size=(height, width) to stretch all of them to one."
    )
