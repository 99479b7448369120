"""A model in an ONNX file: pictures in, labels out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any

import numpy as np

from wbcclf._files import read_regular, shown
from wbcclf._uncertainty import labels_of, uncertain_label, unfamiliar
from wbcclf._warnings import warn
from wbcclf.cells._square import Crop, warn_of_missing_cells
from wbcclf.decoding._failures import check_on_error, report_failures
from wbcclf.decoding._formats import read_file
from wbcclf.decoding._opencv import decode_with_opencv
from wbcclf.decoding._paths_or_images import check_paths_or_images
from wbcclf.decoding._pixels import resize
from wbcclf.exceptions import ModelFormatError, UnfamiliarImagesWarning
from wbcclf.onnx._format import (
    CERTAINTY,
    FAMILIARITY,
    FORMAT,
    INPUT,
    KEY,
    PROBABILITIES,
    unsealed,
)

READ = 64  # pictures that are read before the network gets them
# Pixels that the network is given at once. It sees eight views of each picture where the classifier
# did: more take more memory, and are no faster.
TOGETHER = 16_384
NO_DESCRIPTION = (
    "The model keeps no description of its training images, so it cannot tell how familiar others "
    "are. Fit it again on more images with this version of wbcclf, and export it again."
)


def load(path: str | os.PathLike, *, n_threads: int | None = None) -> OnnxModel:
    """Load a model that :func:`export_onnx` wrote, to predict without PyTorch.

    This module needs NumPy, OpenCV and onnxruntime, and none of the other packages that wbcclf
    depends on.

    Parameters
    ----------
    path : str or path
        ONNX file that wbcclf has written.
    n_threads : int or None, default=None
        Threads for reading pictures and for the network; None is one for each core that the process
        may use.

    Returns
    -------
    OnnxModel

    Raises
    ------
    ModelFormatError
        If the file was not written by wbcclf, was damaged or changed, or has a newer format.
    OSError
        If the file cannot be read.
    ValueError
        If `n_threads` is not a positive int.
    ImportError
        If onnxruntime is not installed.

    Notes
    -----
    The file ends with the SHA-256 of all before it, which is compared. It tells damage, not who
    made the file.

    Examples
    --------
    >>> import wbcclf.onnx
    >>> model = wbcclf.onnx.load("model.onnx")  # doctest: +SKIP
    >>> model.predict(["cell-1.jpg", "cell-2.jpg"])  # doctest: +SKIP
    array(['lymphocyte', 'neutrophil'], dtype='<U10')
    """
    if n_threads is None:
        n_threads = _n_cores()
    if isinstance(n_threads, bool) or not isinstance(n_threads, Integral) or n_threads < 1:
        raise ValueError(f"n_threads must be a positive int or None, got {n_threads!r}.")
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            'wbcclf.onnx.load needs onnxruntime: pip install "wbcclf[onnx]", or onnxruntime alone.'
        ) from error
    name = shown(os.fsdecode(path))
    data = read_regular(path)
    try:
        unsealed(data)
    except ValueError as error:
        raise ModelFormatError(f"{name}: {error}. Export the model again.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 3  # errors
    # Threads that wait in a loop would take the cores from those that read pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Both keep memory for later batches, which may be smaller.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common class
        raise ModelFormatError(
            f"{name}: onnxruntime {onnxruntime.__version__} cannot load it ({error}). "
            "Install the version that made it, or export the model again."
        ) from error
    try:
        metadata = dict(json.loads(session.get_modelmeta().custom_metadata_map.get(KEY, "{}")))
        if metadata.get("format") == FORMAT:
            return OnnxModel(session, metadata, int(n_threads))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(
            f"{name}: its metadata are not those of a model ({error}). Export the model again."
        ) from error
    raise ModelFormatError(
        f"{name}: format {metadata.get('format')!r} of wbcclf {metadata.get('version')}; this "
        f"version reads format {FORMAT}. Install a newer wbcclf, or export the model again."
    )


def _n_cores() -> int:
    with suppress(AttributeError):  # of Linux alone
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, eq=False)
class Answers:
    """What an :class:`OnnxModel` says of pictures.

    Attributes
    ----------
    labels : ndarray of shape (n,)
        As `predict` gives them.
    probabilities : ndarray of shape (n, n_classes), float32
    familiarity : ndarray of shape (n,), float32, or None
        0 to 1; None if the model has no description of its training images.
    certainty : ndarray of shape (n,), float32, or None
        Log-odds of the label, lowered for strange pictures: what `rejection` goes by.
    found : ndarray of shape (n,), bool
        Whether a white cell was found. The others were cut to their central square. True
        everywhere if the model does not cut around the cell.
    kept : ndarray of shape (n,), int
        Which of the pictures these are; all, unless files could not be read.
    skipped : list of (path, reason)
        The files that could not be read.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    familiarity: np.ndarray | None
    certainty: np.ndarray | None
    found: np.ndarray
    kept: np.ndarray
    skipped: list[tuple[str, str]]


