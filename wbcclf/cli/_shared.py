"""What several commands do: leave out broken files and say so, and collect predictions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from sklearn.utils import Bunch

import wbcclf
from wbcclf._files import some
from wbcclf._model_file import is_model_file
from wbcclf._parts import file_digest
from wbcclf._progress import progress_bar
from wbcclf._uncertainty import uncertain_label, unfamiliar
from wbcclf.classifiers import EarlyStopping
from wbcclf.classifiers.familiarity._description import Description, fewest_calls
from wbcclf.cli._console import warn
from wbcclf.cli._output import require
from wbcclf.datasets._files import SUFFIXES
from wbcclf.exceptions import ImageReadError
from wbcclf.inspection._files import last_step
from wbcclf.persistence import find_model

CHUNK = 256  # files that are in memory at a time, or are a worker's part of a prediction
N_NAMED = 20  # files that a message names

DEFAULT_MODEL = "wbcclf:blood-cells"

Skipped = list[tuple[str, str]]  # (path, reason)


class OnError(StrEnum):
    """What to do about a file that cannot be read."""

    stop = "raise"
    warn = "warn"
    skip = "skip"


ModelFile = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help=f"Model file written by `wbcclf train`, or {DEFAULT_MODEL}, which comes with wbcclf.",
        callback=lambda path: Path(find_model(path)),
    ),
]
OnErrorOption = Annotated[
    OnError,
    typer.Option(
        help="Images that cannot be read. raise: stop with an error that names them. warn: leave "
        "them out and warn. skip: leave them out silently."
    ),
]
Reject = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Leave images uncertain so that at most this share of the others is wrong, such as "
        "0.05, with 95% confidence, on images like those that the training validated on. Needs "
        f"{DEFAULT_MODEL}, or a model of `wbcclf train --early-stopping`: for 0.05, on at least "
        "600 images, better 2,400 or more.",
    ),
]


def read_model(model_file: Path, images: list[Path]) -> Any:
    """Return the model of a file.

    The error says so if there is no such file, or if the model was given among the images.
    """
    advice = f"Give one that `wbcclf train` has written, or {DEFAULT_MODEL}."
    if not _is_model(model_file):
        _check_order(model_file, images)
        require(model_file.exists(), f"The model file {model_file} does not exist. {advice}")
        require(not model_file.is_dir(), f"{model_file} is a folder, not a model file. {advice}")
    return wbcclf.load_model(model_file)


def set_rejection(model: Any, reject: float | None) -> float | None:
    """Give a model the rejection `reject`, unless that is None; return the one that it has.

    Fails, before images are read, if the model cannot keep it.
    """
    classifier = last_step(model)
    what = f"The model's rejection={classifier.rejection}"
    if reject is not None:
        what = f"--reject {reject:g}"
        require(0 < reject < 1, f"{what}: give a share between 0 and 1, such as 0.05.")
        classifier.set_params(rejection=reject)
    if classifier.rejection is not None:
        _check_rejection(what, classifier.rejection, classifier._description)
        uncertain_label(classifier.classes_)  # raises if they leave no room for it
    return classifier.rejection


def _check_rejection(what: str, share: float, description: Description | None) -> None:
    n_held = 0 if description is None else int(description.calls[0].max())
    n_needed = fewest_calls(share)
    # A tenth is held out. A few of these are never called, and one that is wrong makes it more.
    n_images = math.ceil(n_needed / EarlyStopping().validation_fraction)
    if description is None or n_held < n_needed:
        raise ValueError(
            f"{what} needs {n_needed} images or more that the model was not trained on, which tell "
            f"how often it is wrong. This one has {n_held}; one that `wbcclf adapt` wrote has "
            "none. `wbcclf train --early-stopping` holds out a tenth: train on many "
            f"more than {n_images:,} images (four times as many is safer), or give a larger share."
        )
    try:
        description.threshold(share)
    except ValueError as error:
        raise ValueError(
            f"{what}: the model is too often wrong for it, even where it is surest "
            f"(of {n_held} images that it was not trained on). Give a larger share, or train on "
            "more images with `wbcclf train --early-stopping`."
        ) from error


def _is_model(path: Path) -> bool:
    return path.is_file() and is_model_file(path)


def _check_order(first: Path, others: list[Path]) -> None:
    for path in filter(_is_model, others):
        raise ValueError(
            f"{first} is not a model file, but {path} is. Give the model first, then the images."
        )


def split_model(given: list[Path]) -> tuple[Path, list[Path]]:
    """Return the model file and the images of ``[MODEL] IMAGES...``; without MODEL, our own."""
    first, *rest = given
    if first.is_dir() or first.suffix.lower() in SUFFIXES:
        _check_order(first, rest)
        return Path(find_model(DEFAULT_MODEL)), given
    if not rest:
        is_model = str(first) == DEFAULT_MODEL or _is_model(first)
        require(not is_model, f"{first} is a model. Give a folder or image files after it.")
        require(first.exists() or first.suffix == ".wbcclf", f"{first} does not exist.")
        raise ValueError(
            f"{first} is not a folder and not an image. Give a folder or image files; a model "
            "file, if any, comes before them."
        )
    return Path(find_model(first)), rest


def is_packaged(model_file: Path) -> bool:
    return model_file == find_model(DEFAULT_MODEL)


def check_broken(broken: Skipped, n_images: int, on_error: OnError) -> None:
    """Fail on images that cannot be read if they are to stop the command, or if they are all."""
    if broken and (on_error is OnError.stop or len(broken) == n_images):
        advice = "" if len(broken) == n_images else " Leave them out with --on-error warn."
        raise ImageReadError(
            f"{len(broken)} of {n_images} images cannot be read: {named(broken)}.{advice}"
        )


def report_left_out(
    broken: Skipped, others: Skipped, n_images: int, on_error: OnError, all_in: str
) -> None:
    """Warn of files that were left out, images that cannot be read first; say where all are."""
    if on_error is OnError.skip:
        return
    for files, what in (
        (broken, f"left out, {len(broken)} of {n_images} images that cannot be read"),
        (others, f"also left out, {len(others)}" if broken else f"left out, {len(others)}"),
    ):
        if files:
            rest = f" {all_in}" if len(files) > N_NAMED else ""
            warn(f"{what}: {named(files)}.{rest}")


def by_reason(files: Skipped) -> list[dict[str, str]]:
    """Return files that were left out as JSON has them."""
    return [{"file": path, "reason": reason} for path, reason in files]


def by_class(labels: np.ndarray, groups: np.ndarray | None = None) -> list[dict[str, Any]]:
    """Return how many images there are of every class, and cells if these are known, for JSON."""
    rows = []
    for label in np.unique(labels):
        row = {"label": label, "n_images": np.count_nonzero(labels == label)}
        if groups is not None:
            row["n_cells"] = len(np.unique(groups[labels == label]))
        rows.append(row)
    return rows


def about_model(model_file: Path) -> dict[str, str]:
    """Return which model it is, for JSON."""
    name = DEFAULT_MODEL if is_packaged(model_file) else str(model_file)
    return {"model": name, "model_sha256": file_digest(model_file)}


def named(files: Skipped) -> str:
    """Return the first files with their reasons, and how many more there are."""
    return some([f"{path} ({reason})" for path, reason in files], N_NAMED, "; ")


def collect(
    chunks: Iterator[Bunch],
    listing: Bunch,
    on_error: OnError,
    all_in: str,
    rejection: float | None,
) -> tuple[Bunch, Skipped]:
    """Return the predictions of all readable images, and the others as `on_error` says.

    Warns of images in which the model's cropper found no white cell; `uncut` of the predictions
    lists them, or is None for a model without a cropper. Warns, too, of images that do not look
    like those that the model was trained on; `is_unfamiliar` says if, and is None for a model that
    does not know its training images, as `familiarity` then is.
    """
    n_images = len(listing.paths) + len(listing.missing)
    if listing.missing:
        check_broken(listing.missing, n_images, on_error)
    n_chunks = -(-len(listing.paths) // CHUNK)
    with progress_bar() as bar:
        done = list(bar.track(chunks, total=n_chunks, description="Predicting"))
    broken = listing.missing + [item for chunk in done for item in chunk.skipped]
    check_broken(broken, n_images, on_error)
    report_left_out(broken, listing.skipped, n_images, on_error, all_in)
    paths = [path for chunk in done for path in chunk.paths]
    labels = np.concatenate([chunk.labels for chunk in done])
    uncut = None
    if done[0].found is not None:
        has_no_cell = ~np.concatenate([chunk.found for chunk in done])
        uncut = np.array(paths, dtype=object)[has_no_cell].tolist()
    if uncut:
        # A platelet, say, is no white cell: their labels tell whether that is as it should be.
        called = counts_text(Counter(labels[has_no_cell].tolist()))
        warn(
            f"no white cell was found in {len(uncut)} of {len(paths)} images; their central square "
            f"was used. They are called: {called}. Look at those that are called white cells. "
            f"Files: {some(uncut, N_NAMED)}."
        )
    familiarity = message = None
    if done[0].familiarity is not None:
        familiarity = np.concatenate([chunk.familiarity for chunk in done])
        message = unfamiliar(familiarity, rejection)
    if message:
        warn(message)
    found = Bunch(
        paths=paths,
        uncut=uncut,
        familiarity=familiarity,
        is_unfamiliar=None if familiarity is None else message is not None,
        labels=labels,
        probabilities=np.concatenate([chunk.probabilities for chunk in done]),
        trained_on=None
        if done[0].trained_on is None
        else np.concatenate([chunk.trained_on for chunk in done]),
    )
    return found, broken


def counts_text(counts: Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
