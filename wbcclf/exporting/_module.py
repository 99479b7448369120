"""A classifier's network, and all that its predictions need besides, as one torch module."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from wbcclf.classifiers import CNNClassifier
from wbcclf.classifiers.familiarity._description import LEVELS, WIDTH, Description
from wbcclf.classifiers.familiarity._features import joined
from wbcclf.preprocessing._style import style


class Predictor(nn.Module):
    """Images of the size that was trained on in, what the classifier says of them out.

    It does in float32 what :func:`predict_images` of the classifiers does in part in float64.
    """

    def __init__(self, classifier: CNNClassifier) -> None:
        super().__init__()
        self.network = copy.deepcopy(classifier.net_.module_).eval()
        # ONNX knows no other layout.
        self.network.to(memory_format=torch.contiguous_format)
        for layer in self.network.modules():
            # For a missing bias the exporter adds nodes, which keep BatchNorm from being merged.
            if isinstance(layer, nn.Conv2d) and layer.bias is None:
                layer.bias = nn.Parameter(torch.zeros(layer.out_channels))
        height, width, _ = classifier.image_shape_
        self.turns = (0, 1, 2, 3) if height == width else (0, 2)
        self.in_views = classifier.test_time_augmentation
        described = classifier._description
        self.home = None if described is None else _Home(described)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return probabilities (n, n_classes); familiarity and certainty (n,) with a description.

        Parameters
        ----------
        images : Tensor of shape (n, height, width, 3), uint8
        """
        n = images.shape[0]
        views = self._views(images) if self.in_views else [images]
        # Else channels come last, for which global pooling becomes a gather with an index of each.
        seen = self.network.preprocessing(torch.cat(views)).contiguous()
        styles = style(seen[:n]) if self.home else seen  # before a stage changes what it is given
        x = seen
        for stage in self.network.stages():
            x = stage(x)
        logits = self.network.head[1:](x).float()
        log_shares = logits.log_softmax(1).unflatten(0, (len(views), n)).logsumexp(0)
        log_shares = log_shares - math.log(len(views))
        if self.home is None:
            return (log_shares.exp(),)
        features = joined(logits[:n], x[:n].float(), styles)
        return (log_shares.exp(), *self.home(log_shares, features))

    def _views(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return what :func:`eight_views` gives of a batch, the batch itself first."""
        return [
            torch.rot90(flipped, quarter_turns, (1, 2))
            for flipped in (images, images.flip(2))
            for quarter_turns in self.turns
        ]


class _Home(nn.Module):
    """The methods of a :class:`Description` that predictions need."""

    style_means: torch.Tensor
    style_whitenings: torch.Tensor
    style_volumes: torch.Tensor
    means: torch.Tensor
    whitening: torch.Tensor
    centres: torch.Tensor
    distances: torch.Tensor
    weight: torch.Tensor
    levels: torch.Tensor

    def __init__(self, description: Description) -> None:
        super().__init__()
        for name, array in description.arrays().items():
            if name != "calls":
                self.register_buffer(name, torch.from_numpy(array))
        self.register_buffer("levels", torch.from_numpy(LEVELS).float())
        self.spread = description.spread

    def forward(
        self, log_shares: torch.Tensor, given: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return familiarity and certainty (n,) of what :func:`joined` gives."""
        n_classes = log_shares.shape[1]
        logits, top = given[:, :n_classes], given[:, n_classes : n_classes + WIDTH]
        styles = given[:, n_classes + WIDTH :]
        from_groups = (styles[:, None] - self.style_means)[:, :, None] @ self.style_whitenings
        to_groups = from_groups.square().sum((2, 3))
        group = (to_groups + self.style_volumes).argmin(1)
        of_style = to_groups.gather(1, group[:, None])[:, 0]
        of_top = ((top - self.means[logits.argmax(1)]) @ self.whitening).square().sum(1)
        beyond = (of_style + of_top + 1e-12).log() - self.centres[group]
        ordered = log_shares.sort(1).values
        odds = ordered[:, -1] - ordered[:, :-1].logsumexp(1)
        excess = (beyond / self.spread - 1).clamp_min(0)
        return 1 - self._share(beyond), odds - self.weight * excess

    def _share(self, beyond: torch.Tensor) -> torch.Tensor:
        """Return the share (n,) of distances at home that are smaller; as numpy.interp."""
        last = len(self.levels) - 1
        place = (beyond[:, None] >= self.distances).sum(1) - 1
        before = place.clamp(0, last - 1)
        low, high = self.distances[before], self.distances[before + 1]
        # Where distances are equal, `place` is the last of them; at the ends any slope will do.
        part = ((beyond - low) / (high - low).clamp_min(1e-30)).clamp(0, 1)
        step = self.levels[before + 1] - self.levels[before]
        return torch.where(place < last, self.levels[before] + part * step, self.levels[last])
