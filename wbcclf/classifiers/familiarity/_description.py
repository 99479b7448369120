"""The description of the images that a classifier was trained on: how far others are from them.

An image is described by its style (network/_style.py), which tells what laboratory it is of, and by
16 numbers of what the head is given, which tell what it shows. Its distance is the sum of two
Mahalanobis distances (Lee et al. 2018, https://arxiv.org/abs/1807.03888), of parts that are taken
to be independent.

- Of the style, to the nearest group of training images. Groups are found by k-means and have a
  covariance of their own: one laboratory may have few images among those of another, and one normal
  distribution for all would either call these strange or hold everything between for familiar.
- Of the rest, to the mean of the class that is predicted, with one covariance for all classes, so
  that a batch of another mixture of classes is no further away.

Distances are compared with those of images from home that the network was not trained on, if `fit`
was given some. Else they are compared with those of every second training image, to the others.
Then the style alone counts: what the head is given lies closer together for images that the network
has learnt by heart than for new ones, whose distance would be taken for another laboratory.
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

from wbcclf._uncertainty import STRANGE

WIDTH = 16  # numbers of what the head is given
N_STYLE = 21  # numbers of the style
FEWEST = 50  # images to learn a description from, or to compare with
# Log-odds that one of strangeness takes from a certainty, where it was not learnt, and at most.
USUAL_WEIGHT = 2.0
CONFIDENCE = 0.95  # with which the bound of `rejection` holds
# Images that a mean or median of a class or group counts besides its own: of all images.
_PRIOR = 5
# Groups: so many at most, and so many images for each. Six or more kept apart three laboratories of
# which one had most of the images; more than ten gained nothing.
_MOST_GROUPS, _FEWEST_OF_GROUP = 10, 50
# Shares of the distances at home that are remembered, the 90th per cent among them.
LEVELS = np.linspace(0, 1, 101)
# Stranger images are as often wrong as these: a straight line through all would be too flat.
_FAR = 3.0
# What a certainty has to reach, in units of log-odds, from strict to lenient.
THRESHOLDS = np.arange(16, -8.01, -0.25)
NO_DESCRIPTION = (
    "The model keeps no description of its training images, so it cannot tell how familiar others "
    "are: it was saved by an older version, trained by partial_fit, or on fewer than "
    f"{FEWEST} images that are no copies. Call fit again, on more images."
)


# Logits (n, n_classes), features (n, WIDTH + N_STYLE) and class numbers (n,) of images.
Predicted = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Description:
    """What is remembered of training images, and of images that were validated on.

    Attributes
    ----------
    style_means : ndarray of shape (n_groups, N_STYLE), float32
    style_whitenings : ndarray of shape (n_groups, N_STYLE, N_STYLE), float32
        Make the covariance within a group the identity.
    style_volumes : ndarray of shape (n_groups,), float32
        Logarithm of the covariances' determinants: an image belongs to the group in which it is
        most probable, which is not the widest one.
    means : ndarray of shape (n_classes, WIDTH), float32
        Of what the head was given, of each predicted class.
    whitening : ndarray of shape (WIDTH, WIDTH), float32
        Makes its covariance within classes the identity; zeros if the style alone counts.
    centres : ndarray of shape (n_groups,), float32
        The median logarithm of the distances at home, of each group.
    distances : ndarray of shape (101,), float32
        Quantiles of the logarithms at home, less their group's median.
    weight : ndarray of shape (1,), float32
        Log-odds that one of strangeness takes from a certainty.
    calls : ndarray of shape (2, n_thresholds), int64
        For each of THRESHOLDS, how many validation images are as certain, and how many of these
        are wrong; zeros without validation images.
    """

    style_means: np.ndarray
    style_whitenings: np.ndarray
    style_volumes: np.ndarray
    means: np.ndarray
    whitening: np.ndarray
    centres: np.ndarray
    distances: np.ndarray
    weight: np.ndarray
    calls: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a model file holds of it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def spread(self) -> float:
        """From the median at home to the 90th per cent: the unit of strangeness."""
        middle, far = self.distances[[50, 90]].tolist()
        return max(far - middle, 1e-3)

    def strangeness(self, logits: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return how far images are from home (n,): 0 is the median there, 1 the 90th per cent."""
        distances, group = self._distances(logits, features)
        return (distances - self.centres[group]) / self.spread

    def _distances(self, logits: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the logarithm of the distances (n,), and the groups of the images (n,)."""
        top, style = np.split(features.astype(np.float64), [WIDTH], axis=1)
        to_groups = np.stack(
            [
                (((style - mean) @ whitening) ** 2).sum(1)
                for mean, whitening in zip(self.style_means, self.style_whitenings, strict=True)
            ],
            axis=1,
        )
        group = (to_groups + self.style_volumes).argmin(1)
        of_style = to_groups[np.arange(len(group)), group]
        of_top = (((top - self.means[logits.argmax(1)]) @ self.whitening) ** 2).sum(1)
        return np.log(of_style + of_top + 1e-12), group

    def familiarity(self, strangeness: np.ndarray) -> np.ndarray:
        """Return the share of images from home (n,) that look less familiar."""
        return 1 - np.interp(strangeness * self.spread, self.distances, LEVELS)

    def certainty(self, logits: np.ndarray, strangeness: np.ndarray) -> np.ndarray:
        """Return how certain predictions are (n,): log-odds, less for images that are strange."""
        ordered = np.sort(logits.astype(np.float64), axis=1)
        odds = ordered[:, -1] - logsumexp(ordered[:, :-1], axis=1)
        return odds - self.weight * _excess(strangeness)

    def is_called(
        self, certainty: np.ndarray, strangeness: np.ndarray, threshold: Any
    ) -> np.ndarray:
        """Return which images are certain enough, and no stranger than nearly all at home."""
        return (certainty >= threshold) & (self.familiarity(strangeness) >= STRANGE)

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
    n_classes: int,
    logits: np.ndarray,
    features: np.ndarray,
    validation: Predicted | None,
    elsewhere: Predicted | None = None,
) -> Description | None:
    """Return the description of images, None if they are too few.

    Parameters
    ----------
    n_classes : int
    logits : ndarray of shape (n, n_classes)
    features : ndarray of shape (n, WIDTH + N_STYLE)
    validation : tuple of (logits, features, class numbers) or None
        The same of images that were not trained on, and what they show.
    elsewhere : tuple of (logits, features, class numbers) or None
        The same of some of these, as other laboratories would show them.
    """
    if len(features) < FEWEST:
        return None
    top_counts = validation is not None and len(validation[0]) >= FEWEST
    if validation is not None and top_counts:
        compared = validation[:2]
    else:
        compared = logits[1::2], features[1::2]
        logits, features = logits[::2], features[::2]
    top, style = np.split(features.astype(np.float64), [WIDTH], axis=1)
    means, whitening = _classes(top, logits.argmax(1), n_classes)
    style_means, style_whitenings, style_volumes = _groups(style)
    parts = {
        "style_means": style_means,
        "style_whitenings": style_whitenings,
        "style_volumes": style_volumes,
        "means": means,
        "whitening": top_counts * whitening,
        "centres": np.zeros(len(style_means)),
        "distances": np.zeros(len(LEVELS)),
        "weight": np.array([USUAL_WEIGHT]),
    }
    description = Description(
        **{name: array.astype(np.float32) for name, array in parts.items()},
        calls=np.zeros((2, len(THRESHOLDS)), np.int64),
    )
    distances, group = description._distances(*compared)
    description.centres[:] = _medians(distances, group, len(style_means))
    description.distances[:] = np.quantile(distances - description.centres[group], LEVELS)
    if validation is not None and elsewhere is not None:
        description.weight[:] = _weight_of_strangeness(description, validation, elsewhere)
    if validation is not None:
        logits, features, target = validation
        strangeness = description.strangeness(logits, features)
        certainty = description.certainty(logits, strangeness)
        is_called = description.is_called(certainty, strangeness, THRESHOLDS[:, None])
        is_wrong = logits.argmax(1) != target
        description.calls[:] = is_called.sum(1), (is_called & is_wrong).sum(1)
    return description


def _excess(strangeness: np.ndarray) -> np.ndarray:
    """Return by how much images (n,) are stranger than nine in ten at home."""
    return np.maximum(strangeness - 1, 0)


def _weight_of_strangeness(
    description: Description, validation: Predicted, elsewhere: Predicted
) -> float:
    """Return how many log-odds one of strangeness is worth.

    A network that was shown many stains and lenses is hardly more often wrong on strange images; of
    one that was not, half the predictions may be. So it is learnt, by a logistic regression of what
    is right on log-odds and strangeness.
    """
    from sklearn.linear_model import LogisticRegression  # imported late: it takes a while

    columns, is_right = [], []
    for logits, features, target in (validation, elsewhere):
        excess = np.minimum(_excess(description.strangeness(logits, features)), _FAR)
        odds = description.certainty(logits, np.zeros(len(logits)))
        columns.append(np.stack([odds, -excess], axis=1))
        is_right.append(logits.argmax(1) == target)
    X, y = np.concatenate(columns), np.concatenate(is_right)
    if y.all() or not y.any():
        return USUAL_WEIGHT
    of_odds, of_excess = LogisticRegression(max_iter=1000).fit(X, y).coef_[0]
    if of_odds <= 0:
        return USUAL_WEIGHT
    return float(np.clip(of_excess / of_odds, 0, USUAL_WEIGHT))


def _medians(values: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    """Return the median of each group, drawn towards that of all."""
    overall = np.median(values)
    counts = np.bincount(group, minlength=n_groups)
    own = [np.median(values[group == number]) if n else overall for number, n in enumerate(counts)]
    return (counts * np.array(own) + _PRIOR * overall) / (counts + _PRIOR)


def _classes(
    top: np.ndarray, predicted: np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of the classes and the whitening matrix of what is left within them."""
    sums = np.zeros((n_classes, top.shape[1]))
    np.add.at(sums, predicted, top)
    counts = np.bincount(predicted, minlength=n_classes)[:, None]
    means = (sums + _PRIOR * top.mean(0)) / (counts + _PRIOR)
    return means, _whitening(top - means[predicted])


def _groups(style: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return means, whitening matrices and volumes of groups of images of like style."""
    from sklearn.cluster import KMeans  # imported late: it takes a while

    n_groups = max(1, min(_MOST_GROUPS, len(style) // _FEWEST_OF_GROUP))
    overall = style - style.mean(0)
    kmeans = KMeans(n_groups, n_init=4, random_state=0)
    group = kmeans.fit_predict(overall @ _whitening(overall)) if n_groups > 1 else 0 * style[:, 0]
    members = [style[group == number] for number in np.unique(group)]  # none if all are the same
    rests = [each - each.mean(0) for each in members]
    within = _whitening(np.concatenate(rests))
    whitenings, volumes = [], []
    for rest in rests:
        # A small group has a covariance near that within all groups (inverse Wishart).
        whitened, unit = rest @ within, np.eye(N_STYLE)
        covariance = (whitened.T @ whitened + N_STYLE * unit) / (len(rest) + N_STYLE)
        whitenings.append(within @ np.linalg.inv(np.linalg.cholesky(covariance)).T)
        volumes.append(np.linalg.slogdet(covariance)[1])
    means = [each.mean(0) for each in members]
    return np.array(means), np.array(whitenings), np.array(volumes)


def _whitening(rest: np.ndarray) -> np.ndarray:
    """Return the matrix that makes the covariance of rows, whose mean is 0, the identity."""
    from sklearn.covariance import ledoit_wolf  # imported late: it takes a while

    scale = np.sqrt((rest**2).mean(0))
    scale = np.maximum(scale, 1e-6 * max(scale.max(), 1.0))  # of a column that is always the same
    covariance, _ = ledoit_wolf(rest / scale, assume_centered=True)
    covariance += 1e-6 * np.eye(len(covariance))
    return np.linalg.inv(np.linalg.cholesky(covariance)).T / scale[:, None]


def restored(arrays: Mapping[str, np.ndarray], n_classes: int) -> Description:
    """Return a description from the arrays of a file.

    Raises
    ------
    ValueError, KeyError
        If they are anything that :func:`describe` does not make.
    """
    # Model files of format 5 and less.
    arrays = {"weight": np.array([USUAL_WEIGHT], dtype=np.float32), **arrays}
    n_groups = len(arrays["style_means"])
    layout: dict[str, tuple[tuple[int, ...], Any]] = {
        "style_means": ((n_groups, N_STYLE), np.float32),
        "style_whitenings": ((n_groups, N_STYLE, N_STYLE), np.float32),
        "style_volumes": ((n_groups,), np.float32),
        "means": ((n_classes, WIDTH), np.float32),
        "whitening": ((WIDTH, WIDTH), np.float32),
        "centres": ((n_groups,), np.float32),
        "distances": (LEVELS.shape, np.float32),
        "weight": ((1,), np.float32),
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
        "style_means": 1 <= n_groups <= _MOST_GROUPS,
        "distances": (np.diff(arrays["distances"]) >= 0).all(),
        "weight": 0 <= arrays["weight"][0] <= USUAL_WEIGHT,
        "calls": (0 <= wrong).all() and (wrong <= called).all() and (np.diff(called) >= 0).all(),
    }
    for name, is_consistent in consistent.items():
        if not is_consistent:
            raise ValueError(f"description/{name} cannot have been learnt")
    return Description(**arrays)
