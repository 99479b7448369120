"""What is wrong before any image is read is found before any image is read."""

import numpy as np
import pytest
import torch

from wbcclf import CrossEntropy, Head, Mixing, Optimizer, SimpleCNNClassifier, StepDecay
from wbcclf.classifiers.training._fit import check_fit
from wbcclf.exceptions import WeightsNotFoundError

CLASSES = ["eosinophil", "lymphocyte", "neutrophil"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"unfrozen_layers": "conv9"}, "conv9"),
        ({"lr": -1.0}, "'lr' parameter"),
        ({"input_size": (8,)}, "input_size must be"),
        ({"head": Head("token")}, "pooling='token'"),
        ({"head": Head(dropout=(0.1, 0.2))}, "dropout"),
        ({"optimizer": Optimizer(params={"momentun": 0.9})}, "momentun"),
        ({"lr_schedule": StepDecay(step_size=0)}, "'step_size' parameter of StepDecay"),
        ({"mixing": Mixing(mixup=-1.0)}, "'mixup' parameter of Mixing"),
        ({"loss": CrossEntropy(l2={"conv9": 0.1})}, "conv9"),
        ({"class_weight": {"basophil": 2.0}}, "class_weight"),
        ({"device": "cuda:99"}, "device='cuda:99'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_it_fails_as_fit_does(simple, cells, params, message):
    with pytest.raises(ValueError, match=message) as of_fit:
        simple(**params).fit(cells.images, cells.target)
    with pytest.raises(ValueError, match=message) as of_check:
        check_fit(simple(**params), (16, 16, 3), CLASSES)
    assert str(of_check.value) == str(of_fit.value)


def test_missing_weights_and_folders_are_found(simple, tmp_path):
    with pytest.raises(WeightsNotFoundError):
        check_fit(simple(weights=tmp_path / "none.pt"), (16, 16, 3), CLASSES)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="memory"):
        check_fit(simple(memory=tmp_path / "file" / "memory"), (16, 16, 3), CLASSES)
    with pytest.raises(ValueError, match="checkpoint_dir"):
        check_fit(simple(checkpoint_dir=tmp_path / "file"), (16, 16, 3), CLASSES)


def test_nothing_is_wrong_and_nothing_is_changed(simple, cells):
    clf = simple(unfrozen_layers=1, class_weight={"neutrophil": 2.0})
    before = vars(clf).copy()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    check_fit(clf, (16, 16, 3), np.array(CLASSES))  # and does not warn of random frozen blocks
    assert vars(clf) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_named_classes_are_checked_too(tmp_path):
    check_fit(SimpleCNNClassifier(device="cpu"), (64, 48, 1), ["a", "b"])
