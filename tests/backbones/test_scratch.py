"""Scratch networks against the published descriptions, written out in functions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from wbcclf import CNNClassifier, ConvNet, make_blood_cells
from wbcclf.backbones import check_backbone, get_backbone
from wbcclf.backbones._chain import build_chain, feature_shape
from wbcclf.backbones._scratch import SCRATCH


def built(backbone, size):
    """Return a chain in eval mode, images, and the chain's tensors by name."""
    torch.manual_seed(0)
    chain, _ = build_chain(get_backbone(backbone), None)
    images = torch.rand(2, 3, *size) * 2 - 1
    chain.eval()(images)  # lazy layers learn their size
    state = chain.state_dict()
    for key, tensor in state.items():
        if key.endswith(("bias", "running_mean")):
            tensor.uniform_(-0.1, 0.1)
        elif key.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    return chain, images, state


def same(x, weight, bias=None, groups=1):
    """Convolve as Keras' padding="same" does: the odd pixel goes right and below."""
    total = weight.shape[2] - 1
    before, after = total // 2, total - total // 2
    x = functional.pad(x, (before, after, before, after))
    return functional.conv2d(x, weight, bias, groups=groups)


def conv_blocks(x, state, prefix, layer="0", valid=False):
    """Run convolution, ReLU and 2x2 pooling for every block under `prefix`."""
    number = 1
    while (key := f"{prefix}{number}.{layer}") + ".weight" in state:
        convolve = functional.conv2d if valid else same
        x = functional.relu(convolve(x, state[key + ".weight"], state[key + ".bias"]))
        x = functional.max_pool2d(x, 2)
        number += 1
    return x


CONVS = {
    "cnn8": [(8, 3)],
    "cnn_3block": [(8, 5), (16, 3), (32, 3)],
    "nine_class_cnn": [(32, 3), (32, 3), (64, 3)],
    "field_cnn_baseline": [(32, 3)],
    "field_cnn": [(16, 2), (32, 2), (64, 2)],
}


@pytest.mark.parametrize(("name", "layers"), CONVS.items())
def test_convolutional_networks_are_what_was_published(name, layers):
    chain, images, state = built(name, (40, 51))
    kernels = [tensor.shape for key, tensor in state.items() if key.endswith("0.weight")]
    assert [(shape[0], shape[2]) for shape in kernels] == layers
    expected = conv_blocks(images, state, "conv", valid=name.startswith("field"))
    torch.testing.assert_close(chain(images), expected, rtol=1e-5, atol=1e-5)


def test_simple_cnn_is_its_formula():
    chain, images, state = built("simple_cnn", (29, 14))
    x = images
    for number in range(1, 6):
        x = functional.conv2d(x, state[f"conv{number}.0.weight"], padding=1)
        x = functional.max_pool2d(x, 2, ceil_mode=True)
        weight, bias = state[f"conv{number}.2.weight"], state[f"conv{number}.2.bias"]
        x = functional.relu(functional.group_norm(x, 8, weight, bias))
    torch.testing.assert_close(chain(images), x, rtol=1e-5, atol=1e-5)


def test_mlp_is_five_dense_layers_of_128_on_any_image_size():
    for size in ((1, 1), (9, 14)):
        chain, images, state = built("mlp", size)
        x = images.flatten(1)
        for number in range(1, 6):
            key = f"dense{number}.{1 if number == 1 else 0}"
            assert state[key + ".weight"].shape[0] == 128
            x = functional.relu(functional.linear(x, state[key + ".weight"], state[key + ".bias"]))
        torch.testing.assert_close(chain(images), x, rtol=1e-5, atol=1e-5)
        assert feature_shape(chain, *size) == (128,)


def test_wide_deep_joins_the_three_blocks_and_a_wide_convolution():
    chain, images, state = built("wide_deep", (40, 51))
    assert [name for name, _ in chain.named_children()] == ["wide_deep"]
    deep = {k.removeprefix("wide_deep.deep."): v for k, v in state.items()}
    deep = {f"conv{int(k[0]) + 1}{k[1:]}": v for k, v in deep.items() if k[0].isdigit()}
    wide = same(images, state["wide_deep.wide.1.weight"], state["wide_deep.wide.1.bias"])
    assert state["wide_deep.wide.1.weight"].shape == (8, 3, 20, 20)
    wide = functional.max_pool2d(functional.relu(wide), 8)
    expected = torch.cat([conv_blocks(images, deep, "conv"), wide], dim=1)
    assert expected.shape[1] == 40
    torch.testing.assert_close(chain(images), expected, rtol=1e-5, atol=1e-5)


