"""Which pictures show the same cell."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from sklearn.utils import Bunch, check_random_state

from wbcclf._threads import run_in_threads
from wbcclf.datasets._decode import DIGEST_BYTES, read_image
from wbcclf.decoding._failures import check_on_error, report_failures
from wbcclf.decoding._paths_or_images import check_paths_or_images
from wbcclf.exceptions import ImageReadError
from wbcclf.model_selection.groups._candidates import Candidates
from wbcclf.model_selection.groups._chance import (
    certainty_of_pictures,
    chance_counts,
    group_by,
    link,
)
from wbcclf.model_selection.groups._keypoints import Keypoints, find_keypoints
from wbcclf.model_selection.groups._registration import count_agreeing

N_RANDOM = 20_000  # pairs of pictures that chance is measured on


def find_image_groups(
    images: Sequence[str | PathLike] | Sequence[np.ndarray] | np.ndarray,
    *,
    on_error: str = "raise",
    n_jobs: int | None = None,
    random_state: Any = 0,
    verbose: int = 0,
) -> Bunch:
    """Find out which pictures show the same cell.

    Copies are recognised that were turned by any angle, mirrored, shifted, sheared, cropped,
    resized, recompressed, or given other colours or another light; and two crops of one field, if
    enough of the field is in both. Give the result to scikit-learn's splitters as `groups`, so that
    no cell is trained on and tested on.

    Parameters
    ----------
    images : array-like of shape (n_images,), or images
        Paths (str or path objects); or an image batch (n_images, height, width, 1 or 3), or a list
        of such images, which may differ in size, of uint8. Give whole pictures, as they are: red
        cells around a cell tell more than the cell alone.
    on_error : {"raise", "warn", "skip"}, default="raise"
        What to do about files that cannot be read. "raise" tries all files first, then names the
        broken ones; "warn" and "skip" give each a group of its own, and list it in `skipped`.
    n_jobs : int or None, default=None
        Threads; None or -1 means one per available core. The result does not depend on it.
    random_state : int, RandomState or None, default=0
        Chooses the pictures and pairs that are learned from.
    verbose : int, default=0
        1 shows progress bars on stderr.

    Returns
    -------
    Bunch
        With the attributes

        groups : ndarray of shape (n_images,), int
            Number of each picture's group, from 0, in the order in which groups begin.
        n_groups : int
        image_certainty : ndarray of shape (n_images,), float
            How surely each picture belongs to its group: the largest certainty so that links of
            this or more join it to more than half of the group. Of two parts that a single link
            joins, all pictures of the smaller one have that link's. NaN for a picture that is
            alone.
        links : ndarray of shape (n_links, 2), int
            Rows of the pairs that make the groups. Not all pairs of a group are compared.
        certainty : ndarray of shape (n_links,), float
            Probability that a pair shows the same, and does not only look so by chance.
        agreeing : ndarray of shape (n_links,), int
            Points of a pair that agree with one map of one picture to the other; -1 for files that
            are byte for byte the same, which are not compared.
        skipped : list of (path, reason)
            The files that could not be read.

    Raises
    ------
    ImageReadError
        If a file cannot be read and `on_error` is "raise", or if none can be read.
    ValueError
        If a parameter is out of range, or `images` is empty or has another shape.
    TypeError
        If `images` holds neither paths nor images of uint8.

    Warns
    -----
    SkippedFileWarning
        With ``on_error="warn"``, of files that cannot be read.

    See Also
    --------
    sklearn.model_selection.StratifiedGroupKFold : Splits by the groups.

    Notes
    -----
    Distinct points of every picture are described (SIFT), and pictures with similar sums of
    descriptions are compared: how many points agree with one affine map? By chance a few do, more
    often in some sets of pictures than in others. So chance is measured on your own pictures, on
    20,000 random pairs. A pair is linked where it has so many points that fewer than 0.01 chance
    links are expected among all candidates, or else where it is 99% probable. In the second case
    two groups of several pictures need two such links.

    A picture without distinct points (out of focus, empty, one colour) is a group of its own, or
    one with those that are byte for byte the same.

    Examples
    --------
    >>> import numpy as np
    >>> from wbcclf import make_blood_cells
    >>> from wbcclf.model_selection import find_image_groups
    >>> cells = make_blood_cells(6, image_size=128, random_state=0).images
    >>> found = find_image_groups([*cells, *cells[:2, ::-1], np.rot90(cells[5])])
    >>> found.groups.tolist()
    [0, 1, 2, 3, 4, 5, 0, 1, 5]
    """
    check_on_error(on_error)
    random_state = check_random_state(random_state)
    paths, arrays = check_paths_or_images(images, "images")
    n_images = len(paths or arrays or [])
    if not n_images:
        raise ValueError("images is empty: there is nothing to group.")
    seen = _Seen(paths, arrays)
    run_in_threads(seen.look, n_images, n_jobs, verbose)
    skipped = [(path, why) for path, why in zip(paths or [], seen.reasons, strict=False) if why]
    report_failures(skipped, n_images, on_error, 'Give on_error="warn" to group the others.')
    # Of pictures that are the same to the last byte, only the first is compared.
    _, first, same_as = np.unique(seen.digests, return_index=True, return_inverse=True)
    keypoints = [seen.keypoints[row] for row in first]
    comparison = _Comparison(keypoints, n_jobs, verbose)
    candidates = Candidates(keypoints, random_state)
    n_random = min(N_RANDOM, len(first) ** 2)
    others = random_state.randint(len(first), size=(n_random, 2))
    others = np.column_stack([others, random_state.randint(2, size=n_random)])
    by_chance = comparison.of(others[others[:, 0] != others[:, 1]])
    tried = candidates.find(np.arange(len(first)))
    agreeing = comparison.of(tried)
    # Many copies of a picture have no room among their nearest for other pictures of the cell, such
    # as one of a field that overlaps. So they are looked for once more, outside the groups.
    chosen, _ = link(tried[:, :2], agreeing, chance_counts(agreeing, by_chance), len(first))
    more = candidates.find(group_by(tried[chosen, :2], len(first)))
    is_new = ~np.isin(_numbers(more), _numbers(tried))
    tried = np.concatenate([tried, more[is_new]])
    agreeing = np.concatenate([agreeing, comparison.of(more[is_new])])
    chosen, certainty = link(tried[:, :2], agreeing, chance_counts(agreeing, by_chance), len(first))
    copies = np.flatnonzero(first[same_as] != np.arange(n_images))
    same = np.column_stack([first[same_as[copies]], copies])
    links = np.concatenate([first[tried[chosen, :2]], same])
    certainty = np.concatenate([certainty, np.ones(len(same))])
    groups = group_by(links, n_images)
    return Bunch(
        groups=groups,
        n_groups=int(groups.max()) + 1,
        image_certainty=certainty_of_pictures(groups, links, certainty),
        links=links,
        certainty=certainty,
        agreeing=np.concatenate([agreeing[chosen], np.full(len(same), -1)]),
        skipped=skipped,
    )


def _numbers(pairs: np.ndarray) -> np.ndarray:
    """Return one number for each pair, the same for the same."""
    return (pairs[:, 0] << 32) + (pairs[:, 1] << 1) + pairs[:, 2]


class _Comparison:
    """Counts agreeing points of pairs of pictures."""

    def __init__(self, keypoints: list[Keypoints], n_jobs: int | None, verbose: int) -> None:
        self.keypoints, self.n_jobs, self.verbose = keypoints, n_jobs, verbose

    def of(self, pairs: np.ndarray) -> np.ndarray:
        """Return the counts (n_pairs,) of pairs (n_pairs, 3): two rows, and if one is mirrored."""
        agreeing = np.zeros(len(pairs), np.intp)

        def compare(index: int) -> None:
            one, other, is_mirrored = pairs[index]
            second = self.keypoints[other]
            second = second.mirrored() if is_mirrored else second
            agreeing[index] = count_agreeing(self.keypoints[one], second)

        run_in_threads(compare, len(pairs), self.n_jobs, self.verbose, "Pairs")
        return agreeing


class _Seen:
    """Pictures, and what is kept of each.

    Attributes
    ----------
    keypoints : list of Keypoints
    digests : ndarray of shape (n_images,), bytes
        The same for pictures that are the same to the last byte.
    reasons : list of str
        Why a file is not read, else empty.
    """

    def __init__(self, paths: list[str] | None, arrays: list[np.ndarray] | None) -> None:
        self.paths, self.arrays = paths, arrays
        n_images = len(paths or arrays or [])
        self.keypoints = [Keypoints.none()] * n_images
        # Until a file is read, it is like no other.
        self.digests = np.array([f"{index:d}" for index in range(n_images)], f"S{2 * DIGEST_BYTES}")
        self.reasons = [""] * n_images

    def look(self, index: int) -> None:
        """Find the points of a picture."""
        if self.arrays is not None:
            image = self.arrays[index]
            data = repr(image.shape).encode() + image.tobytes()
            digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
        elif self.paths is not None:
            try:
                image, digest = read_image(self.paths[index])
            except ImageReadError as error:
                self.reasons[index] = str(error)
                return
        self.digests[index] = digest.hex()
        self.keypoints[index] = find_keypoints(image)
