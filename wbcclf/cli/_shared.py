"""What the commands of the shell share: checks before the work, and what they print."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from sklearn.utils import Bunch

import wbcclf
from wbcclf.exceptions import ImageReadError

# Without markup: a class may be called "[red]".
out = Console(highlight=False, soft_wrap=True, markup=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


CHUNK = 256  # files that are in memory at a time, or are a worker's part of a prediction


class OnError(StrEnum):
    """What to do about a file that cannot be read."""

    stop = "raise"
    warn = "warn"
    skip = "skip"


ModelFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Model file written by `wbcclf train`.")
]
OnErrorOption = Annotated[
    OnError,
    typer.Option(
        help="Files that cannot be read: stop, or leave them out, with a warning or silently."
    ),
]


def list_labelled(folder: Path, groups: Any = None) -> Bunch:
    """Return the files of a folder of class folders; several sets (TRAIN, TEST) are an error."""
    listing = wbcclf.list_image_folder(folder, groups=groups)
    require(listing.target is not None, f"{folder} has no class folders: there are no labels.")
    sets = [] if listing.split is None else sorted(set(listing.split.tolist()))
    require(
        len(sets) < 2,
        f"{folder} holds several sets of class folders ({', '.join(sets)}), which would be mixed: "
        f"give one of them, like {folder / sets[-1] if sets else folder}.",
    )
    return listing


def collect(chunks: Iterator[Bunch], listing: Bunch, on_error: OnError) -> Bunch:
    """Return the predictions of all readable files; name the others as `on_error` says."""
    n_files = len(listing.paths)
    shown = track(chunks, description="Predicting", total=-(-n_files // CHUNK), console=err)
    done = list(shown)
    broken = [item for chunk in done for item in chunk.skipped]
    if broken and (on_error is OnError.stop or len(broken) == n_files):
        raise ImageReadError(f"{named(broken)}: cannot be read as images.")
    if on_error is not OnError.skip:
        report_skipped(listing.skipped + broken)
    return Bunch(
        paths=[path for chunk in done for path in chunk.paths],
        labels=np.concatenate([chunk.labels for chunk in done]),
        probabilities=np.concatenate([chunk.probabilities for chunk in done]),
    )


def check_output(path: Path) -> None:
    """Fail before the work starts, not after it, if the result cannot be written."""
    require(path.parent.is_dir(), f"{path}: the folder {path.parent} does not exist.")
    require(not path.is_dir(), f"{path} is a folder; give a file name.")
    require(os.access(path.parent, os.W_OK), f"{path}: the folder {path.parent} is read-only.")


def counts_text(counts: Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def report_skipped(skipped: list[tuple[str, str]]) -> None:
    if skipped:
        warn(f"left out: {named(skipped)}")


def named(files: list[tuple[str, str]]) -> str:
    """Return how many files there are, and the first with their reasons."""
    named = "; ".join(f"{path} ({reason})" for path, reason in files[:5])
    return f"{len(files)} files: {named}" + (" and more" if len(files) > 5 else "")


def warn(message: Any, *_: Any, **__: Any) -> None:
    err.print(f"wbcclf: warning: {' '.join(str(message).split())}")


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