def test_sepconv_is_a_pair_and_four_separable_pairs():
    chain, images, state = built("sepconv", (40, 51))
    x = images
    for number, filters in enumerate((16, 32, 64, 128, 256), start=1):
        layers = iter(range(20))

        def tensors(number=number, layers=layers):
            while f"block{number}.{(key := next(layers))}.weight" not in state:
                pass
            key = f"block{number}.{key}"
            return state[key + ".weight"], state.get(key + ".bias")

        for _ in range(2):
            if number > 1:
                depthwise, _ = tensors()
                assert depthwise.shape[1:] == (1, 3, 3)
                x = same(x, depthwise, groups=len(depthwise))
            x = functional.relu(same(x, *tensors()))
        assert x.shape[1] == filters
        if number > 1:
            weight, bias = tensors()
            keys = [k for k in state if k.startswith(f"block{number}") and "running" in k]
            x = functional.batch_norm(x, *(state[k] for k in keys), weight, bias)
        x = functional.max_pool2d(x, 2)
    torch.testing.assert_close(chain(images), x, rtol=1e-5, atol=1e-5)
    dropouts = [m.p for m in chain.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropouts == [0, 0, 0, 0.2, 0.2]


@pytest.mark.parametrize("spec", SCRATCH, ids=lambda spec: spec.name)
def test_every_scratch_network_keeps_the_contract_of_a_backbone(spec):
    check_backbone(spec)
    below = spec.smallest_size - 1
    if below:
        chain, _ = build_chain(spec, None)
        with pytest.raises(RuntimeError):
            chain.eval()(torch.zeros(1, 3, below, below))


@pytest.mark.parametrize("name", ["cnn_3block", "mlp", "sepconv"])
def test_kernels_start_he_normal(name):
    _, _, state = built(name, (32, 32))
    for key, kernel in state.items():
        if kernel.ndim > 1 and kernel.numel() > 2000:
            expected = (2 / kernel[0].numel()) ** 0.5
            assert float(kernel.std()) == pytest.approx(expected, rel=0.1), key


# ---------------------------------------------------------------- ConvNet


@given(
    filters=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    kernel_size=st.integers(1, 6),
    padding=st.sampled_from(["same", "valid"]),
    extra=st.integers(0, 9),
)
@settings(max_examples=30, deadline=None)
def test_any_convnet_works_from_its_smallest_size_up(filters, kernel_size, padding, extra):
    spec = ConvNet(tuple(filters), kernel_size, padding).spec()
    chain, _ = build_chain(spec, None)
    shape = feature_shape(chain, spec.smallest_size, spec.smallest_size + extra)
    assert shape[:2] == (filters[-1], 1)
    names = [name for name, _ in chain.named_children()]
    assert names == [f"conv{number + 1}" for number in range(len(filters))]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"filters": ()}, r"0 filters entries.*at least one block"),
        ({"filters": (8, 0)}, r"'filters'.*each item is an int in the range \[1, inf\).*\(8, 0\)"),
        ({"kernel_size": (3, 5)}, r"3 filters entries, but kernel_size=\(3, 5\)"),
        ({"dropout": (0.1, 0.2, 1.0)}, r"'dropout' parameter of ConvNet"),
        ({"padding": "full"}, r"'padding' parameter of ConvNet"),
    ],
)
def test_impossible_convnets_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        ConvNet(**params).spec()


def test_a_convnet_is_searched_copied_and_trained_like_any_parameter():
    from sklearn.model_selection import GridSearchCV

    cells = make_blood_cells(24, classes=2, image_size=16, random_state=0)
    clf = CNNClassifier(ConvNet((4,)), max_epochs=1, device="cpu", random_state=0)
    search = GridSearchCV(clf, {"backbone__filters": [(4,), (4, 8)]}, cv=2)
    search.fit(cells.images, cells.target)
    assert len(search.cv_results_["params"]) == 2
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_
    n_blocks = len(best.net_.module_.backbone)
    assert n_blocks == len(search.best_params_["backbone__filters"])


def test_convnets_that_differ_have_other_versions():
    """They share a name, and weights that do not tell padding or dropout."""
    same_shapes = [ConvNet(), ConvNet(padding="valid"), ConvNet(dropout=0.1), ConvNet(dropout=0.2)]
    assert len({net.spec().version for net in same_shapes}) == len(same_shapes)
    assert ConvNet(filters=[16, 32, 64]).spec().version == ConvNet().spec().version
