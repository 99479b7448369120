"""Keys of what is kept on disk: what must change them, and what must not."""

import copy
import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from wbcclf import CNNClassifier, ConvNet, Head
from wbcclf.backbones import _registry, get_backbone
from wbcclf.classifiers.caching import _keys
from wbcclf.classifiers.caching._keys import add_array, add_weights, image_key, stage_keys
from wbcclf.classifiers.training._fit import check_fit

N_SIMPLE = 5  # blocks of simple_cnn


def network(backbone="simple_cnn", shape=(16, 16, 3), **params):
    clf = CNNClassifier(backbone, **({"unfrozen_layers": 0, "device": "cpu"} | params))
    return check_fit(clf, shape, ["a", "b"])


def keys(built, device="cpu", precision="float32"):
    return stage_keys(built, device, precision)


def digest(add, *values):
    found = hashlib.sha256()
    for value in values:
        add(found, value)
    return found.hexdigest()


def test_equal_networks_have_equal_keys():
    first = network()
    found = keys(first)
    assert len(set(found)) == len(found) == 1 + N_SIMPLE + 1  # the image, blocks, pooling
    assert keys(network()) == found
    assert keys(copy.deepcopy(first).train()) == found
    assert keys(network(head=Head(hidden=(8,), dropout=0.3), lr=1.0)) == found  # above the cut
    assert keys(network(unfrozen_layers=2)) == found[: 1 + N_SIMPLE - 2]


SCRIPT = """
from wbcclf import SimpleCNNClassifier
from wbcclf.classifiers.caching._keys import stage_keys
from wbcclf.classifiers.training._fit import check_fit
clf = SimpleCNNClassifier(unfrozen_layers=0, device="cpu")
print(*stage_keys(check_fit(clf, (16, 16, 3), ["a", "b"]), "cpu", "float32"))
"""


def test_processes_agree():
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        env={"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},  # texts have other hashes than here
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == keys(network())


def test_changed_weights_change_the_keys_from_their_block_on():
    built = network()
    before = keys(built)
    with torch.no_grad():
        built.backbone[2][0].weight[3, 1, 2, 2] += 1e-6
    after = keys(built)
    assert after[:3] == before[:3]
    assert not set(after[3:]) & set(before[3:])


@pytest.mark.parametrize("change", ["input_size", "value_range", "pooling"])
def test_what_stages_depend_on_changes_their_keys(change):
    before = keys(network())
    if change == "value_range":
        built = network()
        built.preprocessing.scale *= 255
        after = keys(built)
    elif change == "pooling":
        after = keys(network(head=Head("max")))
        assert after[:-1] == before[:-1]
        before, after = before[-1:], after[-1:]
    else:
        after = keys(network(input_size=20))
    assert not set(before) & set(after)


def test_devices_of_one_kind_share_keys_and_precisions_do_not(monkeypatch):
    built = network()
    found = keys(built)
    assert keys(built, "cuda:0") == keys(built, "cuda:1") != found
    assert keys(built, precision="bfloat16") != found
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not torch.backends.cudnn.allow_tf32)
    assert keys(built) != found
    monkeypatch.undo()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    assert keys(built) != found
    torch.set_float32_matmul_precision(before)
    assert keys(built) == found


@pytest.mark.parametrize("of", ["torch", "wbcclf", "keys"])
def test_other_versions_change_the_keys(of, monkeypatch):
    built = network()
    before = keys(built)
    if of == "torch":
        monkeypatch.setattr(torch, "__version__", "99")
    elif of == "wbcclf":
        monkeypatch.setattr(_keys, "__version__", "99")
    else:
        monkeypatch.setattr(_keys, "KEYS_FORMAT", _keys.KEYS_FORMAT + 1)
    assert not set(before) & set(keys(built))


@pytest.mark.parametrize("change", [{"version": "2"}, {"name": "other"}], ids=["version", "name"])
def test_another_name_or_version_of_the_spec_changes_the_keys(change, tiny, monkeypatch):
    before = keys(network(tiny))
    spec = dataclasses.replace(get_backbone(tiny), **change)
    monkeypatch.setitem(_registry._BACKBONES, spec.name, spec)
    assert not set(before) & set(keys(network(spec.name)))


