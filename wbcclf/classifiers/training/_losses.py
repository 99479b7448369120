"""What training minimises: a loss per image, and penalties on weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from wbcclf.classifiers.options import CrossEntropy, FocalLoss


class FocalCriterion(nn.Module):
    """Cross-entropy of each image times ``(1 - p) ** gamma``, p the probability of its label.

    Lin et al. 2017, https://arxiv.org/abs/1708.02002.

    Parameters
    ----------
    gamma : float
    label_smoothing : float
    """

    def __init__(self, gamma: float, label_smoothing: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of each image; `target` is class numbers or (n, n_classes) shares."""
        n_classes = logits.shape[1]
        if target.ndim == 1:
            target = nn.functional.one_hot(target, n_classes).to(logits.dtype)
        share = target * (1 - self.label_smoothing) + self.label_smoothing / n_classes
        log_p = logits.log_softmax(dim=1)
        # Not quite down to 0, where x ** gamma has an infinite slope for gamma < 1.
        rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).eps)
        return -(share * rest**self.gamma * log_p).sum(dim=1)


def make_criterion(loss: CrossEntropy | FocalLoss) -> nn.Module:
    """Return the loss per image."""
    if isinstance(loss, FocalLoss):
        return FocalCriterion(loss.gamma, loss.label_smoothing)
    if isinstance(loss, CrossEntropy):
        return nn.CrossEntropyLoss(reduction="none", label_smoothing=loss.label_smoothing)
    raise TypeError(f"{loss!r} is no loss that training knows")


class Penalty:
    """``l1 * sum |w| + l2 * sum w ** 2`` over the kernels of some blocks, as Keras counts it.

    Parameters
    ----------
    parts : dict of str to torch.nn.Module
        The trained blocks and the head.
    l1, l2 : float or dict of block name to float

    Raises
    ------
    ValueError
        If a dict names a block that is not among `parts`.
    """

    def __init__(self, parts: dict[str, nn.Module], l1: Any, l2: Any) -> None:
        factors = {"l1": l1, "l2": l2}
        for name, factor in factors.items():
            if not isinstance(factor, dict):
                factors[name] = dict.fromkeys(parts, factor)
            elif unknown := sorted(set(factor) - set(parts)):
                raise ValueError(
                    f"{name}={factor!r} names {unknown}, which are not among the trained blocks "
                    f"{', '.join(parts)}."
                )
        self.terms = [
            (parameter, factors["l1"].get(name, 0.0), factors["l2"].get(name, 0.0))
            for name, part in parts.items()
            for parameter in part.parameters()
            if _is_kernel(parameter)
        ]
        self.terms = [term for term in self.terms if term[1] or term[2]]

    def __call__(self) -> torch.Tensor | float:
        """Return the penalty for the weights as they are now."""
        return sum(
            (l1 * kernel.abs().sum() if l1 else 0.0) + (l2 * kernel.square().sum() if l2 else 0.0)
            for kernel, l1, l2 in self.terms
        )


def _is_kernel(parameter: nn.Parameter) -> bool:
    """Return whether inputs are weighted with it: neither a bias nor a scale, token or position."""
    return parameter.ndim > 1 and len(parameter) > 1 and parameter[0].numel() > 1
