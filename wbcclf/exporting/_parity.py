"""Whether an ONNX file says the same of pictures as the classifier that it was made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnxruntime
import torch
from sklearn.utils import Bunch

from wbcclf.classifiers import CNNClassifier
from wbcclf.classifiers.familiarity._prediction import Prediction
from wbcclf.datasets import make_blood_cells
from wbcclf.datasets._decode import resize
from wbcclf.onnx._format import CERTAINTY, FAMILIARITY, INPUT, PROBABILITIES

# Of probabilities. float32 rounds at 1e-7; what was seen of right graphs is 1e-6 at most.
TOLERANCE = 1e-4
_TIE = 1e-6  # probabilities that differ by less are the same
# Of familiarity and certainty: shares of home, and log-odds, whose thresholds lie 0.25 apart.
# Distances square what float32 rounds, so it is wider than that of probabilities.
_TOLERANCE_OF_LOOKS = 1e-3
_BATCHES = (1, 3, 17)
_N_DRAWN = 24
_TOGETHER = 16  # pictures that are run together


class Batch(NamedTuple):
    """Pictures of one size, and what they are called in a message."""

    names: list[str]
    pictures: np.ndarray


def open_session(data: bytes) -> Any:
    """Return what runs a file on the CPU, with as many threads as torch."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def own_pictures(image_size: tuple[int, int]) -> Iterator[Batch]:
    """Yield random pictures of several sizes, in batches of several lengths, and drawn cells."""
    random = np.random.default_rng(0)
    height, width = image_size
    sizes = (image_size, (2 * height, 3 * width), (height + 37, max(1, width - 5)))
    for n, size in zip(_BATCHES, sizes, strict=True):
        coarse = random.integers(0, 256, (n, 7, 7, 3), np.uint8)
        blurred = np.stack([cv2.resize(each, size[::-1]) for each in coarse])
        noisy = blurred + random.integers(-20, 21, (n, *size, 3))
        names = [f"random picture {k} of {size[0]}x{size[1]} pixels" for k in range(n)]
        yield Batch(names, noisy.clip(0, 255).astype(np.uint8))
    cells = make_blood_cells(_N_DRAWN, image_size=max(image_size), random_state=0).images
    yield Batch([f"picture {k} of make_blood_cells" for k in range(_N_DRAWN)], cells)


def given_pictures(images: np.ndarray | None) -> Iterator[Batch]:
    """Yield the user's pictures, a few at a time."""
    if images is None:
        return
    for start in range(0, len(images), _TOGETHER):
        some = images[start : start + _TOGETHER]
        yield Batch([f"images[{k}]" for k in range(start, start + len(some))], some)


def check_parity(
    classifier: CNNClassifier, data: bytes, own: Iterator[Batch], given: Iterator[Batch]
) -> Bunch:
    """Compare a file with the classifier that it was made of.

    Returns
    -------
    Bunch
        With `n_images`, the `largest_difference` of a probability, and `outputs`: what the file
        says of the `given` pictures, by name.

    Raises
    ------
    ValueError
        At the first picture of which they say something else.
    """
    session = open_session(data)
    size = classifier.image_shape_[:2]
    n_images, largest, outputs = 0, 0.0, []
    for is_given, batch in chain(zip(repeat(False), own), zip(repeat(True), given)):
        expected = classifier._predict(np.stack([resize(each, size) for each in batch.pictures]))
        found = run(session, batch.pictures)
        difference = _compare(classifier.classes_, batch.names, expected, found)
        n_images, largest = n_images + len(batch.names), max(largest, difference)
        if is_given:
            outputs.append(found)
    return Bunch(n_images=n_images, largest_difference=largest, outputs=_joined(outputs))


def run(session: Any, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of a file by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT: pictures}), strict=True))


def run_all(session: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs for many images, which are run a few at a time."""
    return _joined([run(session, batch.pictures) for batch in given_pictures(images)])


def _joined(outputs: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    names = outputs[0] if outputs else ()
    return {name: np.concatenate([each[name] for each in outputs]) for name in names}


def _compare(
    classes: np.ndarray, names: Sequence[str], expected: Prediction, found: dict[str, np.ndarray]
) -> float:
    shares = found[PROBABILITIES]
    if shares.shape != expected.probabilities.shape:
        raise ValueError(
            f"The exported graph gives probabilities of shape {shares.shape}, the model of "
            f"{expected.probabilities.shape}. {_NOT_WRITTEN}"
        )
    apart = np.abs(shares - expected.probabilities)
    row, column = divmod(int(np.nan_to_num(apart, nan=np.inf).argmax()), apart.shape[1])
    if not apart[row, column] <= TOLERANCE:
        raise ValueError(
            f"The exported graph gives another probability of {classes[column]!s} for "
            f"{names[row]}: {shares[row, column]:.6f}, where the model gives "
            f"{expected.probabilities[row, column]:.6f}. {_NOT_WRITTEN}"
        )
    largest, rows = float(apart[row, column]), np.arange(len(shares))
    label, ours = shares.argmax(1), expected.probabilities.argmax(1)
    lead = expected.probabilities[rows, ours] - expected.probabilities[rows, label]
    for row in np.flatnonzero(lead > _TIE).tolist():
        raise ValueError(
            f"The exported graph calls {names[row]} {classes[label[row]]!s} "
            f"({shares[row, label[row]]:.6f}), the model {classes[ours[row]]!s} "
            f"({expected.probabilities[row, ours[row]]:.6f}). {_NOT_WRITTEN}"
        )
    for name in (FAMILIARITY, CERTAINTY):
        wanted = getattr(expected, name)
        if wanted is None:
            continue
        row = int(np.nan_to_num(np.abs(found[name] - wanted), nan=np.inf).argmax())
        if not abs(found[name][row] - wanted[row]) <= _TOLERANCE_OF_LOOKS:
            raise ValueError(
                f"The exported graph gives another {name} for {names[row]}: "
                f"{found[name][row]:.6f}, where the model gives {wanted[row]:.6f}. {_NOT_WRITTEN}"
            )
    return largest


_NOT_WRITTEN = (
    "Nothing was written. This is a fault of the exporter or of the runtime: try other versions of "
    "torch, onnxscript and onnxruntime, and report it."
)
