"""How the learning rate goes on after the start."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, NamedTuple

from skorch.callbacks import Callback
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

# What `lr_schedule_params` may hold for each schedule, with the defaults.
SCHEDULES: dict[str, dict[str, float]] = {
    "constant": {"warmup_epochs": 0},
    "cosine": {"warmup_epochs": 0},
    "step": {"warmup_epochs": 0, "step_size": 10, "gamma": 0.1},
    "decay": {"warmup_epochs": 0, "decay": 1e-4},
    "onecycle": {},
    "plateau": {"factor": 0.3, "patience": 2, "min_lr": 0.0},
}


class Budget(NamedTuple):
    """How long a training is: its steps, and how many of them are a pass over the images."""

    n_steps: int
    per_epoch: int

    @property
    def epochs(self) -> int:
        """Epochs begun; steps may end in the middle of the last."""
        return math.ceil(self.n_steps / self.per_epoch)


class Schedule(Callback):
    """Step a torch scheduler after every batch, or after every epoch on a figure of it.

    Parameters
    ----------
    make : callable
        ``optimizer -> scheduler``.
    monitor : str or None
        The figure of the epoch that the scheduler looks at; None steps after every batch.
    """

    def __init__(self, make, monitor=None):
        self.make = make
        self.monitor = monitor

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Start anew: the optimizer has its initial learning rates."""
        self.scheduler_ = self.make(net.optimizer_)

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Go on by one training step."""
        if training and self.monitor is None:
            self.scheduler_.step()

    def on_epoch_end(self, net, **kwargs):
        """Show the scheduler the epoch's figure."""
        if self.monitor is not None:
            self.scheduler_.step(net.history[-1, self.monitor])

    def training_state(self) -> dict:
        """Return what a resumed training needs."""
        return self.scheduler_.state_dict()

    def load_training_state(self, state: dict) -> None:
        """Go on where `state` was taken."""
        self.scheduler_.load_state_dict(state)


def make_schedule(classifier: Any, budget: Budget, monitor: str) -> Schedule | None:
    """Return the callback that `lr_schedule` and its parameters ask for.

    Parameters
    ----------
    classifier : CNNClassifier
    budget : Budget
    monitor : str
        Figure that "plateau" watches.

    Raises
    ------
    ValueError
        If `lr_schedule_params` holds what the schedule does not take.
    """
    n_steps, per_epoch = budget
    name, given = classifier.lr_schedule, classifier.lr_schedule_params or {}
    params = SCHEDULES[name] | given
    wrong = sorted(
        key
        for key, value in params.items()
        if key not in SCHEDULES[name] or not _is_size(value) or (key == "step_size" and not value)
    )
    if wrong:
        takes = ", ".join(f"{key} ({value:g})" for key, value in SCHEDULES[name].items())
        raise ValueError(
            f"lr_schedule_params={given!r}: {', '.join(wrong)} cannot be used. "
            f"lr_schedule={name!r} takes numbers from 0 up for: {takes or 'nothing'}."
        )
    if name == "plateau":
        mode = "max" if monitor == "valid_acc" else "min"
        return Schedule(lambda optimizer: ReduceLROnPlateau(optimizer, mode, **params), monitor)
    if name == "onecycle":
        # A momentum that the user chose is his; else it goes the other way than the rate, where
        # the optimizer has any.
        chosen = {"momentum", "betas"} & set(classifier.optimizer_params or {})
        return Schedule(lambda optimizer: _one_cycle(optimizer, n_steps, not chosen))
    if name == "constant" and not params["warmup_epochs"]:
        return None
    warmup = params["warmup_epochs"] * per_epoch
    after = {
        "constant": lambda step: 1.0,
        "cosine": lambda step: 0.5 + 0.5 * math.cos(math.pi * step / max(1, n_steps - warmup)),
        "step": lambda step: params["gamma"] ** (step // max(1, params["step_size"] * per_epoch)),
        "decay": lambda step: 1 / (1 + params["decay"] * step),
    }[name]

    def factor(step: int) -> float:
        return (step + 1) / (warmup + 1) if step < warmup else after(step - warmup)

    return Schedule(lambda optimizer: LambdaLR(optimizer, factor))


def _is_size(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= value < math.inf


def _one_cycle(optimizer: Any, n_steps: int, cycles_momentum: bool) -> OneCycleLR:
    has_momentum = optimizer.defaults.get("momentum") or "betas" in optimizer.defaults
    return OneCycleLR(
        optimizer,
        # Each group of parameters goes up to its own learning rate.
        max_lr=[group["lr"] for group in optimizer.param_groups],
        # torch's last step is at almost no rate: of a few steps that would be a good part.
        total_steps=n_steps + 1,
        cycle_momentum=bool(cycles_momentum and has_momentum),
    )
