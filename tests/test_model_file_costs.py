"""Files of models and weights that ask for more time or memory than their size stands for."""

import io
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from fuzz_model_files import npy, rewritten, with_document

from wbcclf import Augmenter, CNNClassifier, ConvNet, Head, make_blood_cells, save_model
from wbcclf.backbones import get_backbone
from wbcclf.backbones._chain import build_chain


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    cells = make_blood_cells(12, classes=2, image_size=16, random_state=0)
    classifier = CNNClassifier(
        ConvNet(filters=(4,)),
        head=Head(hidden=(3,)),
        augment=Augmenter(),
        max_epochs=1,
        device="cpu",
    ).fit(cells.images, cells.target)
    path = tmp_path_factory.mktemp("model") / "m.wbcclf"
    save_model(classifier, path)
    return path


def inflated(path, member, start, filling):
    """Write 600 MB that take 3 MB in a zip."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(member, "w") as file,
    ):
        file.write(start)
        for _ in range(600):
            file.write(filling * 2**20)


def extra_fields(path, _):
    """Write a zip's directory that zipfile needs a minute for."""
    extra = bytes(65532)
    entry = struct.pack("<4s24x3H12x", b"PK\1\2", 0, len(extra), 0) + extra
    directory = entry * 150
    end = struct.pack("<4s4x2H2L2x", b"PK\5\6", 150, 150, len(directory), 0)
    path.write_bytes(directory + end)


def parameters(**params):
    def write(path, model_file):
        path.write_bytes(with_document(model_file, lambda _, loader, clf: clf.update(params)))

    return write


def giant_timm(path, model_file):
    def change(document, loader, clf):
        clf["backbone"] = document["backbone"] = "timm:vit_giant_patch14_dinov2"

    path.write_bytes(with_document(model_file, change))


def convnet(**params):
    return parameters(backbone={"class": "ConvNet", "params": params})


def head(hidden):
    return parameters(head={"class": "Head", "params": {"hidden": hidden, "dropout": 0.1}})


def text_in(holder, name, text):
    """Put a JSON text into a document that json.dumps would take long to write."""

    def write(path, model_file):
        def change(document, loader, clf):
            holders = {"params": clf, "learnt": document["learnt"], "document": document}
            holders[holder][name] = "@"

        content = with_document(model_file, change)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            document = archive.read("model.json").replace(b'"@"', text)
        path.write_bytes(rewritten(content, {"model.json": document}))

    return write


def members(number, content):
    """Add tensors of one number each, in arrays with a given header."""

    def write(path, model_file):
        added = {f"network/a{n}.npy": content for n in range(number)}
        path.write_bytes(rewritten(model_file.read_bytes(), added))

    return write


def many_layers_with_tensors(path, model_file):
    tensors(path, model_file)
    head([1] * 4_400)(path, path)


def header(text):
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + bytes(4)


ONE = npy(np.zeros(1, np.float32))
tensors = members(9_000, ONE)
PYTHON_2 = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1L,),%s}\n"
LISTS = b"[" + b"[]," * 1_300_000 + b"[]]"
NUMBERS = b"[" + b"0," * 1_900_000 + b"0]"
PAIRS = b'{"dict":[' + b'["a",0],' * 90_000 + b'["a",0]]}'  # as many as a file may have

OPTIMIZER = b'{"class":"Optimizer","params":{"params":%s}}'
LOSS = b'{"class":"CrossEntropy","params":{"l2":%s}}'
# Every one of its parameters that may be an estimator, and itself once more.
WHOLE = (
    b'"head":{"class":"Head","params":{}},"augment":{"class":"Augmenter","params":{}},'
    b'"mixing":{"class":"Mixing","params":{}},"optimizer":{"class":"Optimizer","params":{}},'
    b'"lr_schedule":{"class":"Cosine","params":{}},'
)
CLASSIFIER = b'{"class":"CNNClassifier","params":{%s"backbone":' % WHOLE
CLASSIFIER_LOSS = b'{"class":"CNNClassifier","params":{%s"loss":' % WHOLE


def nested(start, depth):
    return start * depth + b"0" + b"}}" * depth


