"""A trained network made to fit the pictures of another laboratory: with labels, or without any."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from wbcclf.classifiers.data._batches import gather
from wbcclf.classifiers.network._building import freeze_blocks
from wbcclf.classifiers.network._device import arithmetic, resolve_device, resolve_precision
from wbcclf.classifiers.network._heap import keeping_freed_memory
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.classifiers.options._settings import Settings
from wbcclf.classifiers.training._net import CellNet
from wbcclf.sampling import Augmenter

# Chosen on BCISC and Raabin, each left out of the training: docs/adapting.md.
STEPS, BATCH = 60, 32  # with labels
FASTER = 3  # the learning rate, times the backbone's own
SHARE = 0.7  # of the new weights, where cells of some classes are missing
BATCH_UNLABELLED, N_OLD = 64, 100  # without labels


def fine_tune(
    net: CellNet,
    settings: Settings,
    images: np.ndarray,
    target: np.ndarray,
    seed: int,
    advance: Callable[[int], None] = lambda n_steps: None,
) -> CellNet:
    """Return a copy of a net whose trained blocks and head are trained on, on a few cells.

    Every class of `target` comes equally often. The loss compares these classes alone: the network
    is not taught that the others do not exist. Where there are others, it still forgets them as its
    features change; so the weights are a mean of old and new ones then (Wortsman et al. 2022,
    https://arxiv.org/abs/2109.01903).

    All layers work as in prediction: BatchNorm keeps its statistics, of which a few cells say too
    little, and nothing is dropped.

    Parameters
    ----------
    net : CellNet
    settings : Settings
        Of its classifier.
    images : ndarray of shape (n_samples, height, width, channels)
    target : ndarray of shape (n_samples,), int
        Class numbers.
    seed : int
    advance : callable
        Is told of every step.
    """
    present = np.unique(target)
    numbers = np.searchsorted(present, target)
    members = [np.flatnonzero(numbers == number) for number in range(len(present))]
    net, network = _copied(net, settings)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    old = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=FASTER * settings.backbone.lr, total_steps=STEPS, pct_start=0.2
    )
    random_state, augmenter = np.random.RandomState(seed), Augmenter()
    with keeping_freed_memory():
        for _ in range(STEPS):
            in_turn = random_state.permutation(BATCH) % len(members)
            rows = np.array([random_state.choice(members[number]) for number in in_turn])
            batch = torch.from_numpy(augmenter.augment(gather(images, rows), random_state))
            labels = torch.from_numpy(numbers[rows]).to(net.device)
            with arithmetic(net.device, net.precision):
                logits = network(batch.to(net.device))
                loss = nn.functional.cross_entropy(logits[:, present], labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            advance(1)
    if len(present) < logits.shape[1]:
        with torch.no_grad():
            for weight, was in zip(weights, old, strict=True):
                weight.copy_(torch.lerp(was, weight, SHARE))
    return net


def renormalise(net: CellNet, settings: Settings, images: np.ndarray) -> CellNet | None:
    """Return a copy of a net with BatchNorm statistics of these images; None without BatchNorm.

    The statistics that it had count as those of N_OLD images. Frozen blocks, and the head, whose
    features depend on how many cells of each class there are, keep theirs.

    Parameters
    ----------
    net, settings
        As for :func:`fine_tune`.
    images : ndarray of shape (n_samples, height, width, channels)
        At least two.
    """
    net, network = _copied(net, settings)
    layers = [
        layer
        for block in network.backbone[network.n_frozen_blocks :]
        for layer in block.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats
    ]
    if not layers:
        return None
    means_and_variances = [
        buffer for layer in layers for buffer in layer.buffers() if buffer.is_floating_point()
    ]
    old = [buffer.clone() for buffer in means_and_variances]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches, which are of one size, give or take one
        layer.train()
    n_batches = max(1, len(images) // BATCH_UNLABELLED)
    with torch.inference_mode(), keeping_freed_memory(), arithmetic(net.device, net.precision):
        for rows in np.array_split(np.arange(len(images)), n_batches):
            network(torch.from_numpy(gather(images, rows)).to(net.device))
    share = len(images) / (len(images) + N_OLD)
    for buffer, was in zip(means_and_variances, old, strict=True):
        buffer.copy_(torch.lerp(was, buffer, share))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.eval()
    return net


def _copied(net: CellNet, settings: Settings) -> tuple[CellNet, CellNetwork]:
    """Return a copy of a net on its device, and the network in it, frozen as in training."""
    net = copy.deepcopy(net)
    device = resolve_device(settings.device, fitted=True)
    net.move_to(device, resolve_precision(settings.precision, device, settings.backbone.name))
    freeze_blocks(settings, net.module_)
    return net, net.module_.eval()
