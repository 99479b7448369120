"""What the network computes on, in which arithmetic, and from which seed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from wbcclf._warnings import warn

# Their depthwise convolutions of 5x5 have no fast gradient in bfloat16 on CPUs: training took twice
# as long as in float32 (docs/performance.md). No other network that was measured lost by it.
SLOW_IN_BFLOAT16 = ("mobilenet", "efficientnet")


def resolve_device(device: str, *, fitted: bool) -> str:
    """Return the torch device that a `device` parameter stands for.

    A fitted model that asks for a device this machine lacks predicts on what there is, with a
    warning, so that a model trained on a GPU can be used on a laptop; training is an error.
    """
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    if automatic == "cpu" and torch.backends.mps.is_available():
        automatic = "mps"
    if device == "auto":
        return automatic
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        message = f"device={device!r} is not available on this machine ({error})"
        if not fitted:
            raise ValueError(f"{message}. Use device='auto' or 'cpu'.") from error
        warn(f"{message}; using {automatic!r}.")
        return automatic
    return device


def resolve_precision(precision: str, device: str, backbone: str) -> str:
    """Return the arithmetic that a `precision` parameter stands for; "auto" is the faster one.

    That is bfloat16 where the hardware multiplies it: GPUs from compute capability 8 on, and CPUs
    with AMX or AVX-512 BF16. Elsewhere it would be emulated.
    """
    if precision != "auto":
        return precision
    kind = torch.device(device).type
    if kind == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    elif kind == "cpu":
        capable = torch.cpu.get_capabilities()
        fast = bool(capable.get("amx_bf16") or capable.get("avx512_bf16"))
        fast = fast and not any(family in backbone for family in SLOW_IN_BFLOAT16)
    else:
        fast = False
    return "bfloat16" if fast else "float32"


def arithmetic(device: str, precision: str) -> torch.autocast:
    """Return a context in which networks compute in a precision ("float32" or "bfloat16")."""
    kind = torch.device(device).type
    return torch.autocast(kind, getattr(torch, precision), enabled=precision != "float32")


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Return maps as (n, height, width, channels), a view; others as they are."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def as_channels_last(x: torch.Tensor) -> torch.Tensor:
    """Return maps (n, channels, height, width) in torch's channels-last layout, others as they are.

    Convolutions are fastest on it, and activations are kept in it: a block above the cut must see
    the same layout whether they were kept or not, since its rounding depends on it. By way of a
    flat tensor, since the strides of axes of length one may be any, and count, too.
    """
    if x.ndim != 4:
        return x
    x = channels_last(x)
    return x.flatten().view(x.shape).permute(0, 3, 1, 2)


_turn = threading.RLock()


def _renew_turn() -> None:
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):  # a forked process has no thread that would give it back
    os.register_at_fork(after_in_child=_renew_turn)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global random states inside the block and restore them after it.

    One for all threads of a process, so these take turns: a seed would not be worth its name, and
    trainings be kept that nobody could repeat.
    """
    devices = list(range(torch.cuda.device_count()))
    with _turn, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