COSTLY = {
    "filters": convnet(filters=[8000, 8000]),
    "many blocks": convnet(filters=[1] * 500_000),
    "kernel": convnet(filters=[4], kernel_size=3001),
    "hidden": head([10**8]),
    "many layers": head([1] * 500_000),
    "hidden overflow": head([2**62, 2**62]),
    "layers with tensors": many_layers_with_tensors,
    "tensors": tensors,
    "empty members": members(85_000, b""),
    "headers of many lines": members(900, header(PYTHON_2 % (b"\n" * 9_800))),
    "headers of Python 2": members(9_000, header(PYTHON_2 % b"")),
    "headers of many axes": members(
        900,
        header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n" % (b"1," * 4_900)),
    ),
    "lists": text_in("params", "optimizer", OPTIMIZER % LISTS),
    "numbers": text_in("params", "optimizer", OPTIMIZER % NUMBERS),
    "keys": text_in("params", "optimizer", OPTIMIZER % PAIRS),
    "keys of blocks": text_in("params", "loss", LOSS % PAIRS),
    "losses": text_in("params", "loss", nested(b'{"class":"FocalLoss","params":{"l1":', 400)),
    "classifiers": text_in("params", "backbone", nested(CLASSIFIER, 400)),
    "classifiers in each other's loss": text_in("params", "loss", nested(CLASSIFIER_LOSS, 24)),
    "history of numbers": text_in("learnt", "history_", NUMBERS),
    "history of pairs": text_in("learnt", "history_", PAIRS),
    "history of dicts": text_in("learnt", "history_", b"[" + b"{}," * 90_000 + b"{}]"),
    "version of numbers": text_in("document", "version", NUMBERS),
    "format of numbers": text_in("document", "format", NUMBERS),
    "timm": giant_timm,
    "extra fields": extra_fields,
    "spaces": lambda path, _: inflated(path, "model.json", b"", b" "),
    "deep": lambda path, _: path.write_bytes(
        rewritten(_.read_bytes(), {"model.json": b"[" * 4_000_000})
    ),
    "steps": lambda path, model: path.write_bytes(
        with_document(model, lambda doc, *_: doc.update(steps=doc["steps"] * 2_000))
    ),
    "text": lambda path, model: path.write_bytes(
        with_document(model, lambda doc, *_: doc.update(backbone="x" * 3_000_000))
    ),
}
# In a process of its own: a peak of memory is the whole process's, and earlier tests had theirs.
MEASURE = """
import resource, sys, time
import timm, torch, torchvision
import wbcclf, wbcclf.backbones._timm
import wbcclf.classifiers.network._restoring, wbcclf.classifiers.training._net
from wbcclf.backbones import get_backbone
from wbcclf.backbones._chain import build_chain
from wbcclf.exceptions import ModelFormatError, WeightsMismatchError
good, kind, *paths = sys.argv[1:]
wbcclf.load_model(good)  # what is imported by the first one
torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in paths:
    start = time.process_time()
    try:
        if kind == "models":
            wbcclf.load_model(path)
        else:
            build_chain(get_backbone("mlp" if "expanded" in path else "simple_cnn"), path)
        outcome = "loaded"
    except (ModelFormatError, WeightsMismatchError):
        outcome = "refused"
    seconds = time.process_time() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(outcome, seconds, grown / 1000, path, flush=True)
"""


def check_costs(model_file, kind, paths):
    """Check that every file is refused, in a second and 500 MB."""
    assert all(path.stat().st_size < 11e6 for path in paths)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(model_file), kind, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths), done.stderr
    for line in lines:
        outcome, seconds, megabytes, _ = line.split(" ", 3)
        print(line)
        assert outcome == "refused", line
        assert float(seconds) < 1, line
        assert float(megabytes) < 500, line  # the most since the first file


def test_a_small_file_costs_little(model_file, tmp_path):
    for name, write in COSTLY.items():
        write(tmp_path / name, model_file)
    check_costs(model_file, "models", [tmp_path / name for name in COSTLY])


def test_weights_cost_no_more_than_their_file(model_file, tmp_path):
    zeros = npy(np.zeros(1, np.float32)).replace(b"(1,), }        ", b"(157286400,), }")
    inflated(tmp_path / "zeros.npz", "a.npy", zeros[:128], b"\0")
    torch.save({"conv1.0.weight": torch.zeros(2)}, tmp_path / "stored.pth")
    with zipfile.ZipFile(tmp_path / "stored.pth") as stored:
        with zipfile.ZipFile(tmp_path / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as deflated:
            for name in stored.namelist():
                deflated.writestr(name, stored.read(name) + bytes(100_000))
    torch.save({"dense1.1.weight": torch.zeros(1).expand(128, 10**9)}, tmp_path / "expanded.pth")
    torch.save({"module." * 10**5 + "a": torch.zeros(1)}, tmp_path / "prefixes.pth")
    extra_fields(tmp_path / "extra.npz", None)
    check_costs(model_file, "weights", sorted({*tmp_path.iterdir()} - {tmp_path / "stored.pth"}))


def test_a_compressed_npz_of_real_weights_loads(tmp_path):
    state = get_backbone("simple_cnn").build().state_dict()
    np.savez_compressed(tmp_path / "w.npz", **{name: t.numpy() for name, t in state.items()})
    assert not build_chain(get_backbone("simple_cnn"), tmp_path / "w.npz")[1].missing
