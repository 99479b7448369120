"""Many image files become one image batch, in threads, with or without the broken ones."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from numbers import Integral
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from wbcclf import _spill
from wbcclf._files import some
from wbcclf._images import Interval
from wbcclf._store import Store, make_store
from wbcclf._threads import n_threads, run_blocks_in_threads
from wbcclf._warnings import warn
from wbcclf.cells._square import warn_of_missing_cells
from wbcclf.datasets._cropping import check_crop, crop_key
from wbcclf.datasets._decode import DECODER, DIGEST_BYTES, read_image, resize
from wbcclf.decoding._failures import check_on_error, report_failures
from wbcclf.exceptions import ImageReadError

__all__ = ["Reading", "check_reading", "read_images", "stretch_images"]

MAX_TOGETHER = 12_000_000  # bytes of pictures that are cut together: more gains nothing


def check_reading(
    on_error: str,
    image_size: tuple[int, int] | None,
    crop: Any,
    n_jobs: int | None,
    max_pixels: int,
    memory: Any,
    spill_dir: Any,
) -> None:
    """Raise an error for a parameter that `read_images` does not take."""
    check_on_error(on_error)
    check_crop(crop, image_size)
    n_threads(n_jobs)
    if not Interval(Integral, 1, None, closed="left").is_satisfied_by(max_pixels):
        raise ValueError(f"max_pixels must be a positive int, got {max_pixels!r}.")
    make_store(memory)
    _spill.empty((0,), np.uint8, spill_dir)


class Reading(NamedTuple):
    """What `read_images` makes of a list of files.

    Attributes
    ----------
    images : ndarray of shape (n_read, height, width, 3), uint8
    kept : ndarray of shape (n_read,), int
        Index of each image's file in the list.
    digests : list of bytes
        One for each image: files with the same bytes have the same.
    failures : list of (path, reason)
        The files that could not be read.
    found : ndarray of shape (n_read,), bool, or None
        Images in which `crop` found a white cell; None without `crop`.
    """

    images: np.ndarray
    kept: np.ndarray
    digests: list[bytes]
    failures: list[tuple[str, str]]
    found: np.ndarray | None


def read_images(
    paths: Sequence[str],
    image_size: tuple[int, int] | None,
    *,
    n_jobs: int | None,
    max_pixels: int,
    verbose: int,
    crop: Any = None,
    on_error: str | None = "raise",
    missing: Sequence[tuple[str, str]] = (),
    memory: Any = None,
    spill_dir: str | PathLike | None = None,
    advice: str = 'Give on_error="warn" to leave such files out.',
) -> Reading:
    """Read image files into one batch.

    Parameters
    ----------
    paths : sequence of str
    image_size : tuple of (height, width), or None
        None keeps the size of the images, which then must all have the same.
    n_jobs, max_pixels, verbose, crop, memory, spill_dir
        As in `load_image_folder`.
    on_error : {"raise", "warn", "skip"} or None
        As in `load_image_folder`; None is "skip" without an error where no file can be read, and
        without a warning of images in which there is no cell.
    missing : sequence of (path, reason)
        Files known to be unreadable, counted with the broken ones.
    advice : str
        The last sentence of the error.

    Raises
    ------
    ImageReadError
        If a file cannot be read and `on_error` is "raise", or if none can and it is not None.
    ValueError
        If the sizes differ and `image_size` is None.
    OSError
        If `spill_dir` has no room for the batch.
    """
    messages: list[str] = []
    store = make_store(memory, messages.append)
    reader = _Reader(paths, image_size, crop, max_pixels, store, spill_dir)
    run_blocks_in_threads(reader.read, len(paths), n_jobs, verbose)
    if store is not None:
        store.prune()
        if reader.full is not None:
            messages.append(
                f"Nothing more is kept in {store.folder} for now ({reader.full}). Free some space "
                "there, or give memory another folder."
            )
    for message in messages:
        warn(message)
    broken = [(path, why) for path, why in zip(paths, reader.reasons, strict=True) if why]
    failures = [*missing, *broken]
    if on_error is not None:
        report_failures(failures, len(paths) + len(missing), on_error, advice)
    kept = np.array([k for k, why in enumerate(reader.reasons) if not why], dtype=np.intp)
    _check_one_size(paths, reader.sizes, kept)
    images = reader.batch
    if broken:  # in place, since a second batch may not fit into memory
        for new, old in enumerate(kept):
            images[new] = images[old]
        images = images[: len(kept)]
    found = None if crop is None else reader.found[kept]
    if found is not None and on_error is not None:
        warn_of_missing_cells([paths[k] for k in kept], found)
    return Reading(images, kept, [reader.digests[k] for k in kept], failures, found)


class _Reader:
    """Files, and for each its place in the batch, and what is known of it.

    Attributes
    ----------
    batch : ndarray of shape (n_files, height, width, 3), uint8
    sizes : list of (height, width)
    digests : list of bytes
    reasons : list of str
        Why a file is not read, else empty.
    found : ndarray of shape (n_files,), bool
        Where the cropper found a cell.
    full : OSError or None
        Why the store takes nothing more.
    """

    def __init__(
        self,
        paths: Sequence[str],
        image_size: tuple[int, int] | None,
        crop: Any,
        max_pixels: int,
        store: Store | None,
        spill_dir: str | PathLike | None,
    ) -> None:
        self.paths = paths
        self.crop, self.image_size = check_crop(crop, image_size)
        self.cutting = [] if crop is None else crop_key(self.crop)
        self.max_pixels = max_pixels
        self.store = store
        self.full: OSError | None = None
        size = self.image_size or _first_size(paths, max_pixels)
        self.batch = _spill.empty((len(paths), *size, 3), np.uint8, spill_dir)
        self.sizes = [size] * len(paths)
        self.digests = [b""] * len(paths)
        self.reasons = [""] * len(paths)
        self.found = np.zeros(len(paths), bool)

    def read(self, indices: Iterable[int]) -> None:
        """Fill some places, from the store or else from the files."""
        opened: list[tuple[int, str | None, np.ndarray]] = []
        for index in indices:
            key = None if self.store is None else self._key(index)
            if self.store is not None and key is not None and self._recall(self.store, index, key):
                continue
            image = self._open(index)
            if image is not None:
                opened.append((index, key, image))
            # A cropper is faster with several pictures; together they may be as large as one scan.
            if self.crop is None or sum(image.size for *_, image in opened) > MAX_TOGETHER:
                self._fill(opened)
                opened = []
        self._fill(opened)

    def _open(self, index: int) -> np.ndarray | None:
        """Return the image of a file, or keep the reason why not."""
        size = self.image_size if self.crop is None else None
        try:
            image, self.digests[index] = read_image(self.paths[index], size, self.max_pixels)
            if self.crop is not None:
                self.crop.check_size(image.shape[:2], "the picture")
        except ValueError as error:  # ImageReadError, or a picture too small for the square
            self.reasons[index] = str(error)
            return None
        return image

    def _fill(self, opened: list[tuple[int, str | None, np.ndarray]]) -> None:
        """Put images, cut if there is a cropper, in their places and into the store."""
        if not opened:
            return
        images: Sequence[np.ndarray] = [image for *_, image in opened]
        if self.crop is not None:
            images, found = self.crop.crop_pictures(images)
            self.found[[index for index, *_ in opened]] = found
        for (index, key, _), image in zip(opened, images, strict=True):
            self.sizes[index] = image.shape[:2]
            if image.shape != self.batch.shape[1:]:
                continue
            self.batch[index] = image
            if self.store is not None and key is not None and self.full is None:
                entry = self.digests[index] + image.tobytes() + self._flag(index)
                try:
                    self.store.write(key, entry)
                except OSError as error:
                    self.full = error

    def _recall(self, store: Store, index: int, key: str) -> bool:
        entry = store.read(key)
        end = DIGEST_BYTES + self.batch[index].size
        if entry is None or len(entry) != end + len(self._flag(index)):
            return False
        self.digests[index] = bytes(entry[:DIGEST_BYTES])
        self.batch[index].reshape(-1)[:] = np.frombuffer(entry[DIGEST_BYTES:end], np.uint8)
        self.found[index] = any(entry[end:])
        return True

    def _flag(self, index: int) -> bytes:
        """Return what an entry ends with: whether a cell was found, if one was looked for."""
        return b"" if self.crop is None else self.found[index].tobytes()

    def _key(self, index: int) -> str | None:
        """Return the name of the image in the store, or None for what is not kept there.

        A file is the same by its size and times of change. The second of these is the file
        system's own, which no copying tool sets back.
        """
        if self.cutting is None:
            return None
        path = self.paths[index]
        try:
            found = os.stat(path)
        except (OSError, ValueError):  # ValueError: a NUL character in the path
            return None
        stamp = (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        how = (self.image_size, self.batch.shape[1:], int(self.max_pixels), DECODER)
        name = json.dumps([os.path.abspath(path), stamp, how, *self.cutting])
        return f"images/{hashlib.sha256(name.encode()).hexdigest()[:40]}"


def _first_size(paths: Sequence[str], max_pixels: int) -> tuple[int, int]:
    for path in paths:
        try:
            return read_image(path, None, max_pixels)[0].shape[:2]
        except ImageReadError:
            continue
    return 0, 0


def stretch_images(
    images: Sequence[np.ndarray],
    image_size: tuple[int, int] | None,
    crop: Any,
    *,
    n_jobs: int | None,
    verbose: int,
    spill_dir: str | PathLike | None,
) -> np.ndarray:
    """Return images (height, width, 1 or 3) as a batch, cut and stretched as those of files are.

    Raises
    ------
    ValueError
        If the sizes differ and `image_size` is None.
    """
    crop, image_size = check_crop(crop, image_size)
    size = image_size or images[0].shape[:2]
    sizes = [image_size or image.shape[:2] for image in images]
    names = [f"X[{k}]" for k in range(len(images))]
    _check_one_size(names, sizes, range(len(images)))
    batch = _spill.empty((len(images), *size, 3), np.uint8, spill_dir)
    found = np.ones(len(images), bool)

    def work(indices: range) -> None:
        each = [
            np.ascontiguousarray(np.broadcast_to(images[k], (*images[k].shape[:2], 3)))
            for k in indices
        ]
        if crop is None:
            for index, image in zip(indices, each, strict=True):
                batch[index] = resize(image, image_size)
            return
        for index, image in zip(indices, each, strict=True):
            crop.check_size(image.shape[:2], names[index])
        place = slice(indices.start, indices.stop)
        batch[place], found[place] = crop.crop_pictures(each)

    run_blocks_in_threads(work, len(images), n_jobs, verbose)
    warn_of_missing_cells(names, found)
    return batch


def _check_one_size(
    paths: Sequence[str], sizes: Sequence[tuple[int, int]], kept: Sequence[int] | np.ndarray
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
        "image_size=(height, width) to resize all of them."
    )
