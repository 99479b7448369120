"""The part of the audit that takes hardly any time, as warnings of `train` and `evaluate`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from wbcclf._files import some
from wbcclf.cli._console import warn
from wbcclf.model_selection.audit._findings import small_classes
from wbcclf.model_selection.audit._quick_check import check_headers

N_NAMED = 5


def warn_of_training_data(images: Path, listing: Bunch) -> None:
    """Warn of classes that are too small, and of those that the files give away."""
    findings = small_classes(listing.target, listing.groups)
    _warn(images, [*findings, *_headers(listing)])


def warn_of_test_data(images: Path, listing: Bunch) -> None:
    """Warn of classes that the files give away."""
    _warn(images, _headers(listing))


def warn_of_conflicts(paths: Sequence[str], labels: np.ndarray, digests: Sequence[bytes]) -> None:
    """Warn of files that are the same, byte for byte, but in several classes."""
    places = defaultdict(list)
    for place, digest in enumerate(digests):
        places[digest].append(place)
    conflicts = [
        " = ".join(f"{paths[place]} ({labels[place]})" for place in same)
        for same in places.values()
        if len(set(labels[same].tolist())) > 1
    ]
    if conflicts:
        warn(
            "the same file, byte for byte, is in several classes, so one label is wrong: "
            f"{some(conflicts, N_NAMED, '; ')}."
        )


def warn_of_trained_on(paths: Sequence[str], trained_on: np.ndarray) -> None:
    """Warn of images that the model, or the weights that it began with, was trained on."""
    seen = [path for path, is_seen in zip(paths, trained_on, strict=True) if is_seen]
    if seen:
        warn(
            f"{len(seen)} of these {len(paths)} images were used to train the model, or the "
            "weights that it started from. So the scores are too good. Evaluate it on images of "
            f"other cells (`wbcclf split` makes such a test). Files: {some(seen, N_NAMED)}."
        )


def _headers(listing: Bunch) -> list[Bunch]:
    return check_headers(listing.paths.tolist(), listing.target, listing.groups)


def _warn(images: Path, findings: list[Bunch]) -> None:
    for each in findings:
        warn(f"{each.what} {each.advice} `wbcclf audit {images}` tells more.")
