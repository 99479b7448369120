"""A fit that was killed resumes at its last epoch and ends with the same model."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from wbcclf import Augmenter, CNNClassifier, CrossEntropy, Head
from wbcclf.backbones import _registry, get_backbone
from wbcclf.classifiers.options._values import digest
from wbcclf.exceptions import ModelFormatError, TrainingInterruptedWarning

# Fits in a fork, which is killed (SIGKILL) in its third epoch; then fits again, from its
# checkpoints and without any. Importing takes longer than the fits, so it is done once. Prints how
# the fork ended, and what then lay in the folder of checkpoints.
SCRIPT = """
import os, signal, sys
import numpy as np
from skorch.callbacks import Callback
from wbcclf import (
    Augmenter, EarlyStopping, GradualUnfreezing, Head, Optimizer, SimpleCNNClassifier,
    make_blood_cells,
)

class Kill(Callback):
    def on_batch_end(self, net, training=False, **kwargs):
        if training and not child and len(net.history) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

cells = make_blood_cells(36, classes=3, image_size=16, random_state=0)

def fit(folder, result):
    clf = SimpleCNNClassifier(
        max_epochs=6, batch_size=16, device="cpu", random_state=0, head=Head(dropout=0.5),
        augment=Augmenter(), lr_schedule="onecycle", early_stopping=EarlyStopping(patience=6),
        averaging=0.9, mixing="mixup", balanced_batches=True,
        optimizer=Optimizer(layer_lr_decay=0.8), unfrozen_layers=GradualUnfreezing(),
        checkpoint_dir=folder, callbacks=[Kill()],
    )
    clf.fit(cells.images, cells.target)
    state = {key: tensor.numpy() for key, tensor in clf.net_.module_.state_dict().items()}
    history = [[epoch["train_loss"], epoch["valid_loss"]] for epoch in clf.history_]
    np.savez(result, history=history, **state)

folder, killed, resumed, unbroken = sys.argv[1:]
child = os.fork()
if not child:
    fit(folder, killed)
    os._exit(0)
