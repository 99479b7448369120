"""Damage a model file in random ways and load it; only ModelFormatError may come of it.

Run for ten minutes: ``python tests/fuzz_model_files.py --seconds 600``. It prints how many files
were loaded and refused, and ends with status 1 at the first other error, or file that costs more
than a second or 500 MB; the file is then kept. A part of it is in
``tests/test_model_files.py``.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, 10**400, 0.5, -0.5, 1e308, float("nan"),
    float("inf"), "", "x", "imagenet", "cuda:9", "\ud800", "x" * 10_000, [], [[]], [1], [0.5, 1],
    [16, 16, 3], ["a"], [1] * 1000, {}, {"a": 1}, {"dict": []}, {"dict": [["a", 1]]},
    {"dict": [[[1], 1]]}, {"class": "Head", "params": {}}, {"class": "Augmenter", "params": {}},
    {"class": "ConvNet", "params": {"filters": [8000, 8000]}}, {"class": "str", "params": {}},
    {"class": "CNNClassifier", "params": {}},
    {"class": "FocalLoss", "params": {"l1": {"dict": []}}},
    {"class": "Optimizer", "params": {"params": {"dict": [["betas", [0.5, 0.9]]]}}},
    {"class": "GradualUnfreezing", "params": {"layers": "conv1"}},
    {"class": "Mixing", "params": {}}, {"class": "Mixing", "params": {"cutmix": 1}},
    {"class": "EarlyStopping", "params": {}}, {"class": "Averaging", "params": {"decay": 0.5}},
    {"class": "CellCropper", "params": {}}, {"class": "CellCropper", "params": {"scale": 2**31}},
    {"class": "CellCropper", "params": {"factor": 1e308}},
    {"class": "BackgroundRemover", "params": {}},
    {"class": "Plateau", "params": {}}, {"class": "StepDecay", "params": {"step_size": 2**63}},
]  # fmt: skip
KEYS = (
    "memory compile more class dict params loss mixing optimizer lr_schedule averaging head "
    "augment early_stopping unfrozen_layers l2 layers format dropout lr_schedule_params weights "
    "crop scale factor which background transformers image_shape_"
).split()

OLDER: dict[str, Any] = {
    "head": None, "dropout": 0.2, "loss": "focal", "focal_gamma": 2.0, "l1": 0.0,
    "l2": {"dict": [["head", 0.1]]}, "optimizer": "adam", "optimizer_params": {"dict": []},
    "lr_schedule": "step", "lr_schedule_params": {"dict": [["gamma", 0.5]]}, "mixup": 0.1,
    "early_stopping": True, "patience": 3, "ema_decay": 0.9, "gradual_unfreezing": 1,
    "unfrozen_layers": 3, "cache_gb": 1.0, "weights": None,
}  # fmt: skip


def damaged(content: bytes, seed: int, number: int | None = None) -> Iterator[bytes]:
    """Yield damaged copies of a model file; for ever if no number is given."""
    rng = random.Random(seed)
    kinds = [_cut, _flip, _insert, _change_document, _change_document, _change_header, _flip_header]
    done = 0
    while number is None or done < number:
        yield rng.choice(kinds)(content, rng)
        done += 1


def rewritten(content: bytes, members: dict[str, bytes | None]) -> bytes:
    """Return a model file with members replaced, added, or left out (None)."""
    new = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(new, "w") as archive:
        for name in dict.fromkeys([*old.namelist(), *members]):
            replacement = members[name] if name in members else old.read(name)
            if replacement is not None:
                archive.writestr(name, replacement)
    return new.getvalue()


def with_document(path: Path, change: Callable[[dict, dict, dict], object]) -> bytes:
    """Return a model file changed by a function of its document and both steps' parameters."""
    with zipfile.ZipFile(path) as archive:
        document = json.loads(archive.read("model.json"))
    change(document, document["steps"][0][1]["params"], document["steps"][-1][1]["params"])
    return rewritten(path.read_bytes(), {"model.json": json.dumps(document).encode()})