def test_convnets_with_equal_weights_have_other_keys():
    nets = [{}, {"padding": "valid"}, {"dropout": 0.1}, {"dropout": (0.1, 0.2)}]
    found = [keys(network(ConvNet(filters=(4, 4), **params))) for params in nets]
    assert not any(set(one) & set(other) for one in found for other in found if one is not other)
    assert keys(network(ConvNet(filters=[4, 4]))) == found[0]


def test_a_network_keeps_the_version_that_it_was_built_from(tiny, monkeypatch):
    """Whatever is registered under that name by now, as where a pickled model is loaded."""
    built = network(tiny)
    before = keys(built)
    spec = dataclasses.replace(get_backbone(tiny), version="2")
    monkeypatch.setitem(_registry._BACKBONES, tiny, spec)
    assert keys(built) == before


def bumped(array):
    array = array.copy()
    array.flat[2500] += 1
    return array


LONG = np.zeros(5000)


def test_arrays_are_told_by_dtype_shape_and_every_byte():
    found = digest(add_array, LONG)
    assert digest(add_array, LONG.copy()) == found
    assert digest(add_array, np.zeros(10000)[::2]) == found
    others = [bumped(LONG), LONG.astype(np.float32), LONG.astype(">f8"), LONG.reshape(2, -1)]
    assert len({found, *(digest(add_array, array) for array in others)}) == 5
    assert digest(add_array, LONG[:1], LONG[:2]) != digest(add_array, LONG[:2], LONG[:1])
    assert digest(add_array, LONG[:0]) != digest(add_array, LONG[:0].astype(int))


def test_images_are_told_by_dtype_shape_and_every_byte():
    image = np.zeros((40, 50, 3), np.uint8)
    found = image_key(image)
    assert image_key(np.zeros((50, 40, 3), np.uint8).transpose(1, 0, 2)) == found
    others = [bumped(image), image.astype(np.float32), image.reshape(50, 40, 3)]
    assert len({found, *map(image_key, others)}) == 4


class Tensors(nn.Module):
    def __init__(self, extra=None, **tensors):
        super().__init__()
        self.extra = extra
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


MAPS = torch.arange(96.0).view(2, 3, 4, 4)
BASE = Tensors(weight=MAPS)
OTHER_WEIGHTS = {
    "name": Tensors(bias=MAPS),
    "value": Tensors(weight=MAPS + 1),
    "dtype": Tensors(weight=MAPS.half()),
    "shape": Tensors(weight=MAPS.view(2, 4, 3, 4)),
    "layout": Tensors(weight=MAPS.to(memory_format=torch.channels_last)),
    "one more": Tensors(weight=MAPS, bias=torch.zeros(2)),
    "extra state": Tensors({"scale": 2}, weight=MAPS),
    "sparse": Tensors(weight=MAPS.to_sparse()),
    "sparse, value": Tensors(weight=(MAPS + 1).to_sparse()),
}


def test_other_weights_have_another_digest():
    found = [digest(add_weights, module) for module in (BASE, *OTHER_WEIGHTS.values())]
    assert len(set(found)) == 1 + len(OTHER_WEIGHTS)


@pytest.mark.parametrize("module", OTHER_WEIGHTS.values(), ids=OTHER_WEIGHTS)
def test_copied_weights_have_the_same_digest(module):
    assert digest(add_weights, copy.deepcopy(module)) == digest(add_weights, module)


def test_strides_of_axes_of_length_one_mean_nothing():
    one, other = torch.ones(1, 1, 1, 3).permute(0, 3, 1, 2), torch.ones(1, 3, 1, 1)
    assert one.stride() != other.stride()
    assert digest(add_weights, Tensors(weight=one)) == digest(add_weights, Tensors(weight=other))


def test_tensors_of_any_kind_have_a_digest():
    module = Tensors(
        bf16=torch.ones(3, dtype=torch.bfloat16),
        c64=torch.ones(3, dtype=torch.complex64),
        number=torch.tensor(3),
        flags=torch.tensor([True, False]),
        empty=torch.zeros(0),
        strided=torch.arange(20)[::3],
    )
    assert digest(add_weights, module) == digest(add_weights, copy.deepcopy(module))
