"""What the frozen blocks make of an image: computed once, kept for a fit and, on disk, for others.

A frozen block is in evaluation mode for good, so its output is a function of the image alone: not
of the epoch, the fold, the candidate of a search, or of the other images of its batch.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from wbcclf import _spill
from wbcclf._store import Cache, Store, make_store
from wbcclf.classifiers.caching._fingerprint import Fingerprint, arithmetic_used
from wbcclf.classifiers.data._batches import ImageData, gather
from wbcclf.classifiers.network._device import arithmetic, seeded
from wbcclf.classifiers.network._heap import keeping_freed_memory
from wbcclf.exceptions import OutOfMemoryError

# Images that run through the frozen blocks at a time, always just as many: libraries choose their
# algorithms by the batch's size, so in a smaller batch the same image is rounded in another way.
N_TOGETHER = 32
# A prediction of fewer images is made without looking them up: to tell which network they are of,
# all its weights are hashed, which takes as long as some images do.
FEWEST_LOOKED_UP = 8
# By key, whether frozen blocks are a function of the image, so that a search tries them once.
_tried: dict[str, bool] = {}


class FrozenPart:
    """The stages of a net below the cut, as a function from images to rows of bytes.

    Parameters
    ----------
    net : CellNet
    store : Store or None
        Where rows are looked up and written to.

    Attributes
    ----------
    is_function : bool
        False if it was tried and gave an image other features each time, or in another batch.
    """

    def __init__(self, net: Any, store: Store | None) -> None:
        self.network = net.module_.eval()
        self.device = net.device
        self.precision = net.precision
        self.store = store
        self.writes = True  # until the store's disk is full
        self.stages = self.network.stages()[: self.network.cut]
        # What one image is after 0, 1, ... stages, as (shape, dtype).
        self.forms: list[tuple[tuple[int, ...], torch.dtype]] = [((), torch.uint8)]
        x = torch.zeros(1, 3, *self.network.preprocessing.input_size, device=self.device)
        with torch.no_grad(), arithmetic(self.device, self.precision):
            for stage in self.stages:
                x = stage(x)
                self.forms.append((tuple(_channels_last(x).shape[1:]), x.dtype))
        if store is not None:
            try:
                self.keys = self._keys()
            except TypeError as error:
                warnings.warn(
                    f"memory is not used for the frozen blocks: {error}.", UserWarning, stacklevel=2
                )
                self.store = None
        if self.store is None:
            self.is_function = self._is_tried()
        else:
            if self.keys[-1] not in _tried:
                _tried[self.keys[-1]] = self._is_tried()
            self.is_function = _tried[self.keys[-1]]

    def _is_tried(self) -> bool:
        """Return whether every image keeps its features in another place, beside other images."""
        height, width = self.network.preprocessing.input_size
        with seeded(0):  # what is drawn is not taken from the training's numbers
            # Normalised pixels, of images of different brightness.
            images = 2 * torch.randn(4, 3, height, width) * torch.arange(1, 5).view(4, 1, 1, 1) / 4
            first, second = (self._through(images[rows]) for rows in ([0, 1, 2], [2, 3, 0]))
        if not first.is_complex():
            first, second = first.float(), second.float()
        # Beside other images an image is rounded in another way at most: by a few millionths of its
        # largest feature in float32, by a few times 2**-8 in bfloat16, whose precision that is.
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
        """Return rows of bytes as the tensor they are of, in the same memory."""
        shape, dtype = self.forms[n_stages]
        flat = torch.from_numpy(rows).view(dtype).view(len(rows), *shape)
        return flat.permute(0, 3, 1, 2) if len(shape) == 3 else flat

    def holds(self, images: np.ndarray) -> bool:
        """Return whether the store has what :meth:`fill` would write for all of some images."""
        return all(self._holds(len(self.stages), _digest(image)) for image in images)

    def fill(
        self, out: np.ndarray, images: np.ndarray, rows: np.ndarray, *, show: bool = False
    ) -> None:
        """Write the activations of ``images[rows]`` to `out` (len(rows), row_bytes), uint8."""
        with keeping_freed_memory():
            if self.store is None:
                self._compute(out, images, rows, np.arange(len(rows)), 0, None, show)
            else:
                self._fill_from_store(out, images, rows, show)

    def _fill_from_store(
        self, out: np.ndarray, images: np.ndarray, rows: np.ndarray, show: bool
    ) -> None:
        names = [_digest(images[row]) for row in rows]
        missing: dict[str, int] = {}  # the first place of each image that is not in the store
        for place, name in enumerate(names):
            if name not in missing and not self._read(len(self.stages), name, out[place]):
                missing[name] = place
        todo = np.array(list(missing.values()), dtype=int)
        # From the nearest earlier cut that somebody kept; after 0 stages, it is the image itself.
        for start in reversed(range(len(self.stages))):
            held = np.array([not start or self._holds(start, names[place]) for place in todo], bool)
            damaged = self._compute(out, images, rows, todo[held], start, names, show)
            todo = np.concatenate([todo[~held], damaged])
        for place, name in enumerate(names):
            if missing.get(name, place) != place:
                out[place] = out[missing[name]]
        self.store.prune()

    def _compute(
        self,
        out: np.ndarray,
        images: np.ndarray,
        rows: np.ndarray,
        places: np.ndarray,
        start: int,
        names: list[str] | None,
        show: bool,
    ) -> np.ndarray:
        """Fill some places of `out`, going on from `start` stages; return those that failed."""
        batches = [places[i : i + N_TOGETHER] for i in range(0, len(places), N_TOGETHER)]
        failed = [places[:0]]
        shown = track(
            batches,
            description="frozen blocks",
            console=Console(stderr=True),
            disable=not (show and batches),
        )
        for batch in shown:
            if start == 0:
                x = torch.from_numpy(gather(images, rows[_filled_up(batch)]))
            else:
                kept = np.empty((len(batch), self.row_bytes(start)), np.uint8)
                good = np.array(
                    [
                        self._read(start, names[place], row)
                        for place, row in zip(batch, kept, strict=True)
                    ]
                )
                failed.append(batch[~good])
                batch = batch[good]
                if not len(batch):
                    continue
                x = self.as_tensor(_filled_up(kept[good]), start)
            out[batch] = self._run(x, start)[: len(batch)]
            if names is not None:
                self._write(out[batch], [names[place] for place in batch])
        return np.concatenate(failed)

    def _run(self, x: torch.Tensor, start: int) -> np.ndarray:
        """Return rows of bytes for a batch; in halves where the device lacks memory for it."""
        try:
            with arithmetic(self.device, self.precision):
                x = x.to(self.device)
                x = self.network.preprocessing(x) if start == 0 else x
            y = _channels_last(self._through(x, start)).contiguous().cpu()
            return y.reshape(len(y), -1).view(torch.uint8).numpy()
        except torch.OutOfMemoryError as error:
            if len(x) == 1:
                raise OutOfMemoryError(
                    f"The device {self.device} has too little memory for a single image. Use a "
                    "smaller input_size or device='cpu'."
                ) from error
        half = len(x) // 2
        return np.concatenate([self._run(x[:half], start), self._run(x[half:], start)])

    def _through(self, x: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Return what the stages from `start` on make of normalised images or activations."""
        with torch.no_grad(), arithmetic(self.device, self.precision):
            x = x.to(self.device)
            for stage in self.stages[start:]:
                x = stage(x)
            return x

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
            warnings.warn(
                f"Nothing more is kept in {self.store.folder} for now ({error}). Free some room "
                "there, or lower memory_gb.",
                UserWarning,
                stacklevel=2,
            )

    def _keys(self) -> list[str]:
        """Return for 0, 1, ... stages a digest of what their output depends on but the image.

        That is preprocessing, weights, how the stages are built, their code and ours, and the
        arithmetic.
        """
        fingerprint = Fingerprint(*arithmetic_used(self.device, self.precision))
        keys = []
        for stage in [self.network.preprocessing, *self.stages]:
            fingerprint.add(stage)
            keys.append(fingerprint.hexdigest()[:32])
        return keys


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    """Return maps as (n, height, width, channels), the order in which they lie in memory."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def _digest(image: np.ndarray) -> str:
    digest = hashlib.sha256(f"{image.dtype.str}{image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:40]


def _filled_up(batch: np.ndarray) -> np.ndarray:
    """Return a batch of N_TOGETHER, repeating the last item."""
    return batch[np.minimum(np.arange(N_TOGETHER), len(batch) - 1)]


def keep_activations(
    classifier: Any, data: list[ImageData], store: Store | None
) -> list[ImageData]:
    """Return data sets of activations in place of images, in memory or in a file.

    The file lies in the store's folder or, without one, in the system's folder for temporary files;
    if it has no room there, a warning says so, and the images are returned.
    """
    part = FrozenPart(classifier.net_, store)
    if not part.is_function:
        warnings.warn(
            "The frozen blocks do not give an image the same features every time, beside any other "
            "image, so they are computed anew in every epoch. wbcclf.backbones.check_backbone "
            "tells more.",
            UserWarning,
            stacklevel=13,
        )
        return data
    folder = None
    if sum(map(len, data)) * part.row_bytes() > classifier.cache_gb * 1e9:
        folder = Path(tempfile.gettempdir()) if store is None else store.folder
    try:
        kept = [_spill.empty((len(one), part.row_bytes()), np.uint8, folder) for one in data]
    except (OSError, ValueError) as error:  # the latter where somebody has removed the folder
        warnings.warn(
            f"No room for the activations of the frozen blocks, which are computed anew in every "
            f"epoch ({error}). Raise cache_gb, or give memory a folder on a larger disk.",
            UserWarning,
            stacklevel=13,
        )
        return data
    for one, rows in zip(data, kept, strict=True):
        part.fill(rows, one.X, one.rows, show=classifier.verbose > 0)
    return [
        ImageData(
            part.as_tensor(rows), one.y[one.rows], one.sample_weight[one.rows], kind="activations"
        )
        for one, rows in zip(data, kept, strict=True)
    ]


def open_store(classifier: Any) -> Store | None:
    """Return the store in the folder `memory` of a CNNClassifier."""
    memory = getattr(classifier.memory, "location", classifier.memory)  # of a joblib.Memory
    if memory is None or not classifier.cache_gb:
        return None
    return make_store(memory if isinstance(memory, Cache) else Cache(memory, classifier.memory_gb))


def frozen_part(classifier: Any, n_images: int) -> FrozenPart | None:
    """Return the frozen part for a prediction through the store, or None for one without."""
    if not classifier.net_.module_.cut or n_images < FEWEST_LOOKED_UP:
        return None
    try:
        store = open_store(classifier)
    except OSError as error:  # a model that was trained on another machine is to predict here
        warnings.warn(f"{error}; predicting without it.", UserWarning, stacklevel=4)
        return None
    if store is None:
        return None
    part = FrozenPart(classifier.net_, store)
    return part if part.is_function else None
