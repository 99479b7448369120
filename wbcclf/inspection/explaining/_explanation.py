"""`Explanation`: maps with the pictures that they are of, and what they are worth."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from sklearn.utils import Bunch

from wbcclf.inspection._drawing import check_axes
from wbcclf.inspection._frames import import_pandas
from wbcclf.inspection.explaining._scores import FEWEST, beside_the_cell
from wbcclf.inspection.pages._html import picture_source

OPACITY = 0.7  # of a map where it is 1
N_SHOWN = 6  # pictures in a notebook
SCORES = (
    "inside",
    "occlusion_inside",
    "cell_share",
    "randomisation",
    "randomisation_by_chance",
    "agreement",
    "agreement_by_chance",
    "drop",
)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What :func:`explain` returns: maps, and how far they can be believed.

    Attributes
    ----------
    images : ndarray of shape (n_samples, height, width, 3), uint8
        The pictures as the network saw them: after loader and cropper.
    maps : ndarray of shape (n_samples, height, width), float32
        0 or more; each has a maximum of 1, or is 0 everywhere if nothing speaks for the class.
    target, predicted : ndarray of shape (n_samples,)
        The class that is explained, and the most probable one.
    probability : ndarray of shape (n_samples,), float32
        Of `target`.
    drop : ndarray of shape (n_samples,), float32
        By how much the probability of `target` falls when the patch is covered that matters most:
        one of 7 x 7, in the mean colour of the picture's border.
    method : {"gradcam", "gradcam++", "occlusion"}
    block : str or None
        Where the gradients are of; None of occlusion.
    randomisation : ndarray of shape (n_samples,), float in [0, 1]
        How much the map is like those of three networks with random weights: the mean of the
        absolute value of Spearman's correlation. Compare it with `randomisation_by_chance`. Well
        above, the map shows the picture rather than what was learnt [1]_. NaN without a map.
    randomisation_by_chance : ndarray of shape (n_samples,), float in [0, 1]
        The same with random networks' maps of another picture. It is not 0: maps are coarse and
        smooth, and both may prefer the middle. NaN for a single picture.
    inside : ndarray of shape (n_samples,), float in [0, 1]
        Share of the map's mass on the white cell, the one nearest the centre. NaN where
        :func:`wbcclf.find_cells` finds none, or without a map.
    occlusion_inside : ndarray of shape (n_samples,), float in [0, 1]
        The same of the map that occlusion gives.
    cell_share : ndarray of shape (n_samples,), float in (0, 1]
        Share of the picture that this cell covers: what `inside` of an even map would be.
    agreement : ndarray of shape (n_samples,), float in [-1, 1]
        Spearman's correlation with what occlusion shows, at its 7 x 7 patches. NaN of occlusion
        itself.
    agreement_by_chance : ndarray of shape (n_samples,), float in [-1, 1]
        The same with what occlusion shows of another picture.
    paths : list of str or None
        The files, if files were given.

    Notes
    -----
    `warning` compares `occlusion_inside`, and then `inside`, with `cell_share`, picture by picture:
    by Wilcoxon's signed-rank test, one-sided at 5%. Each class that is explained in 10 pictures or
    more is tested, since a network may go by a mark of one class alone; if there is none, all
    pictures together. The test takes every picture for another cell. It says nothing of how much of
    the map is on the cell.

    References
    ----------
    .. [1] J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
       https://arxiv.org/abs/1810.03292

    Examples
    --------
    >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
    >>> from wbcclf.inspection import explain
    >>> cells = make_blood_cells(40, classes=2, image_size=64, random_state=0)
    >>> clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    >>> explain(clf.fit(cells.images, cells.target), cells.images[:3])
    Explanation(3 pictures, method='gradcam', block='conv4')
    """

    images: np.ndarray
    maps: np.ndarray
    target: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    drop: np.ndarray
    method: str
    block: str | None
    randomisation: np.ndarray
    randomisation_by_chance: np.ndarray
    inside: np.ndarray
    occlusion_inside: np.ndarray
    cell_share: np.ndarray
    agreement: np.ndarray
    agreement_by_chance: np.ndarray
    paths: list[str] | None

    @property
    def warning(self) -> str | None:
        """What is wrong, or None.

        The network may look at the background if what occlusion shows is not clearly more on the
        white cell than an even map would be. If only the maps are not, they are not to be trusted.
        Fewer than 10 pictures with a cell are too few to tell.
        """
        found = beside_the_cell(self.occlusion_inside, self.cell_share, self.target)
        if found:
            return (
                "The network may look at the background. Of what occlusion shows, in pictures "
                f"{found}. Look at the maps for what it goes by instead, such as a mark or the "
                "light of one class."
            )
        found = beside_the_cell(self.inside, self.cell_share, self.target)
        if found:
            return (
                f"Do not trust these maps: occlusion shows that the network goes by the cell, but "
                f"of the mass of the {self.method} maps, in pictures {found}. Use "
                "method='occlusion', or another block."
            )
        return None

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Explanation({len(self)} pictures, method={self.method!r}, block={self.block!r})"

    def names(self) -> list[str]:
        """Return what the pictures are called: their files, or their places in the batch."""
        return self.paths or [f"images[{row}]" for row in range(len(self))]

    def overlay(self, row: int) -> np.ndarray:
        """Return a picture with its map over it, transparent where the map is low.

        Parameters
        ----------
        row : int

        Returns
        -------
        ndarray of shape (height, width, 3), uint8
            The colours are those of "inferno", from dark to yellow: even steps look even, also to
            the colour-blind.
        """
        strength = self.maps[row][..., None]
        levels = np.rint(255 * self.maps[row]).astype(np.uint8)
        colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
        mixed = self.images[row] * (1 - OPACITY * strength) + colours * (OPACITY * strength)
        return np.rint(mixed).astype(np.uint8)

    def plot(self, rows: Sequence[int] | None = None) -> Any:
        """Draw pictures, and below each of them its map, the class and the scores.

        Parameters
        ----------
        rows : sequence of int or None, default=None
            The pictures; None is the first six.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        check_axes(None)
        import matplotlib.pyplot as plt

        shown = range(min(N_SHOWN, len(self))) if rows is None else rows
        figure, axes = plt.subplots(
            2, len(shown), figsize=(2.2 * len(shown), 4.8), squeeze=False, layout="constrained"
        )
        for (above, below), row in zip(axes.T, shown, strict=True):
            above.imshow(self.images[row])
            below.imshow(self.overlay(row))
            above.set_title(self.caption(row), fontsize=8, parse_math=False)
            below.set_title(self.figures(row).replace(", ", "\n"), fontsize=8)
            for each in (above, below):
                each.set_axis_off()
        return figure

    def caption(self, row: int) -> str:
        """Return the class that a map is of, its probability, and the predicted one if another."""
        text = f"{self.target[row]} {self.probability[row]:.2f}"
        if self.target[row] != self.predicted[row]:
            text += f" (predicted: {self.predicted[row]})"
        return text

    def figures(self, row: int) -> str:
        """Return the scores of a map in a few words."""
        parts = []
        if np.isfinite(self.inside[row]):
            parts.append(f"on cell {self.inside[row]:.0%} (cell {self.cell_share[row]:.0%})")
        parts.append(f"random {self.randomisation[row]:.2f}")
        if self.method != "occlusion":
            parts.append(f"agreement {self.agreement[row]:.2f}")
        return ", ".join(parts)

    def answer(self) -> str:
        """Return whether the network looks at the cells, in a sentence or two."""
        known = np.isfinite(self.occlusion_inside)
        if self.warning:
            return self.warning
        if not known.any():
            return "No white cell was found: whether the network looks at one is not known."
        shares = (
            f"{self.occlusion_inside[known].mean():.0%} of what occlusion shows is on the cell, "
            f"which covers {self.cell_share[known].mean():.0%} of the picture"
        )
        if known.sum() < FEWEST:
            return f"Too few pictures to tell ({known.sum()} with a cell): {shares}."
        return (
            f"The network goes more by the cell than by what is around it: {shares} "
            f"({known.sum()} pictures with a cell)."
        )

    def by_class(self) -> list[Bunch]:
        """Return the means of the scores over the pictures of each predicted class, and over all.

        Returns
        -------
        list of Bunch
            With `label` (None for all), `n_images`, and the mean of each score over the pictures
            that have it, else NaN.
        """
        kinds = [(label, self.predicted == label) for label in np.unique(self.predicted)]
        return [
            Bunch(label=label, n_images=int(rows.sum()), **self._means(rows))
            for label, rows in [*kinds, (None, np.ones(len(self), bool))]
        ]

    def _means(self, rows: np.ndarray) -> dict[str, float]:
        known = {name: getattr(self, name)[rows] for name in SCORES}
        known = {name: values[np.isfinite(values)] for name, values in known.items()}
        return {name: float(each.mean()) if each.size else np.nan for name, each in known.items()}

    def to_frame(self) -> Any:
        """Return a data frame with a row for each picture: name, classes, probability and scores.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pd = import_pandas()
        columns = ("target", "predicted", "probability", *SCORES)
        return pd.DataFrame(
            {"picture": self.names(), **{name: getattr(self, name) for name in columns}}
        )

    def _repr_html_(self) -> str:
        shown = "".join(
            f'<figure style="display:inline-block;margin:.3rem"><img src="{source}" alt="">'
            f"<figcaption>{html.escape(text)}</figcaption></figure>"
            for source, text in (
                (picture_source(self.overlay(row)), f"{self.caption(row)}: {self.figures(row)}")
                for row in range(min(N_SHOWN, len(self)))
            )
        )
        warning = f"<p><strong>{html.escape(self.warning)}</strong></p>" if self.warning else ""
        return f"<p>{html.escape(repr(self))}</p>{warning}{shown}"
