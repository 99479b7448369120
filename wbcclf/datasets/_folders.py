"""Images from folders."""

from __future__ import annotations

import os
from os import PathLike
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from wbcclf._files import some
from wbcclf._images import check_image_size
from wbcclf.datasets._bunch import make_bunch
from wbcclf.datasets._decode import MAX_PIXELS
from wbcclf.datasets._files import SUFFIXES, find_images
from wbcclf.datasets._reading import check_reading, read_images
from wbcclf.datasets._tables import assign_groups

__all__ = ["list_image_folder", "load_image_folder"]


def list_image_folder(root: str | PathLike, *, labelled: bool = True, groups: Any = None) -> Bunch:
    """List the images of a folder with their classes and groups, without opening them.

    The class of an image is the name of the folder that directly holds it, however deep it lies.
    Images directly in `root`, without class folders beside them, are unlabelled.

    Parameters
    ----------
    root : str or path
        Folder with images, class folders, or splits that hold class folders
        (``root/TRAIN/NEUTROPHIL/1.jpg``). Links to folders are followed; each folder is entered
        once.
    labelled : bool, default=True
        False ignores the names of folders: images may lie anywhere, and target, target_names and
        split are None.
    groups : None, callable, str, re.Pattern, path, or tuple, default=None
        What each image shows, so that cross-validation can keep it in one fold:

        - a callable gets the path (str) and returns the group;
        - a regular expression (str or compiled) is searched in the path relative to `root`,
          written with ``/``; its first capture group, or the whole match, is the group;
        - a CSV file, as a ``Path`` or a str that ends in ``.csv``, gives groups by its columns
          path (or file, filename, image, image_path) and group (or cell_id, patient, slide,
          original_id; the first of these that there is). Paths in it are relative to its folder
          or to `root`;
        - a tuple ``(csv_file, path_column, group_column)`` names the columns.

    Returns
    -------
    Bunch
        With the attributes

        paths : ndarray of shape (n_images,), str
            ``root/...`` in natural order (``2.jpg`` before ``10.jpg``).
        target : ndarray of shape (n_images,), str, or None
            Class names; None if the images are unlabelled.
        target_names : list of str, or None
            The classes, sorted.
        groups : ndarray of shape (n_images,), or None
            What the callable returned, otherwise str.
        split : ndarray of shape (n_images,), str, or None
            Folders between `root` and the class folder, joined by ``/``; None if there are none.
        skipped : list of (path, reason)
            Everything left out: hidden files and folders, files that are not images by their
            suffix, empty folders and those that cannot be read, broken links, pipes, devices.

    Raises
    ------
    FileNotFoundError
        If `root` does not exist.
    NotADirectoryError
        If `root` is not a folder.
    ValueError
        If there is no image, a folder holds both images and folders with images, or an image has
        no group.
    TypeError
        If `groups` is of another type.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from wbcclf.datasets import list_image_folder
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("monocyte/p1_0.png", "monocyte/p1_1.png", "neutrophil/p2_0.png"):
    ...         path = Path(root, name)
    ...         path.parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (8, 6)).save(path)
    ...     listing = list_image_folder(root, groups="(p[0-9]+)_")
    >>> listing.target.tolist(), listing.groups.tolist()
    (['monocyte', 'monocyte', 'neutrophil'], ['p1', 'p1', 'p2'])
    """
    files, skipped = find_images(root)
    if not files:
        raise ValueError(_nothing_found(root, skipped))
    target = split = target_names = None
    if labelled:
        _check_layout(root, files)
    # The layout is checked: if one image lies in a class folder, all do.
    if labelled and len(files[0]) > 1:
        target = np.array([parts[-2] for parts in files])
        target_names = sorted(set(target.tolist()))
        if any(len(parts) > 2 for parts in files):
            split = np.array(["/".join(parts[:-2]) for parts in files])
    return Bunch(
        paths=np.array([os.path.join(root, *parts) for parts in files]),
        target=target,
        target_names=target_names,
        groups=assign_groups(groups, root, files),
        split=split,
        skipped=skipped,
    )


def _nothing_found(root: str | PathLike, skipped: list[tuple[str, str]]) -> str:
    if not skipped:
        return f"{os.fspath(root)} is empty: there is no image to load."
    seen = some([f"{os.path.relpath(path, root)} ({reason})" for path, reason in skipped], 3)
    return f"No image in {os.fspath(root)}; images end in {', '.join(SUFFIXES)}. Found: {seen}."


def _check_layout(root: str | PathLike, files: list[tuple[str, ...]]) -> None:
    """Raise a ValueError if a folder holds images and also folders with images."""
    with_folders = {parts[:k] for parts in files for k in range(len(parts) - 1)}
    mixed = [parts for parts in files if parts[:-1] in with_folders]
    if mixed:
        folder = os.path.join(root, *mixed[0][:-1])
        names = [parts[-1] for parts in mixed if parts[:-1] == mixed[0][:-1]]
        raise ValueError(
            f"{folder} holds images ({some(names, 3)}) and also folders with images, so their "
            "class is not clear. Move them into class folders, or out of this one."
        )