print(os.WTERMSIG(os.waitpid(child, 0)[1]), len(os.listdir(folder)))
fit(folder, resumed)
fit(None, unbroken)
"""


def test_a_killed_fit_ends_with_the_same_model_as_an_unbroken_one(tmp_path):
    folder = tmp_path / "checkpoints"
    results = [tmp_path / f"{name}.npz" for name in ("killed", "resumed", "unbroken")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, folder, *results],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "9 1"
    assert not results[0].exists()
    assert list(folder.iterdir()) == []  # nothing is left of a fit that ended
    with np.load(tmp_path / "resumed.npz") as a, np.load(tmp_path / "unbroken.npz") as b:
        assert sorted(a.files) == sorted(b.files)
        assert len(a["history"]) == 6
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


class Stop(Callback):
    """Interrupt in an epoch, as Ctrl-C does, and count the epochs that are trained."""

    def __init__(self, epoch):
        self.epoch = epoch

    def initialize(self):
        self.trained = 0
        return self

    def on_epoch_begin(self, net, **kwargs):
        self.trained += 1
        if len(net.history) == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture
def interrupted(simple, cells, tmp_path):
    """Return a maker of classifiers of which one with the same parameters was interrupted."""

    def make(**params):
        clf = simple(max_epochs=4, checkpoint_dir=tmp_path, **params)
        with pytest.warns(TrainingInterruptedWarning):
            clf.set_params(callbacks=[Stop(3)]).fit(cells.images, cells.target)
        assert len(list(tmp_path.glob("fit-*.pt"))) == 1
        return simple(max_epochs=4, checkpoint_dir=tmp_path, **params)

    return make


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"optimizer": "sgd", "lr_schedule": "plateau", "early_stopping": True},
        {"optimizer": "rmsprop", "lr_schedule": "cosine", "mixing": "cutmix"},
        {"optimizer": torch.optim.NAdam, "averaging": 0.9, "head": Head(hidden=(8,))},
        {
            "augment": Augmenter(),
            "class_weight": "balanced",
            "loss": CrossEntropy(l2={"conv2": 0.01}),
        },
    ],
    ids=lambda params: "-".join(params) or "plain",
)
def test_an_interrupted_fit_resumes_and_ends_as_an_unbroken_one(
    interrupted, simple, cells, params, tmp_path
):
    count = Stop(99)
    clf = interrupted(**params).set_params(callbacks=[count]).fit(cells.images, cells.target)
    assert count.trained == 2  # epochs 3 and 4
    assert [epoch["epoch"] for epoch in clf.history_] == [1, 2, 3, 4]
    whole = simple(max_epochs=4, **params).fit(cells.images, cells.target)
    np.testing.assert_array_equal(
        clf.predict_proba(cells.images), whole.predict_proba(cells.images)
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["lr", "images", "labels", "weights", "seed"])
def test_another_fit_does_not_resume_it(interrupted, cells, change):
    clf, X, y, weight = interrupted(), cells.images, cells.target, None
    if change == "lr":
        clf.set_params(lr=2e-3)
    elif change == "seed":
        clf.set_params(random_state=1)
    elif change == "images":
        X = X.copy()
        X[0, 0, 0, 0] ^= 1
    elif change == "labels":
        y = y.copy()
        y[:2] = y[1::-1]
        assert (y != cells.target).any()
    else:
        weight = np.r_[2.0, np.ones(len(y) - 1)]
    count = Stop(99)
    clf.set_params(callbacks=[count]).fit(X, y, sample_weight=weight)
    assert count.trained == 4


def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(interrupted, cells, tmp_path):
    clf = interrupted()
    (path,) = tmp_path.glob("fit-*.pt")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelFormatError, match=r"fit-.*\.pt cannot be resumed.*Delete it"):
        clf.fit(cells.images, cells.target)


def test_a_checkpoint_is_never_unpickled(interrupted, cells, tmp_path):
    clf = interrupted()
    (path,) = tmp_path.glob("fit-*.pt")
    state = torch.load(path, weights_only=True)
    torch.save(state | {"history": [Stop(1)]}, path)  # an object of a class
    with pytest.raises(ModelFormatError, match="UnpicklingError"):
        clf.fit(cells.images, cells.target)


def test_a_checkpoint_needs_a_seed(simple, cells, tmp_path):
    with pytest.raises(ValueError, match="checkpoint_dir needs a random_state"):
        simple(random_state=None, checkpoint_dir=tmp_path).fit(cells.images, cells.target)


def test_other_content_of_the_weights_file_is_another_fit(simple, cells, tmp_path, weights_file):
    path = tmp_path / "weights.pt"
    state = torch.load(weights_file("simple_cnn"), weights_only=True)
    torch.save(state, path)
    params = {"weights": path, "checkpoint_dir": tmp_path / "c", "max_epochs": 3}
    with pytest.warns(TrainingInterruptedWarning):
        simple(callbacks=[Stop(2)], **params).fit(cells.images, cells.target)
    torch.save({name: tensor * 0.5 for name, tensor in state.items()}, path)
    count = Stop(99)
    simple(callbacks=[count], **params).fit(cells.images, cells.target)
    assert count.trained == 3


def test_a_backbone_needs_no_version_for_a_checkpoint(tiny, cells, tmp_path, monkeypatch):
    """The user asks for this very fit to be resumed."""
    spec = dataclasses.replace(get_backbone(tiny), version=None)
    monkeypatch.setitem(_registry._BACKBONES, tiny, spec)
    params = {"max_epochs": 3, "random_state": 0, "device": "cpu", "checkpoint_dir": tmp_path}
    with pytest.warns(TrainingInterruptedWarning):
        CNNClassifier(tiny, callbacks=[Stop(2)], **params).fit(cells.images, cells.target)
    count = Stop(99)
    CNNClassifier(tiny, callbacks=[count], **params).fit(cells.images, cells.target)
    assert count.trained == 2


def test_a_parameter_that_pickle_refuses_cannot_have_a_checkpoint(simple, cells, tmp_path):
    clf = simple(optimizer=lambda *args, **params: torch.optim.SGD(*args, **params))
    clf.set_params(checkpoint_dir=tmp_path)
    with pytest.raises(
        ValueError, match=r"cannot be used: the parameter optimizer .* pickle takes"
    ):
        clf.fit(cells.images, cells.target)


def test_a_folder_that_cannot_be_written_to_is_named_before_training(simple, cells, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"checkpoint_dir='.*file' cannot be written to"):
        simple(checkpoint_dir=tmp_path / "file").fit(cells.images, cells.target)


class Settings:
    """An object that has no text of its own."""

    def __init__(self, values):
        self.values = values


@pytest.mark.parametrize(
    "wrap",
    [np.asarray, lambda v: [np.asarray(v)], lambda v: Settings(np.asarray(v))],
    ids=["array", "list of arrays", "object with an array"],
)
def test_every_value_of_an_array_is_in_its_text(wrap):
    long = np.zeros(5000)
    text = digest(wrap(long))
    assert digest(wrap(long.copy())) == text
    long[2500] = 1  # where repr() has "..."
    assert digest(wrap(long)) != text
    assert digest(wrap(np.zeros(5000, np.float32))) != text
