"""The learning-rate range test: which learning rate a classifier can take."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils import Bunch

from wbcclf.classifiers import CNNClassifier, GradualUnfreezing
from wbcclf.inspection._drawing import check_axes, get_axes


def find_learning_rate(
    classifier: CNNClassifier,
    X: Any,
    y: Any,
    *,
    lowest: float = 1e-6,
    highest: float = 1.0,
    n_steps: int = 100,
) -> Bunch:
    """Train for a few steps at a growing learning rate, and record the loss.

    If the rate is too low, nothing changes; a good rate lowers the loss; if the rate is too high,
    the loss rises (Smith 2015, https://arxiv.org/abs/1506.01186). The classifier itself is not
    changed: a clone is trained, and stops when its loss has grown to four times its lowest.

    Parameters
    ----------
    classifier : CNNClassifier
        Its own learning rate, schedule, early stopping and averaging have no effect.
    X, y : array-like
        Images and labels, as for its `fit`.
    lowest : float, default=1e-6
        The first rate; every step multiplies it by the same factor.
    highest : float, default=1.0
        The last one.
    n_steps : int, default=100
        Training batches, passes over `X` as needed.

    Returns
    -------
    Bunch
        With the attributes

        learning_rates : ndarray of shape (n_done,)
        losses : ndarray of shape (n_done,)
            Of each batch, smoothed over about ten steps.
        suggestion : float
            A tenth of the rate at the lowest loss: the loss still falls there, far from where it
            rises. Use it as the peak of a schedule such as ``"onecycle"``, or as a constant rate.
            If it is `lowest`, the loss never fell: look at `losses`.

    Raises
    ------
    TypeError
        If `classifier` is not a CNNClassifier, such as a pipeline or a search.
    ValueError
        If the range is empty or `n_steps` is under 10.

    Examples
    --------
    >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
    >>> from wbcclf.inspection import find_learning_rate
    >>> cells = make_blood_cells(60, classes=2, image_size=32, random_state=0)
    >>> clf = SimpleCNNClassifier(device="cpu", random_state=0)
    >>> result = find_learning_rate(clf, cells.images, cells.target, n_steps=40)
    >>> 1e-4 < result.suggestion < 1e-1
    True
    """
    if not isinstance(classifier, CNNClassifier):
        raise TypeError(
            f"classifier must be a CNNClassifier, got {type(classifier).__name__}. From a "
            "pipeline, give the last step, pipeline[-1], and the images that reach it; from a "
            "search, best_estimator_."
        )
    is_range = isinstance(lowest, Real) and isinstance(highest, Real)
    if not (is_range and 0 < lowest < highest < math.inf):
        raise ValueError(
            f"lowest={lowest!r} and highest={highest!r} must be 0 < lowest < highest, finite."
        )
    if not isinstance(n_steps, Integral) or n_steps < 10:
        raise ValueError(
            f"n_steps={n_steps!r} must be a whole number of 10 or more: fewer steps show nothing."
        )
    unfrozen = classifier.unfrozen_layers
    if isinstance(unfrozen, GradualUnfreezing):
        unfrozen = unfrozen.layers
    test = _range_test(np.geomspace(lowest, highest, n_steps))
    trial = clone(classifier).set_params(
        lr=lowest,
        max_steps=n_steps,
        lr_schedule="constant",
        unfrozen_layers=unfrozen,
        early_stopping=False,
        averaging=False,
        cache_gb=0,  # most images are seen once at most
        checkpoint_dir=None,
        callbacks=[*(classifier.callbacks or ()), ("range_test", test)],
        warm_start=False,
        verbose=0,
    )
    try:
        trial.fit(X, y)
    except StopIteration:
        pass
    losses = np.array(test.losses)
    lowest_at = int(losses.argmin())
    return Bunch(
        learning_rates=test.rates[: len(losses)],
        losses=losses,
        suggestion=max(lowest, float(test.rates[lowest_at] / 10)),
    )


def _range_test(rates: np.ndarray) -> Any:
    """Return a skorch callback that goes through `rates` and keeps the smoothed losses."""
    from skorch.callbacks import Callback

    class RangeTest(Callback):
        def __init__(self):
            self.rates = rates
            self.losses: list[float] = []

        def on_train_begin(self, net, X=None, y=None, **kwargs):
            # layer_lr_decay gives blocks different rates: their proportions are kept.
            self.shares = [group["lr"] / net.lr for group in net.optimizer_.param_groups]
            self.mean = 0.0

        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            rate = self.rates[len(self.losses)]
            for group, share in zip(net.optimizer_.param_groups, self.shares, strict=True):
                group["lr"] = rate * share

        def on_batch_end(self, net, batch=None, training=False, **kwargs):
            loss = net.history[-1, "batches", -1, "train_loss"]
            self.mean = 0.9 * self.mean + 0.1 * loss
            # A mean that starts from nothing has collected this much weight.
            smooth = self.mean / (1 - 0.9 ** (len(self.losses) + 1))
            if not math.isfinite(smooth) or smooth > 4 * min(self.losses, default=math.inf):
                raise StopIteration
            self.losses.append(smooth)
            if len(self.losses) == len(self.rates):
                raise StopIteration

    return RangeTest()


class LearningRateDisplay:
    """Training loss over a growing learning rate, with the suggested one.

    Create and use it like scikit-learn's displays. ``display.figure_.savefig("rates.png")`` writes
    a file.

    Parameters
    ----------
    result : Bunch
        What :func:`find_learning_rate` returned.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
    >>> from wbcclf.inspection import LearningRateDisplay
    >>> cells = make_blood_cells(60, classes=2, image_size=32, random_state=0)
    >>> clf = SimpleCNNClassifier(device="cpu", random_state=0)
    >>> display = LearningRateDisplay.from_estimator(clf, cells.images, cells.target, n_steps=20)
    >>> display.ax_.get_xlabel()
    'learning rate'
    >>> plt.close(display.figure_)
    """

    def __init__(self, result: Bunch) -> None:
        self.result = result

    def plot(self, *, ax: Any = None) -> LearningRateDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            None makes a pyplot figure.

        Returns
        -------
        LearningRateDisplay
            The display itself, with ``ax_`` and ``figure_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed; the message says how to install it.
        TypeError
            If `ax` is neither axes nor None.
        """
        ax = get_axes(ax, (6, 4))
        ax.plot(self.result.learning_rates, self.result.losses)
        ax.axvline(self.result.suggestion, linestyle="--", color="grey")
        ax.set(
            xscale="log",
            xlabel="learning rate",
            ylabel="smoothed training loss",
            title=f"suggestion: {self.result.suggestion:.1e}",
        )
        self.ax_, self.figure_ = ax, ax.get_figure(root=True)
        return self

    @classmethod
    def from_estimator(
        cls, classifier: CNNClassifier, X: Any, y: Any, *, ax: Any = None, **options: Any
    ) -> LearningRateDisplay:
        """Run the range test and draw it.

        Parameters
        ----------
        classifier, X, y
            As for :func:`find_learning_rate`.
        ax : matplotlib Axes or None, default=None
            As in :meth:`plot`.
        **options
            `lowest`, `highest` and `n_steps` of :func:`find_learning_rate`.

        Returns
        -------
        LearningRateDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed; the message says how to install it.
        TypeError, ValueError
            As by :func:`find_learning_rate`, or if `ax` is neither axes nor None.
        """
        check_axes(ax)
        return cls(find_learning_rate(classifier, X, y, **options)).plot(ax=ax)
