"""What loaders return: images with what is known of each, duplicates and a summary."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from os import PathLike

import numpy as np
from sklearn.utils import Bunch

from wbcclf._files import shown, some
from wbcclf._warnings import warn
from wbcclf.datasets._reading import Reading
from wbcclf.exceptions import DuplicateImageWarning

__all__ = ["make_bunch"]

N_SHOWN = 5
WORDS = {"target": "classes", "groups": "groups", "split": "splits"}


def make_bunch(
    source: str | PathLike,
    read: Reading,
    paths: Sequence[str],
    target: Sequence | None,
    groups: Sequence | None,
    skipped: list[tuple[str, str]],
    **split: Sequence | None,
) -> Bunch:
    """Return the images with what is known of each, and warn about duplicates that are apart.

    Parameters
    ----------
    source : path
        To be named in the summary.
    read : Reading
    paths, target, groups, split
        One entry for each file, read or not; None for what is not known.
    skipped : list of (path, reason)
        What was left out before reading.
    """
    known = {"target": target, "groups": groups, **split}
    kept = {
        name: None if values is None else np.asarray(values)[read.kept]
        for name, values in known.items()
    }
    files = np.asarray(paths)[read.kept]
    skipped = skipped + read.failures
    labels = kept["target"]
    return Bunch(
        images=read.images,
        target_names=None if labels is None else sorted(set(labels.tolist())),
        paths=files,
        found=read.found,
        duplicates=_find_duplicates(files.tolist(), read.digests, kept),
        skipped=skipped,
        DESCR=_describe(source, read.images, labels, skipped),
        **kept,
    )


def _find_duplicates(
    paths: list[str], digests: list[bytes], known: dict[str, np.ndarray | None]
) -> list[list[str]]:
    """Return the files that are byte for byte the same, those in several classes first.

    Warns where the same file is in several classes, groups or splits.
    """
    by_digest = defaultdict(list)
    for place, digest in enumerate(digests):
        by_digest[digest].append(place)
    found = []
    for places in by_digest.values():
        if len(places) > 1:
            values = {
                name: sorted({str(of_all[place]) for place in places})
                for name, of_all in known.items()
                if of_all is not None
            }
            apart = {name: several for name, several in values.items() if len(several) > 1}
            found.append(([paths[place] for place in places], apart))
    found.sort(key=lambda item: ("target" not in item[1], not item[1]))
    lines = [
        f"{' = '.join(map(shown, same))} ({WORDS[name]} {', '.join(several)})"
        for same, apart in found
        for name, several in apart.items()
    ]
    if lines:
        listed = some(lines, N_SHOWN, "\n  ")
        warn(
            "Files are byte for byte the same, but in several classes, groups or splits:\n  "
            f"{listed}\nKeep one of each; `duplicates` lists them all.",
            DuplicateImageWarning,
        )
    return [same for same, _ in found]


def _describe(
    source: str | PathLike,
    images: np.ndarray,
    target: np.ndarray | None,
    skipped: list[tuple[str, str]],
) -> str:
    n_images, height, width, _ = images.shape
    lines = [f"{n_images} images of {height} x {width} pixels (RGB) from {os.fspath(source)}."]
    if target is None:
        lines.append("Unlabelled.")
    else:
        lines += [f"  {name}: {count}" for name, count in sorted(Counter(target.tolist()).items())]
    lines.append(f"{len(skipped)} files or rows left out.")
    return "\n".join(lines)
