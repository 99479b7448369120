"""The torch module: preprocessing; frozen prefix, trainable suffix; head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from wbcclf.backbones import Head
from wbcclf.backbones._chain import feature_shape
from wbcclf.classifiers.network._device import as_channels_last
from wbcclf.classifiers.network._layers import build_head
from wbcclf.classifiers.network._preprocessing import Preprocessing
from wbcclf.preprocessing._style import style


class CellNetwork(nn.Module):
    """Images as they lie in memory in, logits out.

    Parameters
    ----------
    chain : torch.nn.Sequential
        The backbone.
    preprocessing : Preprocessing
    head : Head
    n_classes : int

    Attributes
    ----------
    n_frozen_blocks : int
        Blocks at the start of the chain that are frozen now. Gradual unfreezing lowers it.
    cut : int
        Stages (blocks, and the pooling if all are frozen) whose output can be kept, since they are
        frozen for good.
    built_from : dict of str to str
        Digests of the parameters that it was built from.
    spec_name, spec_version : str, str or None
        Of the backbone.
    """

    built_from: Mapping[str, str]
    spec_name: str
    spec_version: str | None

    def __init__(
        self,
        chain: nn.Sequential,
        preprocessing: Preprocessing,
        head: Head,
        n_classes: int,
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.backbone = chain
        self.n_frozen_blocks = 0
        self.cut = 0
        features = feature_shape(chain, *preprocessing.input_size)
        self.head = build_head(head, features, n_classes)

    def freeze(self, n_frozen_blocks: int) -> None:
        """Freeze so many blocks at the start of the chain, train the others."""
        self.n_frozen_blocks = n_frozen_blocks
        for number, block in enumerate(self.backbone):
            block.requires_grad_(number >= n_frozen_blocks)

    def set_cut(self, n_frozen_blocks: int) -> None:
        """Freeze so many blocks for good, so that what they give can be kept: `cut` stages.

        Gradual unfreezing freezes more of them for a while. If the whole chain is frozen, the
        pooling, which has no weights, belongs to what can be kept: vectors instead of maps.
        """
        self.freeze(n_frozen_blocks)
        self.cut = self._n_fixed()

    def stages(self) -> list[nn.Module]:
        """Return the blocks of the chain, and the pooling."""
        return [*self.backbone, self.head[0]]

    def _n_fixed(self) -> int:
        return self.n_frozen_blocks + (self.n_frozen_blocks == len(self.backbone))

    def train(self, mode: bool = True) -> CellNetwork:
        """Set the mode of everything but the frozen prefix, which stays in eval mode for good.

        Otherwise BatchNorm's running statistics and dropout of frozen blocks would go on changing.
        """
        super().train(mode)
        for block in self.backbone[: self.n_frozen_blocks]:
            block.eval()
        return self

    def frozen_blocks(self) -> dict[str, nn.Module]:
        """Return the blocks below the cut by name, bottom to top."""
        return dict(list(self.backbone.named_children())[: self.cut])

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Return the state dict without the blocks below the cut, which never change."""
        frozen = tuple(f"backbone.{name}." for name in self.frozen_blocks())
        state = self.state_dict().items()
        return {name: tensor for name, tensor in state if not name.startswith(frozen)}

    def trained_parts(self) -> dict[str, nn.Module]:
        """Return the blocks above the cut by name, bottom to top, and the head as ``"head"``."""
        blocks = list(self.backbone.named_children())[self.n_frozen_blocks :]
        return {**dict(blocks), "head": self.head}

    def forward(
        self,
        images: torch.Tensor | None = None,
        sample_weight: torch.Tensor | None = None,
        activations: torch.Tensor | None = None,
        described: bool = False,
    ) -> Any:
        """Return logits (n, n_classes), float32.

        Takes images (n, height, width, channels), or what the stages up to the cut made of them.
        `sample_weight` is for the loss alone: skorch hands every part of a batch to the module.
        If they are to be `described`, the result is a tuple of the logits, what the head was given,
        and of images their style.
        """
        stages = self.stages()
        styles = []
        if activations is None:
            with torch.no_grad():
                activations = self.preprocessing(images)
                if described:  # at once: a stage may change its input in place
                    styles.append(style(activations))
                for stage in stages[: self.cut]:
                    activations = stage(activations)
        x = as_channels_last(activations)
        for number, stage in enumerate(stages[self.cut :], start=self.cut + 1):
            if number <= self._n_fixed():
                with torch.no_grad():
                    x = stage(x)
            else:
                x = stage(x)
        logits = self.head[1:](x).float()
        return (logits, x.float(), *styles) if described else logits
