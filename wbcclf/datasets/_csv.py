"""Images from tables."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

from sklearn.utils import Bunch

from wbcclf._images import check_image_size
from wbcclf.datasets._bunch import make_bunch
from wbcclf.datasets._decode import MAX_PIXELS
from wbcclf.datasets._reading import check_reading, read_images
from wbcclf.datasets._rows import list_rows

__all__ = ["load_image_csv"]


def load_image_csv(
    csv_file: str | PathLike,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    root: str | PathLike | None = None,
    part: str | Sequence[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    crop: Any = None,
    on_error: str = "raise",
    n_jobs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    memory: Any = None,
    spill_dir: str | PathLike | None = None,
    verbose: int = 0,
) -> Bunch:
    """Load the images that a CSV file lists, with their labels and groups.

    Rows without a label, and rows with several (joined by commas: more than one cell in the
    image), are left out. A file that two rows name is loaded once.

    Parameters
    ----------
    csv_file : str or path
        UTF-8, with a header line; fields separated by comma, semicolon or tab.
    path_column : str or None, default=None
        Column with the image files. A cell is a path relative to `root`, a file name without
        suffix (``BloodImage_00003``), or a number that ends one (``3``); the latter two are
        searched in all folders below `root` and must fit a single file. None takes the first of
        path, file, filename, image, image_path that there is, in upper or lower case.
    label_column : str or None, default=None
        Column with the class. None takes the first of label, class, category, target, cell_type,
        type; without any of them the images are unlabelled.
    group_column : str or None, default=None
        Column with the group (cell, slide or patient). None gives no groups.
    root : str, path or None, default=None
        Folder that the paths are relative to; None means the folder of the CSV file.
    part : str, list of str, or None, default=None
        Load only the rows with this in the column part (or split), such as "train" of a table that
        ``wbcclf split`` wrote; or with one of these. None loads all rows.
    image_size : int, tuple of (height, width), or None, default=None
        As in `load_image_folder`.
    crop : CellCropper or None, default=None
        As in `load_image_folder`.
    on_error : {"raise", "warn", "skip"}, default="raise"
        What to do about files that are missing or cannot be read; see `load_image_folder`.
    n_jobs : int or None, default=None
        Threads; None or -1 means one per available core.
    max_pixels : int, default=89478485
        Larger images count as broken.
    memory : None, str, path, joblib.Memory or Cache, default=None
        Folder that keeps each decoded image for later runs, which use it as long as the file's
        path, size and times of change are the same. Of a joblib.Memory only the location is used. A
        `Cache` also sets how much room the folder may take; otherwise that is 20 GB.
    spill_dir : str, path or None, default=None
        Where to put the images instead of in memory; see `load_image_folder`.
    verbose : int, default=0
        1 shows a progress bar on stderr.

    Returns
    -------
    Bunch
        With the attributes

        images : ndarray of shape (n_images, height, width, 3), uint8
            RGB, 0-255, in the order of the rows.
        target : ndarray of shape (n_images,), str, or None
        target_names : list of str, or None
            The classes, sorted.
        paths : ndarray of shape (n_images,), str
        groups : ndarray of shape (n_images,), str, or None
        found : ndarray of shape (n_images,), bool, or None
            Where `crop` found a white cell; None without `crop`.
        duplicates : list of list of str
            The files that are byte for byte the same; see `load_image_folder`.
        skipped : list of (path, reason)
            Everything left out.
        DESCR : str
            A summary.

    Raises
    ------
    ImageReadError
        If a file is missing or cannot be read and `on_error` is "raise", or if none can be read.
    ValueError
        If a column is missing, no row has exactly one label, two rows give one file different
        labels or groups, a row has no group, there is no such `part`, the sizes differ and
        `image_size` is None, or a parameter is out of range.
    FileNotFoundError
        If `csv_file` or `root` does not exist.
    NotADirectoryError
        If `root` is not a folder.
    OSError
        If `csv_file` is not a regular file of at most 1 GiB.

    Warns
    -----
    SkippedFileWarning
        With ``on_error="warn"``, of files that cannot be read.
    DuplicateImageWarning
        If the same file, byte for byte, is in several classes or groups.
    UserWarning
        Of images in which `crop` finds no white cell.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from wbcclf.datasets import load_image_csv
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for number in range(3):
    ...         Image.new("RGB", (8, 6), (number,) * 3).save(Path(root, f"cell_{number}.png"))
    ...     table = Path(root, "labels.csv")
    ...     with table.open("w") as file:
    ...         print("Image,Category", "0,MONOCYTE", "1,", "2,NEUTROPHIL", sep=chr(10), file=file)
    ...     cells = load_image_csv(table)
    >>> cells.images.shape, cells.target.tolist(), [reason for _, reason in cells.skipped]
    ((2, 6, 8, 3), ['MONOCYTE', 'NEUTROPHIL'], ['no label'])
    """
    size = check_image_size(image_size)
    check_reading(on_error, size, crop, n_jobs, max_pixels, memory, spill_dir)
    parts = [part] if isinstance(part, str) else part
    rows = list_rows(csv_file, path_column, label_column, group_column, root, parts)
    read = read_images(
        rows.paths,
        size,
        crop=crop,
        n_jobs=n_jobs,
        max_pixels=max_pixels,
        verbose=verbose,
        on_error=on_error,
        memory=memory,
        spill_dir=spill_dir,
        missing=rows.missing,
    )
    return make_bunch(
        csv_file,
        read,
        rows.paths,
        rows.labels,
        rows.groups,
        rows.skipped,
    )
