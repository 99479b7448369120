"""Activations of the frozen blocks: computed once an image, kept for a fit and, on disk, for more.

A frozen block is in evaluation mode for good, so its output is a function of the image alone: not
of the epoch, the fold, the candidate of a search, or of the other images of its batch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from wbcclf import _spill
from wbcclf._progress import progress_bar
from wbcclf._store import Store, make_store
from wbcclf._warnings import warn
from wbcclf.classifiers.caching._keys import image_key, stage_keys
from wbcclf.classifiers.data._batches import ImageData, gather
from wbcclf.classifiers.network._device import arithmetic, channels_last, seeded
from wbcclf.classifiers.network._heap import keeping_freed_memory
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.classifiers.network._running import run_in_batches
from wbcclf.classifiers.options._settings import Settings

if TYPE_CHECKING:
    from wbcclf.classifiers.training._net import CellNet

# Images that run through the frozen blocks together, always this many: libraries choose their
# algorithms by the batch's size, so in a smaller batch the same image is rounded in another way.
N_TOGETHER = 32
# A prediction of fewer images does not look them up: their keys need a digest of all weights, which
# takes as long as computing a few images.
FEWEST_LOOKED_UP = 8
# By key, whether frozen blocks are a function of the image: a search tries them once.
_tried: dict[str, bool] = {}


class FrozenPart:
    """The stages of a net below the cut, as a function from images to rows of bytes.

    Parameters
    ----------
    net : CellNet

    Attributes
    ----------
    is_function : bool
        False if the trial gave an image other features the second time, or in another batch.
    """

    def __init__(self, net: CellNet) -> None:
        self.network = net.module_.eval()
        self.device = net.device
        self.precision = net.precision
        self.stages = self.network.stages()[: self.network.cut]
        # What one image is after 0, 1, ... stages, as (shape, dtype).
        self.forms: list[tuple[tuple[int, ...], torch.dtype]] = [((), torch.uint8)]
        x = torch.zeros(1, 3, *self.network.preprocessing.input_size, device=self.device)
        with torch.no_grad(), arithmetic(self.device, self.precision):
            for stage in self.stages:
                x = stage(x)
                self.forms.append((tuple(channels_last(x).shape[1:]), x.dtype))
        self.is_function = self._try()

    def _try(self) -> bool:
        """Return whether images keep their features in another place, beside other images."""
        height, width = self.network.preprocessing.input_size
        with seeded(0):  # the training's own random numbers stay as they are
            # Normalised pixels, of images of different brightness.
            images = 2 * torch.randn(4, 3, height, width) * torch.arange(1, 5).view(4, 1, 1, 1) / 4
            first, second = (self._through(images[rows]) for rows in ([0, 1, 2], [2, 3, 0]))
        if not first.is_complex():
            first, second = first.float(), second.float()
        # Beside other images, rounding may differ: by a few millionths of an image's largest
        # feature in float32, by a few times 2**-8, the precision, in bfloat16.
        tolerance = 1e-3 if self.precision == "float32" else 0.05
        return all(
            bool((a - b).abs().max() <= tolerance * a.abs().max())
            for a, b in [(first[0], second[2]), (first[2], second[0])]
        )

    def row_bytes(self, n_stages: int = -1) -> int:
        """Return how many bytes an image takes, at the cut or after fewer stages."""
        shape, dtype = self.forms[n_stages]
        return int(np.prod(shape)) * dtype.itemsize

    def as_tensor(self, rows: np.ndarray, n_stages: int = -1) -> torch.Tensor:
        """Return rows of bytes as the tensor that they hold, in the same memory."""
        shape, dtype = self.forms[n_stages]
        flat = torch.from_numpy(rows).view(dtype).view(len(rows), *shape)
        return flat.permute(0, 3, 1, 2) if len(shape) == 3 else flat

    def fill(
        self, out: np.ndarray, images: np.ndarray, rows: np.ndarray, *, show: bool = False
    ) -> None:
        """Write the activations of ``images[rows]`` to `out` (len(rows), row_bytes), uint8."""
        with keeping_freed_memory():
            for batch in _batches(np.arange(len(rows)), show):
                out[batch] = self._run_images(images, rows[batch])

    def _run_images(self, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return self._run(torch.from_numpy(gather(images, _filled_up(rows))), 0)[: len(rows)]

    def _run(self, x: torch.Tensor, start: int) -> np.ndarray:
        """Return rows of bytes for a batch of images, or of activations after `start` stages."""

        def run(part: torch.Tensor) -> torch.Tensor:
            with arithmetic(self.device, self.precision):
                part = part.to(self.device)
                part = self.network.preprocessing(part) if start == 0 else part
            y = channels_last(self._through(part, start)).contiguous()
            return y.reshape(len(y), -1).view(torch.uint8)

        return run_in_batches(run, x, len(x), self.device)

    def _through(self, x: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Return what the stages from `start` on make of normalised images or activations."""
        with torch.no_grad(), arithmetic(self.device, self.precision):
            x = x.to(self.device)
            for stage in self.stages[start:]:
                x = stage(x)
            return x


