"""The description of the images that a classifier was trained on: how far others are from them.

An image is described by 32 numbers that its prediction computes anyway: 16 of the style of a low
block (mean and spread of every channel), which stain, light, scale and focus change, and 16 of what
the head is given. Its distance is the Mahalanobis distance to the mean of the class that is
predicted, with one covariance for all classes (Lee et al. 2018, https://arxiv.org/abs/1807.03888),
so that a batch of another mixture of classes is no further away.

Distances are compared with those of images from home that the network was not trained on, if `fit`
was given some. Else they are compared with those of training images, to means and covariance of the
others. Then the style alone counts: what the head is given lies closer together for images that the
network has learnt by heart than for new ones, whose distance would be taken for another laboratory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import beta

WIDTH = 16  # numbers of each of the two parts
FEWEST = 50  # images to learn a description from, or to compare with
# With so many images or more, a mean familiarity below the limit is no accident: of images from
# home it is 0.5, of other laboratories 0.00 to 0.03 was measured, 0.18 at most with pictures in
# one stain, which often does not warn (docs/familiarity.md). What lies between may be home:
# new cells, if several pictures of each cell were trained on, or one of several laboratories.
FEWEST_TESTED = 20
LEAST_FAMILIAR = 0.1
# Fewer images from home than this share are as far away: whatever the network says of such an image
# is not called.
STRANGE = 0.01
CONFIDENCE = 0.95  # with which the bound of `rejection` holds
# Images that a class's mean, or its median distance, counts besides its own: of all classes.
_PRIOR = 5
# Shares of the distances at home that are remembered, the 90th per cent among them.
_LEVELS = np.linspace(0, 1, 101)
# What a certainty has to reach, in units of log-odds, from strict to lenient.
THRESHOLDS = np.arange(16, -8.01, -0.25)
NO_DESCRIPTION = (
    "The model keeps no description of its training images, so it cannot tell how familiar others "
    "are: it was saved by an older version, trained by partial_fit, or on fewer than "
    f"{FEWEST} images that are no copies. Call fit again, on more images."
)


@dataclass(frozen=True, eq=False)
class Description:
    """What is remembered of training images, and of images that were validated on.

    Attributes
    ----------
    tap : ndarray of shape (1,), int64
        Number of the network's stages below the first part of the features.
    means : ndarray of shape (n_classes, n_used), float32
        Of the features of each predicted class: of both parts, or of the style alone.
    whitening : ndarray of shape (n_used, n_used), float32
        Makes the features' covariance within classes the identity.
    centres : ndarray of shape (n_classes,), float32
        The median logarithm of the distances at home, of each predicted class.
    distances : ndarray of shape (101,), float32
        Quantiles of the logarithms at home, less their class's median.
    calls : ndarray of shape (2, n_thresholds), int64
        For each of THRESHOLDS, how many validation images are as certain, and how many of these
        are wrong; zeros without validation images.
    """

    tap: np.ndarray
    means: np.ndarray
    whitening: np.ndarray
    centres: np.ndarray
    distances: np.ndarray
    calls: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a model file holds of it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _spread(self) -> float:
        """From the median at home to the 90th per cent: the unit of strangeness."""
        middle, far = self.distances[[50, 90]].tolist()
        return max(far - middle, 1e-3)

    def strangeness(self, logits: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return how far images are from home (n,): 0 is the median there, 1 the 90th per cent."""
        predicted = logits.argmax(1)
        distances = _log_distances(features, predicted, self.means, self.whitening)
        return (distances - self.centres[predicted]) / self._spread

    def familiarity(self, strangeness: np.ndarray) -> np.ndarray:
        """Return the share of images from home (n,) that look less familiar."""
        return 1 - np.interp(strangeness * self._spread, self.distances, _LEVELS)

    def certainty(self, logits: np.ndarray, strangeness: np.ndarray) -> np.ndarray:
        """Return how certain predictions are (n,): log-odds, lowered for images that are strange.

        Minus infinity for an image that is stranger than all but a hundredth of those at home.
        """
        ordered = np.sort(logits.astype(np.float64), axis=1)
        odds = ordered[:, -1] - logsumexp(ordered[:, :-1], axis=1)
        certainty = odds - 4 * np.maximum(strangeness - 1, 0)
        return np.where(self.familiarity(strangeness) < STRANGE, -np.inf, certainty)

    def threshold(self, share: float) -> float:
        """Return the least certainty of a call, so that at most a share of the calls is wrong.

        The bound holds with a confidence of 95% for images like those that were validated on, if
        more certain predictions are not wrong more often. Thresholds are tried from strict to
        lenient until the upper bound of Clopper and Pearson (1934,
        https://doi.org/10.1093/biomet/26.4.404) exceeds the share: fixed sequence testing
        (Angelopoulos et al. 2021, https://arxiv.org/abs/2110.01052), which pays nothing for trying
        many. The first one calls a quarter of the images, so that one error among the surest does
        not end it.

        Raises
        ------
        ValueError
            If there are too few validation images, or too many errors among the surest of them.
        """
        fewest = fewest_calls(share)
        most = int(self.calls[0].max())
        if most < fewest:
            raise ValueError(too_few_for(share, most))
        found = None
        for threshold, called, wrong in zip(THRESHOLDS, *self.calls.tolist(), strict=True):
            if called < max(fewest, most // 4):
                continue
            if wrong == called or beta.ppf(CONFIDENCE, wrong + 1, called - wrong) > share:
                break
            found = float(threshold)
        if found is None:
            raise ValueError(
                f"rejection={share:g} cannot be kept: even among the surest of the {most} "
                "validation images too many are wrong. Give a larger rejection, train longer, or "
                "validate on more images."
            )
        return found


def fewest_calls(share: float) -> int:
    """Return how many calls, all of them right, show that at most a share of calls is wrong."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - share))


def too_few_for(share: float, n_images: int) -> str:
    """Return what an error says where validation images are too few for a bound."""
    return (
        f"rejection={share:g} needs at least {fewest_calls(share)} validation images to tell how "
        f"often the network is wrong, not {n_images}. Fit with X_val and y_val, or with "
        "early_stopping=True, on more images, or give a larger rejection."
    )


def describe(
    tap: int,
    n_classes: int,
    logits: np.ndarray,
    features: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
) -> Description | None:
    """Return the description of images, None if they are too few.

    Parameters
    ----------
    tap, n_classes : int
    logits : ndarray of shape (n, n_classes)
    features : ndarray of shape (n, 2 * WIDTH)
    validation : tuple of (logits, features, class numbers) or None
        The same of images that were not trained on, and what they show.
    """
    if len(features) < FEWEST:
        return None
    predicted = logits.argmax(1)
    if validation is not None and len(validation[0]) >= FEWEST:
        means, whitening = _home(features, predicted, n_classes)
        compared = validation[0].argmax(1)
        distances = _log_distances(validation[1], compared, means, whitening)
    else:
        features = features[:, :WIDTH]
        means, whitening = _home(features, predicted, n_classes)
        compared = predicted
        distances = np.empty(len(features))
        halves = np.arange(len(features)) % 2
        for half in (0, 1):
            # Not to means and covariance that were learnt from the images themselves.
            own, other = halves == half, halves != half
            home = _home(features[other], predicted[other], n_classes)
            distances[own] = _log_distances(features[own], predicted[own], *home)
    overall = np.median(distances)
    counts = np.bincount(compared, minlength=n_classes)
    medians = [
        np.median(distances[compared == number]) if count else overall
        for number, count in enumerate(counts)
    ]
    centres = (counts * medians + _PRIOR * overall) / (counts + _PRIOR)
    description = Description(
        tap=np.array([tap]),
        means=means.astype(np.float32),
        whitening=whitening.astype(np.float32),
        centres=centres.astype(np.float32),
        distances=np.quantile(distances - centres[compared], _LEVELS).astype(np.float32),
        calls=np.zeros((2, len(THRESHOLDS)), np.int64),
    )
    if validation is not None:
        logits, features, target = validation
        certainty = description.certainty(logits, description.strangeness(logits, features))
        is_called = certainty >= THRESHOLDS[:, None]
        is_wrong = logits.argmax(1) != target
        description.calls[:] = is_called.sum(1), (is_called & is_wrong).sum(1)
    return description


def _home(
    features: np.ndarray, predicted: np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of the classes and the whitening matrix of what is left within them."""
    from sklearn.covariance import ledoit_wolf  # imported late: it takes a while

    features = features.astype(np.float64)
    overall = features.mean(0)
    sums = np.zeros((n_classes, features.shape[1]))
    np.add.at(sums, predicted, features)
    counts = np.bincount(predicted, minlength=n_classes)[:, None]
    means = (sums + _PRIOR * overall) / (counts + _PRIOR)
    rest = features - means[predicted]
    scale = np.sqrt((rest**2).mean(0))
    scale = np.maximum(scale, 1e-6 * max(scale.max(), 1.0))  # of a channel that is always the same
    covariance, _ = ledoit_wolf(rest / scale, assume_centered=True)
    covariance += 1e-6 * np.eye(len(covariance))
    return means, np.linalg.inv(np.linalg.cholesky(covariance)).T / scale[:, None]


def _log_distances(
    features: np.ndarray, predicted: np.ndarray, means: np.ndarray, whitening: np.ndarray
) -> np.ndarray:
    rest = features[:, : len(whitening)].astype(np.float64) - means[predicted]
    rest = rest @ whitening
    return np.log((rest**2).sum(1) + 1e-12)


def restored(arrays: Mapping[str, np.ndarray], n_classes: int, n_stages: int) -> Description:
    """Return a description from the arrays of a file.

    Raises
    ------
    ValueError, KeyError
        If they are anything that :func:`describe` does not make.
    """
    width = WIDTH if len(arrays["whitening"]) == WIDTH else 2 * WIDTH
    layout: dict[str, tuple[tuple[int, ...], Any]] = {
        "tap": ((1,), np.int64),
        "means": ((n_classes, width), np.float32),
        "whitening": ((width, width), np.float32),
        "centres": ((n_classes,), np.float32),
        "distances": (_LEVELS.shape, np.float32),
        "calls": ((2, len(THRESHOLDS)), np.int64),
    }
    if arrays.keys() != layout.keys():
        raise ValueError(f"a description of {', '.join(arrays)}")
    for name, (shape, dtype) in layout.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != dtype or not np.isfinite(array).all():
            raise ValueError(f"description/{name} cannot have been learnt")
    called, wrong = arrays["calls"]
    consistent = {
        "tap": 0 <= arrays["tap"][0] <= n_stages,
        "distances": (np.diff(arrays["distances"]) >= 0).all(),
        "calls": (0 <= wrong).all() and (wrong <= called).all() and (np.diff(called) >= 0).all(),
    }
    for name, is_consistent in consistent.items():
        if not is_consistent:
            raise ValueError(f"description/{name} cannot have been learnt")
    return Description(**arrays)
