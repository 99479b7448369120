"""What makes training fast changes nothing else; the times themselves are in benchmarks/."""

import pickle
import resource
import sys

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from wbcclf import Augmenter, CNNClassifier, ConvNet, Head, Mixing, load_model, save_model
from wbcclf.classifiers.data._batches import Batches, ImageData
from wbcclf.classifiers.network._device import resolve_precision
from wbcclf.classifiers.network._heap import keeping_freed_memory
from wbcclf.classifiers.training._mixing import Mixer

# ---------------------------------------------------------------- precision="auto"


@pytest.mark.parametrize(
    ("capable", "expected"),
    [({"amx_bf16": True}, "bfloat16"), ({"avx512_bf16": True}, "bfloat16"), ({}, "float32")],
)
def test_auto_is_bfloat16_on_cpus_that_multiply_it(capable, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable)
    assert resolve_precision("auto", "cpu", "resnet18") == expected
    assert resolve_precision("auto", "cpu", "mobilenet_v3_small") == "float32"
    assert resolve_precision("auto", "mps", "resnet18") == "float32"
    assert resolve_precision("float32", "cpu", "resnet18") == "float32"
    assert resolve_precision("bfloat16", "cpu", "efficientnet_b0") == "bfloat16"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float32"), ((8, 0), "bfloat16")])
def test_auto_is_bfloat16_on_gpus_that_multiply_it(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", "cuda:1", "mobilenet_v3_small") == expected


def test_auto_is_what_a_fit_uses(simple, cells, monkeypatch):
    for capable, expected in (({}, "float32"), ({"amx_bf16": True}, "bfloat16")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda capable=capable: capable)
        clf = simple(precision="auto").fit(cells.images, cells.target)
        named = simple(precision=expected).fit(cells.images, cells.target)
        np.testing.assert_array_equal(
            clf.predict_proba(cells.images), named.predict_proba(cells.images)
        )


# ---------------------------------------------------------------- layout


@pytest.mark.parametrize("params", [{}, {"input_size": 24}, {"unfrozen_layers": 2}], ids=repr)
@pytest.mark.filterwarnings("ignore:.*frozen at random weights")
def test_convolutions_see_channels_last(params, simple, cells):
    layouts = []

    def note(module, inputs):
        if isinstance(module, torch.nn.Conv2d) and len(inputs[0]) > 3:  # fewer are mere trials
            for x in (inputs[0], module.weight):
                layouts.append(x.is_contiguous(memory_format=torch.channels_last))

    with register_module_forward_pre_hook(note):
        clf = simple(**params).fit(cells.images, cells.target)
        n_training = len(layouts)
        clf.predict(cells.images)
    assert 0 < n_training < len(layouts)
    assert all(layouts)


# ---------------------------------------------------------------- freed memory


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is on Linux")
def test_freed_memory_is_taken_again_without_the_kernel():
    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            torch.empty(2**26, dtype=torch.uint8).fill_(1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with keeping_freed_memory():
        faults()
        with keeping_freed_memory():
            pass
        # 64 MB are 16,384 pages of 4 kB (fewer, where the kernel gives larger ones).
        assert faults() < 10
    # Afterwards as ever: each of the five is mapped again and cleared.
    assert faults() >= 5 * 32


# ---------------------------------------------------------------- data on a device


@pytest.fixture
def data():
    X = np.random.RandomState(0).randint(256, size=(20, 8, 8, 3), dtype=np.uint8)
    return ImageData(X, np.arange(20) % 3, np.linspace(1, 2, 20), rows=np.arange(1, 18))


@pytest.mark.parametrize("block_bytes", [1, 500, 1e9])
def test_data_on_a_device_gives_the_same_batches(data, block_bytes, monkeypatch):
    monkeypatch.setattr("wbcclf.classifiers.data._batches.BLOCK_BYTES", block_bytes)
    moved = data.moved("cpu")
    assert isinstance(moved.X, torch.Tensor)
    assert len(moved.X) == len(moved) == len(data)
    for mixing in (None, Mixer(Mixing(0.4), 3), Mixer(Mixing(cutmix=1.0), 3)):
        batches = [
            list(Batches(some, 4, np.random.RandomState(1), balanced=True, mixing=mixing))
            for some in (data, moved)
        ]
        for (inputs, target), (on_device, same) in zip(*batches, strict=True):
            assert isinstance(on_device["images"], torch.Tensor)
            np.testing.assert_array_equal(on_device["images"].numpy(), inputs["images"])
            np.testing.assert_array_equal(on_device["sample_weight"], inputs["sample_weight"])
            np.testing.assert_array_equal(target, same)


def test_data_on_a_device_are_augmented_there(data):
    """As on the CPU, to a grey level: see the tests of the Augmenter."""
    for (inputs, _), (on_device, _) in zip(
        *(
            Batches(some, 4, np.random.RandomState(1), augment=Augmenter(random_state=0))
            for some in (data, data.moved("cpu"))
        ),
        strict=True,
    ):
        off = np.abs(on_device["images"].numpy().astype(float) - inputs["images"])
        assert off.max() <= 1
        assert isinstance(on_device["images"], torch.Tensor)


def test_data_go_to_a_gpu_where_they_fit_and_stay_elsewhere(data, monkeypatch):
    assert data.on_device("cpu") is data
    monkeypatch.setattr(ImageData, "moved", lambda self, device: device)
    n_bytes = len(data) * 8 * 8 * 3
    for free, expected in ((2 * n_bytes, "cuda:1"), (2 * n_bytes - 1, data)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        assert data.on_device("cuda:1") is expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("augment", [None, Augmenter()])
def test_training_on_a_gpu_takes_the_data_from_there(simple, cells, augment):
    clf = simple(device="cuda", precision="auto", augment=augment, max_epochs=10)
    assert clf.fit(cells.images, cells.target).score(cells.images, cells.target) > 0.5


# ---------------------------------------------------------------- torch.compile


@pytest.mark.families  # compiling takes a quarter of a minute
def test_a_compiled_network_trains_predicts_and_is_saved_like_another(cells, tmp_path):
    """Compiled arithmetic is rounded in another way: 1e-6 in a logit, some steps later 1e-4."""
    params = {"device": "cpu", "max_epochs": 2, "head": Head(dropout=0.0), "random_state": 0}
    plain = CNNClassifier(ConvNet(filters=(4,)), **params).fit(cells.images, cells.target)
    clf = CNNClassifier(ConvNet(filters=(4,)), compile=True, **params)
    clf.fit(cells.images, cells.target)
    assert clf.net_.module_._compiled_call_impl is not None
    expected = clf.predict_proba(cells.images)
    np.testing.assert_allclose(expected, plain.predict_proba(cells.images), atol=1e-4)
    save_model(clf, tmp_path / "model")
    for other in (pickle.loads(pickle.dumps(clf)), load_model(tmp_path / "model")):
        np.testing.assert_allclose(other.predict_proba(cells.images), expected, atol=1e-5)
    assert load_model(tmp_path / "model").compile is False  # another machine may have no compiler