def npy(array: np.ndarray) -> bytes:
    """Return an array as a member of a model file."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _cut(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted((rng.randrange(len(content)), rng.randrange(len(content))))
    return rng.choice([content[start:], content[:end], content[:start] + content[end:]])


def _flip(content: bytes, rng: random.Random) -> bytes:
    """Change some bytes, mostly in the zip's directory at the end."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 4, 50])):
        start = rng.choice([0, len(changed) - 22, len(changed) * 3 // 4])
        changed[rng.randrange(start, len(changed))] = rng.randrange(256)
    return bytes(changed)


def _insert(content: bytes, rng: random.Random) -> bytes:
    place = rng.choice([0, len(content), rng.randrange(len(content))])
    return content[:place] + rng.randbytes(rng.choice([1, 22, 1000])) + content[place:]


def _change_document(content: bytes, rng: random.Random) -> bytes:
    """Replace, remove or add values anywhere in the JSON text."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        document = json.loads(archive.read("model.json"))
    for _ in range(rng.choice([1, 1, 1, 3])):
        holders = list(_holders(document))
        holder = rng.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        action = rng.choice(["replace", "replace", "remove", "add"])
        if action == "add" or not keys:
            if isinstance(holder, dict):
                holder[rng.choice(KEYS)] = _value(rng)
            else:
                holder.append(_value(rng))
        elif action == "remove":
            del holder[rng.choice(keys)]
        else:
            holder[rng.choice(keys)] = _value(rng)
    text = json.dumps(document)
    return rewritten(content, {"model.json": text.encode()})


def _value(rng: random.Random) -> Any:
    return json.loads(json.dumps(rng.choice(VALUES)))  # lists of their own


def _holders(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _holders(item)


def _change_header(content: bytes, rng: random.Random) -> bytes:
    """Replace what an array's header says, or the array, or leave it out."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = rng.choice([name for name in archive.namelist() if name.endswith(".npy")])
        array = archive.read(name)
    data = array[10 + struct.unpack_from("<H", array, 8)[0] :]
    descr = rng.choice(["<f4", "<f8", "|O", "<U1", "<U0", "|V4", "<M8[s]", "|b1", ">f4", "x"])
    shape = rng.choice(["()", "(1,)", "(-1,)", "(10**9,)", f"({len(data)},)", "(2.5,)", "(" * 200])
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    new = array[:8] + struct.pack("<H", len(header)) + header + data
    return rewritten(content, {name: rng.choice([new, new, new, array[:-1], b"", None])})


def _flip_header(content: bytes, rng: random.Random) -> bytes:
    """Change bytes of members, with checksums that are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = rng.choice(archive.namelist())
        member = bytearray(archive.read(name))
    for _ in range(rng.choice([1, 3])):
        member[rng.randrange(min(len(member), 300))] = rng.randrange(256)
    return rewritten(content, {name: bytes(member)})


def _models(folder: Path) -> list[bytes]:
    from imblearn.pipeline import Pipeline

    from wbcclf import (
        Augmenter,
        Averaging,
        BackgroundRemover,
        CellCropper,
        CNNClassifier,
        ConvNet,
        EarlyStopping,
        FocalLoss,
        GradualUnfreezing,
        Head,
        ImageLoader,
        Mixing,
        Optimizer,
        SimpleCNNClassifier,
        StepDecay,
        make_blood_cells,
        save_model,
    )

    cells = make_blood_cells(12, classes=2, image_size=16, random_state=0)
    own = CNNClassifier(
        ConvNet(filters=(4,)),
        head=Head(hidden=(3,)),
        unfrozen_layers=GradualUnfreezing(layers=1),
        loss=FocalLoss(l2={"head": 0.1}),
        optimizer=Optimizer(params={"betas": (0.8, 0.9)}),
        lr_schedule=StepDecay(),
        averaging=Averaging(),
        augment=Augmenter(),
        mixing=Mixing(mixup=0.1),
        early_stopping=EarlyStopping(),
        max_epochs=1,
    )
    models = [
        SimpleCNNClassifier(max_epochs=1),
        own,
        CNNClassifier("mlp", max_epochs=1, class_weight={"lymphocyte": 1, "neutrophil": 2}),
        Pipeline([("load", ImageLoader(image_size=16)), ("clf", own)]),
        Pipeline(
            [
                ("load", ImageLoader(crop=CellCropper(image_size=16))),
                ("remove", BackgroundRemover()),
                ("crop", CellCropper(image_size=16)),
                ("clf", SimpleCNNClassifier(max_epochs=1)),
            ]
        ),
    ]
    contents = []
    for model in models:
        classifier = model.steps[-1][1] if hasattr(model, "steps") else model
        classifier.set_params(device="cpu", random_state=0)
        model.fit(cells.images, cells.target)
        save_model(model, folder / "model")
        contents.append((folder / "model").read_bytes())
    older = {"format": 2, "steps": [["", {"class": "SimpleCNNClassifier", "params": OLDER}]]}
    with zipfile.ZipFile(io.BytesIO(contents[0])) as archive:
        document = json.loads(archive.read("model.json")) | older
    return [*contents, rewritten(contents[0], {"model.json": json.dumps(document).encode()})]


def main() -> int:
    """Fuzz for so many seconds, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import torch

    from wbcclf import load_model
    from wbcclf.exceptions import ModelFormatError

    torch.set_num_threads(1)
    counts = {"loaded": 0, "refused": 0}
    slowest, end = 0.0, time.monotonic() + args.seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = [
            damaged(content, args.seed + number) for number, content in enumerate(_models(folder))
        ]
        load_model(folder / "model")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        while time.monotonic() < end:
            for source in sources:
                path = folder / "damaged"
                path.write_bytes(next(source))
                start = time.process_time()
                try:
                    load_model(path)
                    counts["loaded"] += 1
                except ModelFormatError:
                    counts["refused"] += 1
                except Exception:
                    traceback.print_exc()
                    return _keep(path)
                slowest = max(slowest, time.process_time() - start)
                grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
                if slowest > 1 or grown > 500_000:
                    print(f"{slowest:.2f} s, {grown / 1000:.0f} MB")
                    return _keep(path)
    print(f"{counts}, slowest {slowest:.2f} s, {grown / 1000:.0f} MB more")
    return 0


def _keep(path: Path) -> int:
    kept = Path(tempfile.gettempdir(), "damaged.wbcclf")
    path.replace(kept)
    print(f"The file is kept as {kept}.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
