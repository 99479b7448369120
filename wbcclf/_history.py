"""The curves of a training: for one that is over, and for one that still runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LOSSES = (("train_loss", "training loss", "o-"), ("valid_loss", "validation loss", "s--"))
SHARES = (("valid_acc", "validation accuracy", "^:"), ("gain", "gain", "v-."))


def best_epoch(history: Sequence[dict], monitor: str, min_delta: float) -> int | None:
    """Return the epoch whose weights early stopping keeps, or None if it watched none.

    Parameters
    ----------
    history : sequence of dict
        The figures of each epoch.
    monitor : {"valid_loss", "valid_acc"}
    min_delta : float
        Smallest change that counts as an improvement.
    """
    sign = -1 if monitor == "valid_loss" else 1
    kept, best = None, float("-inf")
    for epoch in history:
        if monitor in epoch and sign * epoch[monitor] > best:
            kept, best = epoch["epoch"], sign * epoch[monitor] + min_delta
    return kept


def draw_history(ax: Any, history: Sequence[dict], kept: int | None) -> None:
    """Draw losses on `ax`, and accuracy and gain on a second axis at its right.

    Parameters
    ----------
    ax : matplotlib Axes
    history : sequence of dict
        The figures of each epoch.
    kept : int or None
        The epoch to mark.
    """
    lines = _draw(ax, history, LOSSES)
    ax.set(xlabel="epoch", ylabel="loss")
    ax.xaxis.get_major_locator().set_params(integer=True)
    if any(name in epoch for name, *_ in SHARES for epoch in history):
        right = ax.twinx()
        shares = _draw(right, history, SHARES, first_colour=len(LOSSES))
        right.set(ylim=(-0.05, 1.05), ylabel=", ".join(line.get_label() for line in shares))
        lines += shares
    if kept is not None:
        lines.append(ax.axvline(kept, color="grey", label=f"kept: epoch {kept}"))
    ax.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)


def _draw(
    ax: Any, history: Sequence[dict], curves: Sequence[tuple[str, str, str]], first_colour: int = 0
) -> list:
    """Draw the curves that the history has; told apart by marker and dash, not by colour alone."""
    lines = []
    for number, (name, label, style) in enumerate(curves, start=first_colour):
        points = [(epoch["epoch"], epoch[name]) for epoch in history if name in epoch]
        if points:
            x, y = zip(*points, strict=True)
            lines += ax.plot(x, y, style, color=f"C{number}", markersize=4, label=label)
    return lines