class OnnxModel:
    """A model of an ONNX file; :func:`wbcclf.onnx.load` makes it.

    Pictures are arrays or paths. Arrays are a batch of shape (n, height, width, 3), or a list of
    arrays (height, width, 3) of any sizes; they are uint8, RGB. Paths are of JPEG, PNG, BMP or TIFF
    files. If the model cuts around the white cell, give whole pictures, as the model that was
    exported took them: they are cut as :class:`CellCropper` cuts them.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, in the order of probabilities.
    metadata : mapping
        What the file says of the model: ``"version"`` of wbcclf, ``"backbone"``, ``"limits"`` (what
        it was trained and measured on), ``"thresholds"``, ``"checked"`` and more.

    See Also
    --------
    CNNClassifier : The classifier that is exported.

    Notes
    -----
    Pictures are read one by one in each thread, and go to the network a few at a time: memory does
    not grow with their number, but for the answers.
    """

    def __init__(self, session: Any, metadata: Mapping[str, Any], n_threads: int) -> None:
        self._session, self._n_threads = session, n_threads
        self.metadata = MappingProxyType(metadata)
        self.classes_ = np.array(metadata["classes"])
        self._size = tuple(metadata["image_size"])
        self._crop = metadata["crop"] and Crop(**metadata["crop"], image_size=self._size[0])
        self._outputs = [output.name for output in session.get_outputs()]
        self.rejection = metadata["rejection"]

    def __repr__(self) -> str:
        height, width = self._size
        around = " around the white cell" if self._crop else ""
        return (
            f"OnnxModel({self.metadata['backbone']}, {len(self.classes_)} classes, "
            f"{height}x{width} pixels{around}, rejection={self.rejection})"
        )

    @property
    def rejection(self) -> float | None:
        """Largest share of wrong calls among all calls, or None; set it to one of `thresholds`.

        A picture that is not certain enough for it is ``"uncertain"``, or -1 where classes are
        numbers. The bound holds for pictures like those that the model was trained on.
        """
        return self._rejection

    @rejection.setter
    def rejection(self, share: float | None) -> None:
        if share is not None:
            self._threshold(share)
            uncertain_label(self.classes_)  # raises if they leave no room for it
        self._rejection = share

    def _threshold(self, share: float) -> float:
        """Return the least certainty of a call."""
        thresholds = {float(each): least for each, least in self.metadata["thresholds"].items()}
        if not isinstance(share, Real) or share not in thresholds:
            allowed = ", ".join(f"{each:g}" for each in sorted(thresholds)) or "none"
            raise ValueError(
                f"rejection must be None or a share that the model can keep ({allowed}), "
                f"got {share!r}."
            )
        return thresholds[share]

    def predict(self, pictures: Any) -> np.ndarray:
        """Return the label of each picture.

        Parameters
        ----------
        pictures : array of shape (n, height, width, 3), or list of arrays or of paths
            See the class.

        Returns
        -------
        ndarray of shape (n,)
            Of the dtype of `classes_`. With `rejection`, ``"uncertain"`` or -1 where no label can
            be called.

        Raises
        ------
        ImageReadError
            If files cannot be read; all are tried first, then the broken ones are named.
        TypeError, ValueError
            If `pictures` holds anything else, or one is too small to be cut.

        Warns
        -----
        UnfamiliarImagesWarning
            If 20 pictures or more do not look like those that the model was trained on.
        UserWarning
            Of pictures in which no white cell is found, if the model cuts around it.
        """
        return self.answer(pictures).labels

    def predict_proba(self, pictures: Any) -> np.ndarray:
        """Return the probability of each class for each picture.

        Parameters
        ----------
        pictures : array of shape (n, height, width, 3), or list of arrays or of paths
            See the class.

        Returns
        -------
        ndarray of shape (n, n_classes), float32
            In the order of `classes_`. Errors and warnings are those of `predict`.
        """
        return self.answer(pictures).probabilities

    def familiarity(self, pictures: Any) -> np.ndarray:
        """Return how much each picture is like those that the model was trained on.

        Parameters
        ----------
        pictures : array of shape (n, height, width, 3), or list of arrays or of paths
            See the class.

        Returns
        -------
        ndarray of shape (n,), float32
            The share of pictures from home that look less familiar. It warns as `predict` does.

        Raises
        ------
        ValueError
            If the model has no description of its training images.
        """
        familiarity = self.answer(pictures).familiarity
        if familiarity is None:
            raise ValueError(NO_DESCRIPTION)
        return familiarity

    def answer(self, pictures: Any, *, on_error: str = "raise") -> Answers:
        """Return all that the model says of each picture: labels, probabilities and the rest.

        Parameters
        ----------
        pictures : array of shape (n, height, width, 3), or list of arrays or of paths
            See the class.
        on_error : {"raise", "warn", "skip"}, default="raise"
            What happens if files cannot be read. ``"raise"`` names them in an error after all were
            tried. ``"warn"`` and ``"skip"`` leave them out and list them in `skipped`; it is an
            error if all are broken.

        Returns
        -------
        Answers
            One item for each picture that could be read. Errors and warnings are those of
            `predict`.
        """
        check_on_error(on_error)
        paths, arrays = check_paths_or_images(pictures, "pictures")
        sources: Sequence[Any] = paths or arrays or []
        reasons, found = [""] * len(sources), np.ones(len(sources), bool)

        def image(index: int) -> np.ndarray | None:
            try:
                square, found[index] = self._image(sources[index], f"pictures[{index}]")
            except ValueError as error:  # ImageReadError, or a picture too small for the square
                if paths is None:
                    raise
                reasons[index] = str(error)
                return None
            return square

        shares = np.empty((0, len(self.classes_)), np.float32)
        none = {name: shares if name == PROBABILITIES else shares[:, 0] for name in self._outputs}
        outputs = [[*none.values()]]
        together = max(1, TOGETHER // (self._size[0] * self._size[1]))
        with ThreadPoolExecutor(self._n_threads, thread_name_prefix="wbcclf") as pool:
            for block in _parts(range(len(sources)), READ):
                images = (each for each in pool.map(image, block) if each is not None)
                outputs += [self._run(np.stack(some)) for some in _parts(images, together)]
        names = paths or [f"pictures[{index}]" for index in range(len(sources))]
        skipped = [(name, why) for name, why in zip(names, reasons, strict=True) if why]
        report_failures(skipped, len(names), on_error, 'Take answer(..., on_error="warn").')
        kept = np.array([index for index, why in enumerate(reasons) if not why], np.intp)
        warn_of_missing_cells([names[index] for index in kept], found[kept])
        each = map(np.concatenate, zip(*outputs, strict=True))
        return self._answers(
            dict(zip(self._outputs, each, strict=True)), found[kept], kept, skipped
        )

    def _image(self, source: Any, name: str) -> tuple[np.ndarray, bool]:
        """Return a picture as the network is to see it, and whether a white cell was found."""
        size = None if self._crop else self._size
        if isinstance(source, str):
            picture, name = decode_with_opencv(read_file(source), size), "the picture"
        else:
            picture = np.broadcast_to(source, (*source.shape[:2], 3))
            picture = resize(np.ascontiguousarray(picture), size)
        if self._crop is None:
            return picture, True
        self._crop.check_size(picture.shape[:2], name)
        squares, found = self._crop.squares([picture])
        return squares[0], found[0]

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        return self._session.run(self._outputs, {INPUT: images})

    def _answers(
        self,
        output: Mapping[str, np.ndarray],
        found: np.ndarray,
        kept: np.ndarray,
        skipped: list[tuple[str, str]],
    ) -> Answers:
        probabilities = output[PROBABILITIES]
        familiarity, certainty = output.get(FAMILIARITY), output.get(CERTAINTY)
        is_uncertain = np.zeros(len(kept), bool)
        if familiarity is not None and certainty is not None:
            if self.rejection is not None:
                is_certain = certainty >= self._threshold(self.rejection)
                is_uncertain = ~(is_certain & (familiarity >= self.metadata["strange"]))
            message = unfamiliar(familiarity, self.rejection)
            if message:
                warn(message, UnfamiliarImagesWarning)
        labels = labels_of(probabilities, is_uncertain, self.classes_)
        return Answers(labels, probabilities, familiarity, certainty, found, kept, skipped)


def _parts(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Give items in lists of at most a size."""
    rest = iter(items)
    return iter(lambda: list(islice(rest, size)), [])