class StoredPart(FrozenPart):
    """The same function, which looks its results up in a store and writes new ones there.

    Parameters
    ----------
    net : CellNet
        Of a network that has a version.
    store : Store
    """

    def __init__(self, net: CellNet, store: Store) -> None:
        self.store = store
        self.keys = stage_keys(net.module_, net.device, net.precision)
        self.writes = True  # until the store's disk is full
        super().__init__(net)

    def _try(self) -> bool:
        if self.keys[-1] not in _tried:
            _tried[self.keys[-1]] = super()._try()
        return _tried[self.keys[-1]]

    def holds(self, images: np.ndarray) -> bool:
        """Return whether the store has what :meth:`fill` would write for all of some images."""
        return all(self._holds(len(self.stages), image_key(image)) for image in images)

    def fill(
        self, out: np.ndarray, images: np.ndarray, rows: np.ndarray, *, show: bool = False
    ) -> None:
        """Write the activations of ``images[rows]`` to `out` (len(rows), row_bytes), uint8."""
        names = [image_key(images[row]) for row in rows]
        missing: dict[str, int] = {}  # the first place of each image that is not in the store
        for place, name in enumerate(names):
            if name not in missing and not self._read(len(self.stages), name, out[place]):
                missing[name] = place
        todo = np.array(list(missing.values()), dtype=int)
        with keeping_freed_memory():
            # From the nearest lower cut that is there; after 0 stages, it is the image itself.
            for start in reversed(range(1, len(self.stages))):
                held = np.array([self._holds(start, names[place]) for place in todo], bool)
                damaged = self._fill_from(start, out, names, todo[held], show)
                todo = np.concatenate([todo[~held], damaged])
            for batch in _batches(todo, show):
                out[batch] = self._run_images(images, rows[batch])
                self._write(out[batch], [names[place] for place in batch])
        for place, name in enumerate(names):
            if missing.get(name, place) != place:
                out[place] = out[missing[name]]
        self.store.prune()

    def _fill_from(
        self, start: int, out: np.ndarray, names: list[str], places: np.ndarray, show: bool
    ) -> np.ndarray:
        """Fill some places of `out` from activations of a lower cut; return those that failed."""
        failed = [places[:0]]
        for batch in _batches(places, show):
            kept = np.empty((len(batch), self.row_bytes(start)), np.uint8)
            pairs = zip(batch, kept, strict=True)
            good = np.array([self._read(start, names[place], row) for place, row in pairs])
            failed.append(batch[~good])
            batch = batch[good]
            if len(batch):
                x = self.as_tensor(_filled_up(kept[good]), start)
                out[batch] = self._run(x, start)[: len(batch)]
                self._write(out[batch], [names[place] for place in batch])
        return np.concatenate(failed)

    def _key(self, n_stages: int, name: str) -> str:
        return f"{self.keys[n_stages]}/{name}"

    def _holds(self, n_stages: int, name: str) -> bool:
        return self._key(n_stages, name) in self.store

    def _read(self, n_stages: int, name: str, row: np.ndarray) -> bool:
        """Copy an entry of the store into `row`; return whether there was one."""
        entry = self.store.read(self._key(n_stages, name))
        if entry is None or len(entry) != len(row):
            return False
        row[:] = np.frombuffer(entry, np.uint8)
        return True

    def _write(self, rows: np.ndarray, names: list[str]) -> None:
        """Keep rows in the store, while its disk has room."""
        try:
            for row, name in zip(rows, names, strict=True) if self.writes else ():
                self.store.write(self._key(len(self.stages), name), row)
        except OSError as error:
            self.writes = False
            warn(
                f"Nothing more is kept in {self.store.folder} for now ({error}). Free some "
                "space there, or lower max_gb in memory=Cache(folder, max_gb=...)."
            )


