"""What a network and others with random weights make of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from scipy.special import expit
from sklearn.utils import Bunch
from torch import nn

from wbcclf._threads import advancing
from wbcclf.classifiers import CNNClassifier
from wbcclf.classifiers.network._building import build_network, check_built
from wbcclf.classifiers.network._heap import keeping_freed_memory
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.classifiers.options._settings import Settings
from wbcclf.inspection.explaining._maps import (
    MIRRORED,
    N_COVERED,
    N_PATCHES,
    Viewer,
    enlarged,
    grids,
    mirrored_grad_cam,
    occlusion,
    shrunk,
)
from wbcclf.inspection.explaining._scores import correlations, mean_of_known, of_other_pictures

# Along a side of the grid that gradients are taken at. A white cell that covers a fifth of the
# picture is half as wide: a coarser grid does not tell it from what is around it.
FEWEST_CELLS = 4
N_RANDOM = 3  # networks with random weights that a map is compared with


def look(
    classifier: CNNClassifier,
    images: np.ndarray,
    target: np.ndarray | None,
    method: str,
    block: str | None,
    verbose: int,
) -> Bunch:
    """Return maps of a network, and all that is known of them without looking at the pictures.

    Parameters
    ----------
    classifier : CNNClassifier
    images : ndarray of shape (n, height, width, channels)
    target : ndarray of shape (n,), int, or None
        Numbers of classes; None are the predicted ones.
    method, block, verbose
        As `explain` has them.

    Returns
    -------
    Bunch
        `occlusion_maps` (n, height, width), `predicted` and `target` (n,) as numbers of classes,
        and attributes of an `Explanation`.
    """
    settings, domain, net = Settings.of(classifier), classifier._domain(), classifier.net_
    check_built(settings, net.module_)
    if min(images.shape[1:3]) < N_PATCHES:
        raise ValueError(
            f"X holds pictures of {images.shape[1]}x{images.shape[2]} pixels, which cannot be "
            f"covered in {N_PATCHES}x{N_PATCHES} patches."
        )
    n_blocks = 0
    with _evaluating(net.module_):
        if method != "occlusion":
            block, n_blocks = _find_block(net.module_, settings.head.pooling, block)
        probabilities = classifier._predict(images).probabilities  # it moves the net to its device
        predicted = probabilities.argmax(axis=1)
        chosen = predicted if target is None else target
        view = _view(method, images, chosen, n_blocks)
        n_views = N_COVERED if method == "occlusion" else len(MIRRORED)
        n_passes = N_COVERED + n_views * (N_RANDOM + (method != "occlusion"))
        with (
            keeping_freed_memory(),
            advancing(len(images) * n_passes, verbose, "Explaining") as advance,
        ):
            viewer = Viewer(net.module_, net.device, net.precision, settings.batch_size, advance)
            odds, falls = occlusion(viewer, images, chosen)
            covered = falls.clip(min=0)
            grid_maps = covered if method == "occlusion" else view(viewer)
            randomisation, by_chance = [], []
            for seed in range(N_RANDOM):
                network = build_network(settings, domain, None, seed)[0].eval().to(net.device)
                of_random = view(replace(viewer, network=network))
                randomisation.append(abs(correlations(grid_maps, of_random)))
                by_chance.append(abs(correlations(grid_maps, of_other_pictures(of_random))))
    maps, occlusion_maps = (enlarged(each, images.shape[1:3]) for each in (grid_maps, covered))
    agreement = agreement_by_chance = np.full(len(maps), np.nan)
    if method != "occlusion":
        agreement = correlations(shrunk(maps), covered)
        agreement_by_chance = correlations(shrunk(maps), of_other_pictures(covered))
    return Bunch(
        maps=maps,
        occlusion_maps=occlusion_maps,
        target=chosen,
        predicted=predicted,
        probability=probabilities[np.arange(len(chosen)), chosen],
        drop=expit(odds) - expit(odds - covered.max(axis=(1, 2))),
        block=block,
        randomisation=mean_of_known(randomisation),
        randomisation_by_chance=mean_of_known(by_chance),
        agreement=agreement,
        agreement_by_chance=agreement_by_chance,
    )


def _view(
    method: str, images: np.ndarray, target: np.ndarray, n_blocks: int
) -> Callable[[Viewer], np.ndarray]:
    """Return what makes maps of a network."""
    if method == "occlusion":
        return lambda viewer: occlusion(viewer, images, target)[1].clip(min=0)
    return lambda viewer: mirrored_grad_cam(
        viewer, images, target, n_blocks, plus_plus=method == "gradcam++"
    )


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Keep a network in eval mode inside the block, and restore the mode of each part after it."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _find_block(network: CellNetwork, pooling: str, name: str | None) -> tuple[str, int]:
    """Return the name of the block to look at, and how many blocks of the chain end with it."""
    found = grids(network)
    names = list(found)
    # Of the last tokens, the head reads none but the class token.
    n_read = len(names) - 1 if pooling == "token" else len(names)
    have_maps = [each for each in names[:n_read] if found[each] not in (None, (1, 1))]
    fine = [each for each in have_maps if min(found[each] or (0,)) >= FEWEST_CELLS]
    if not have_maps:
        raise ValueError(
            "No block gives maps of more than one pixel at an input size of "
            f"{network.preprocessing.input_size}. Use method='occlusion', or train with a larger "
            "input_size."
        )
    if name is None:
        name = (fine or have_maps)[-1]
    if name not in have_maps:
        raise ValueError(
            f"block={name!r} is none that gives maps. From the bottom up these do: "
            f"{', '.join(have_maps)}."
        )
    return name, names.index(name) + 1
