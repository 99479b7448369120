"""Which pictures may show the same cell: those whose descriptions add up to nearly the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

from wbcclf.model_selection.groups._keypoints import MIRRORED, Keypoints, roots

N_NUMBERS = 32  # of a description, after PCA
N_WORDS = 64
N_SUMMARY = 128  # numbers of a picture, after PCA
N_SAMPLE = 50_000  # descriptions that words are learned from
N_PICTURES = 4_000  # pictures that the last PCA is learned from
N_NEAREST = 12  # candidates of a picture as it is, and as many of it mirrored
BLOCK = 1024  # pictures that are compared with all at a time


class Candidates:
    """Which pictures look alike.

    Each picture becomes a vector of locally aggregated descriptors (VLAD; Jégou et al. 2010,
    https://doi.org/10.1109/CVPR.2010.5540039): for every word, what the descriptions nearest to it
    differ from it on average.
    """

    def __init__(self, pictures: Sequence[Keypoints], random_state: np.random.RandomState) -> None:
        self.summaries, self.mirrored = summarise(pictures, random_state)
        self.rows = np.flatnonzero([len(picture.points) > 0 for picture in pictures])

    def find(self, groups: np.ndarray) -> np.ndarray:
        """Return for every picture those of other groups that look most like it.

        All are looked through: for tens of thousands of pictures products of matrices take less
        time than the points did.

        Parameters
        ----------
        groups : ndarray of shape (n_pictures,), int

        Returns
        -------
        ndarray of shape (n_pairs, 3), int
            Rows of both pictures, the lower first, and 1 if one of them is mirrored. Sorted.
        """
        rows, n_pictures = self.rows, len(groups)
        n_nearest = min(N_NEAREST, len(rows) - 1)
        keys = [np.empty(0, np.intp)]
        for start in range(0, len(rows) if n_nearest > 0 else 0, BLOCK):
            asked = rows[start : start + BLOCK]
            is_own = groups[asked][:, None] == groups[rows]
            for flag, others in ((0, self.summaries), (1, self.mirrored)):
                likeness = self.summaries[asked] @ others[rows].T
                likeness[is_own] = -np.inf
                nearest = np.argpartition(-likeness, n_nearest - 1, axis=1)[:, :n_nearest]
                is_other = ~np.take_along_axis(is_own, nearest, axis=1).ravel()
                one, other = np.repeat(asked, n_nearest)[is_other], rows[nearest.ravel()[is_other]]
                # One number for each pair, so that equal ones are found fast.
                low, high = np.minimum(one, other), np.maximum(one, other)
                keys.append((low * n_pictures + high) * 2 + flag)
        pairs, is_mirrored = np.divmod(np.unique(np.concatenate(keys)), 2)
        return np.column_stack([*np.divmod(pairs, n_pictures), is_mirrored])


def summarise(
    pictures: Sequence[Keypoints], random_state: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors (n_pictures, n) of length 1, float32, of the pictures and mirrored ones."""
    counts = np.array([len(picture.points) for picture in pictures])
    share = min(1.0, N_SAMPLE / max(1, counts.sum()))
    sample = [
        picture.descriptions[random_state.uniform(size=count) < share]
        for picture, count in zip(pictures, counts, strict=True)
    ]
    learned = roots(np.concatenate(sample))
    # Words are to be the same in both, so they are learned from both.
    learned = np.concatenate([learned, learned[:, MIRRORED]])
    if len(learned) < 2 * N_WORDS:  # a handful of points in all: all are compared
        flat = np.zeros((len(pictures), 1), np.float32)
        return flat, flat
    numbers = PCA(N_NUMBERS, random_state=random_state).fit(learned)
    words = MiniBatchKMeans(N_WORDS, n_init=1, random_state=random_state)
    centres = words.fit(numbers.transform(learned)).cluster_centers_.astype(np.float32)

    def summary(descriptions: np.ndarray) -> np.ndarray:
        added = np.zeros_like(centres)
        if len(descriptions):
            x = numbers.transform(roots(descriptions))
            nearest = (x @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1)
            np.add.at(added, nearest, x - centres[nearest])
        return _of_length_one(added).ravel()

    each = np.stack([summary(picture.descriptions) for picture in pictures])
    mirrored = np.stack([summary(picture.descriptions[:, MIRRORED]) for picture in pictures])
    rows = random_state.permutation(len(each))[:N_PICTURES]
    both = np.concatenate([each[rows], mirrored[rows]])
    smaller = PCA(min(N_SUMMARY, *both.shape), random_state=random_state).fit(both)
    return _of_length_one(smaller.transform(each)), _of_length_one(smaller.transform(mirrored))


def _of_length_one(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