def _batches(places: np.ndarray, show: bool) -> Iterator[np.ndarray]:
    """Yield places in batches, with a bar if there are some to show."""
    batches = [places[i : i + N_TOGETHER] for i in range(0, len(places), N_TOGETHER)]
    if not (show and batches):
        yield from batches
        return
    with progress_bar() as bar:
        yield from bar.track(batches, description="frozen blocks")


def _filled_up(batch: np.ndarray) -> np.ndarray:
    """Return a batch of N_TOGETHER, repeating the last item."""
    return batch[np.minimum(np.arange(N_TOGETHER), len(batch) - 1)]


def keep_activations(
    net: CellNet, settings: Settings, data: list[ImageData], store: Store | None
) -> list[ImageData]:
    """Return data sets of activations in place of images, in memory or in a file.

    The file lies in the store's folder or, without one, in the system's folder for temporary files;
    if it has no room there, a warning says so, and the images are returned.
    """
    part = FrozenPart(net) if store is None else StoredPart(net, store)
    if not part.is_function:
        warn(
            "The frozen blocks do not give an image the same features in every call and batch, "
            "so they are computed again in every epoch. wbcclf.backbones.check_backbone gives "
            "the details."
        )
        return data
    folder = None
    if sum(map(len, data)) * part.row_bytes() > settings.cache_gb * 1e9:
        folder = Path(tempfile.gettempdir()) if store is None else store.folder
    try:
        kept = [_spill.empty((len(one), part.row_bytes()), np.uint8, folder) for one in data]
    except (OSError, ValueError) as error:  # the latter where somebody has removed the folder
        warn(
            f"No room for the activations of the frozen blocks ({error}): they are computed again "
            f"in every epoch. Raise cache_gb, or give memory a folder on a larger disk."
        )
        return data
    for one, rows in zip(data, kept, strict=True):
        part.fill(rows, one.X, one.rows, show=settings.verbose > 0)
    return [
        ImageData(
            part.as_tensor(rows), one.y[one.rows], one.sample_weight[one.rows], kind="activations"
        )
        for one, rows in zip(data, kept, strict=True)
    ]


def open_store(settings: Settings, network: CellNetwork) -> Store | None:
    """Return the store in the folder `memory`.

    None without a folder, or for a network without a version, whose code nothing identifies.
    """
    store = make_store(settings.memory) if settings.cache_gb else None
    if store is not None and network.spec_version is None:
        warn(
            f"Nothing of the backbone {network.spec_name!r} is kept in the folder memory, since it "
            "declares no version. Give it one, BackboneSpec(..., version='1'), and raise it when "
            "the network's code changes."
        )
        return None
    return store


def frozen_part(net: CellNet, settings: Settings, n_images: int) -> StoredPart | None:
    """Return the frozen part for a prediction that uses the store, or None for one without."""
    if not net.module_.cut or n_images < FEWEST_LOOKED_UP:
        return None
    try:
        store = open_store(settings, net.module_)
    except OSError as error:  # the model may have been trained on another machine
        warn(f"{error}; predicting without it.")
        return None
    if store is None:
        return None
    part = StoredPart(net, store)
    return part if part.is_function else None
