"""What becomes of the learning rate after the start."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from skorch.callbacks import LRScheduler
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from wbcclf._parameters import Option
from wbcclf.classifiers.options import (
    Constant,
    Cosine,
    InverseTimeDecay,
    OneCycle,
    Plateau,
    StepDecay,
)
from wbcclf.classifiers.options._settings import Settings


class Budget(NamedTuple):
    """How long a training is: its steps, and how many of them are a pass over the images."""

    n_steps: int
    per_epoch: int

    @property
    def epochs(self) -> int:
        """Epochs begun; steps may end in the middle of the last."""
        return math.ceil(self.n_steps / self.per_epoch)


class Schedule(LRScheduler):
    """skorch's scheduler callback, able to be resumed."""

    def training_state(self) -> dict:
        """Return what a resumed training needs."""
        return self.lr_scheduler_.state_dict()

    def load_training_state(self, state: dict) -> None:
        """Resume where `state` was taken."""
        self.lr_scheduler_.load_state_dict(state)


def make_schedule(settings: Settings, budget: Budget, monitor: str) -> Schedule | None:
    """Return the callback that `lr_schedule` asks for; None for a rate that stays.

    Parameters
    ----------
    settings : Settings
    budget : Budget
    monitor : str
        Figure that "plateau" watches.
    """
    n_steps, per_epoch = budget
    schedule = settings.lr_schedule
    if isinstance(schedule, Plateau):
        mode = "max" if monitor == "valid_acc" else "min"
        return Schedule(
            ReduceLROnPlateau, monitor, event_name=None, mode=mode, **schedule.get_params()
        )
    if isinstance(schedule, OneCycle):
        # A momentum that the user chose stays; else it goes the other way than the rate, where
        # the optimizer has any.
        chosen = {"momentum", "betas"} & set(settings.optimizer.params or {})
        return _each_step(_one_cycle, n_steps=n_steps, cycles_momentum=not chosen)
    warmup = schedule.warmup_epochs * per_epoch
    if isinstance(schedule, Constant) and not warmup:
        return None

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return _after_warmup(schedule, step - warmup, n_steps - warmup, per_epoch)

    return _each_step(LambdaLR, lr_lambda=factor)


def _each_step(policy: Callable, **params: Any) -> Schedule:
    return Schedule(policy, event_name=None, step_every="batch", **params)


def _after_warmup(schedule: Option, step: float, n_steps: float, per_epoch: int) -> float:
    """Return what the learning rate is multiplied with in a step."""
    if isinstance(schedule, Cosine):
        return 0.5 + 0.5 * math.cos(math.pi * step / max(1, n_steps))
    if isinstance(schedule, StepDecay):
        return schedule.gamma ** (step // (schedule.step_size * per_epoch))
    if isinstance(schedule, InverseTimeDecay):
        return 1 / (1 + schedule.decay * step)
    if isinstance(schedule, Constant):
        return 1.0
    raise TypeError(f"{schedule!r} is no schedule that training knows")


def _one_cycle(optimizer: Any, last_epoch: int, n_steps: int, cycles_momentum: bool) -> OneCycleLR:
    has_momentum = optimizer.defaults.get("momentum") or "betas" in optimizer.defaults
    return OneCycleLR(
        optimizer,
        # Each group of parameters goes up to its own learning rate.
        max_lr=[group["lr"] for group in optimizer.param_groups],
        # torch's last step is at almost no rate: of a few steps that would be a good part.
        total_steps=n_steps + 1,
        cycle_momentum=bool(cycles_momentum and has_momentum),
        last_epoch=last_epoch,
    )