def load_image_folder(
    root: str | PathLike,
    *,
    image_size: int | tuple[int, int] | None = None,
    crop: Any = None,
    labelled: bool = True,
    groups: Any = None,
    on_error: str = "raise",
    n_jobs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    memory: Any = None,
    spill_dir: str | PathLike | None = None,
    verbose: int = 0,
) -> Bunch:
    """Load the images of a folder, with their classes and groups.

    JPEG, PNG, BMP and TIFF files with the suffixes .jpg, .jpeg, .png, .bmp, .tif and .tiff are
    read: grey, palette, RGB, RGBA (alpha is dropped), CMYK; 16-bit values are divided by 257 and
    rounded; the EXIF orientation is applied; a file with several pages gives its first. Truncated
    files are errors. A JPEG that is damaged in the middle but ends properly is not detected:
    decoders fill in what is missing.

    Parameters
    ----------
    root : str or path
        Folder with images (unlabelled), class folders, or splits that hold class folders; see
        `list_image_folder`.
    image_size : int, tuple of (height, width), or None, default=None
        Size in pixels that every image is stretched to, by averaging where it shrinks and
        bilinear interpolation where it grows. None keeps the images as they are; then all must
        have one size.
    crop : CellCropper or None, default=None
        Cuts every picture around its white cell, at the picture's own size, before it is made
        small; see `ImageLoader`.
    labelled : bool, default=True
        False ignores the names of folders; see `list_image_folder`.
    groups : None, callable, str, re.Pattern, path, or tuple, default=None
        Group of each image; see `list_image_folder`.
    on_error : {"raise", "warn", "skip"}, default="raise"
        What to do about files that cannot be read. "raise" tries all files first, then names
        the broken ones; "warn" leaves them out with a `SkippedFileWarning`; "skip" lists them
        only in `skipped`.
    n_jobs : int or None, default=None
        Threads; None or -1 means one per available core. The result does not depend on it.
    max_pixels : int, default=89478485
        Larger images count as broken; they are detected before they are decoded.
    memory : None, str, path, joblib.Memory or Cache, default=None
        Folder that keeps each decoded image for later runs, which use it as long as the file's
        path, size and times of change are the same. Of a joblib.Memory only the location is used. A
        `Cache` also sets how much room the folder may take; otherwise that is 20 GB.
    spill_dir : str, path or None, default=None
        An existing folder: `images` is a memory-mapped file in it, so that they need not fit into
        memory. The file is removed when the array is.
    verbose : int, default=0
        1 shows a progress bar on stderr.

    Returns
    -------
    Bunch
        With the attributes

        images : ndarray of shape (n_images, height, width, 3), uint8
            RGB, 0-255.
        target, target_names, paths, groups, split
            As in `list_image_folder`, for the images that were read.
        found : ndarray of shape (n_images,), bool, or None
            Where `crop` found a white cell; None without `crop`.
        duplicates : list of list of str
            The files that are byte for byte the same, a list of paths for each image. First those
            in several classes, then those in several groups or splits; both give a warning.
        skipped : list of (path, reason)
            Everything left out, broken files included.
        DESCR : str
            A summary.

    Raises
    ------
    ImageReadError
        If a file cannot be read and `on_error` is "raise", or if none can be read.
    ValueError
        If the sizes differ and `image_size` is None, a parameter is out of range, or the folder
        has no image, an ambiguous layout, or an image without group.
    FileNotFoundError
        If `root` does not exist.
    NotADirectoryError
        If `root` is not a folder.
    TypeError
        If `groups` is of another type.

    Warns
    -----
    SkippedFileWarning
        With ``on_error="warn"``, of files that cannot be read.
    DuplicateImageWarning
        If the same file, byte for byte, is in several classes, groups or splits.
    UserWarning
        Of images in which `crop` finds no white cell.

    See Also
    --------
    ImageLoader : The same as a transformer, for cross-validation on paths.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from wbcclf.datasets import load_image_folder
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("monocyte/1.png", "neutrophil/2.png"):
    ...         path = Path(root, name)
    ...         path.parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (8, 6), path.parent.name == "monocyte" and "blue").save(path)
    ...     cells = load_image_folder(root, image_size=(32, 32))
    >>> cells.images.shape, cells.images.dtype, cells.target_names
    ((2, 32, 32, 3), dtype('uint8'), ['monocyte', 'neutrophil'])
    """
    size = check_image_size(image_size)
    check_reading(on_error, size, crop, n_jobs, max_pixels, memory, spill_dir)
    listing = list_image_folder(root, labelled=labelled, groups=groups)
    read = read_images(
        listing.paths.tolist(),
        size,
        crop=crop,
        n_jobs=n_jobs,
        max_pixels=max_pixels,
        verbose=verbose,
        on_error=on_error,
        memory=memory,
        spill_dir=spill_dir,
    )
    return make_bunch(
        root,
        read,
        listing.paths,
        listing.target,
        listing.groups,
        listing.skipped,
        split=listing.split,
    )
