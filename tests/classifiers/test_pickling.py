"""A fitted pipeline in a file: read by a fresh process, on another machine, without the data."""

import copy
import os
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from imblearn.pipeline import Pipeline

from wbcclf import SMOTE, Augmenter, CNNClassifier

# Where validation images are training images, too, what is measured on them matters to no one.
pytestmark = pytest.mark.filterwarnings("ignore:.*images of X_val are in X, too")

# Unpickle, predict, save the probabilities: nothing of this process is there.
FRESH_PROCESS = """
import sys, joblib, numpy as np
pipe = joblib.load(sys.argv[1])
np.save(sys.argv[3], pipe.predict_proba(np.load(sys.argv[2])))
np.save(sys.argv[4], pipe.predict(np.load(sys.argv[2])))
"""


@pytest.fixture
def no_gpu(monkeypatch):
    """Make this machine one without any accelerator."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture(scope="module")
def fitted(simple, cells):
    return simple(early_stopping=True).fit(cells.images, cells.target)


def test_dumped_pipeline_predicts_the_same_in_a_fresh_process(simple, cells, tmp_path):
    steps = [
        ("aug", Augmenter(random_state=0)),
        ("smote", SMOTE(random_state=0)),
        ("clf", simple(early_stopping=True, augment=Augmenter(), lr_schedule="cosine")),
    ]
    pipe = Pipeline(steps).fit(cells.images, cells.target)
    paths = [tmp_path / name for name in ("model.joblib", "X.npy", "proba.npy", "labels.npy")]
    joblib.dump(pipe, paths[0])
    np.save(paths[1], cells.images)
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(
        [sys.executable, "-W", "error", "-c", FRESH_PROCESS, *map(str, paths)],
        check=True,
        env=environment,
        timeout=300,
    )
    # The same machine and as many threads: the same bits.
    assert np.array_equal(np.load(paths[2]), pipe.predict_proba(cells.images))
    assert np.array_equal(np.load(paths[3]), pipe.predict(cells.images))


@pytest.mark.parametrize("through", [copy.deepcopy, lambda clf: pickle.loads(pickle.dumps(clf))])
def test_copies_predict_the_same_bits(fitted, cells, through):
    copied = through(fitted)
    expected = fitted.predict_proba(cells.images)
    assert np.array_equal(copied.predict_proba(cells.images), expected)
    assert copied.history_ == fitted.history_
    assert copied.get_params() == fitted.get_params()


def test_unpickled_net_has_nothing_that_only_training_needs(fitted):
    net = pickle.loads(pickle.dumps(fitted)).net_
    assert hasattr(fitted.net_, "optimizer_") and fitted.net_.callbacks_
    assert not hasattr(net, "optimizer_")
    assert not net.callbacks_
    assert net.device == "cpu"
    assert {tensor.device.type for tensor in net.module_.state_dict().values()} == {"cpu"}


def test_pickling_leaves_the_original_able_to_train(simple, cells):
    clf = simple().fit(cells.images, cells.target)
    pickle.dumps(clf)
    assert hasattr(clf.net_, "optimizer_")
    clf.partial_fit(cells.images, cells.target)


@pytest.mark.parametrize("warm_start", [False, True])
def test_unpickled_classifier_can_be_trained_on(simple, cells, warm_start):
    clf = simple(warm_start=warm_start, max_epochs=3).fit(cells.images, cells.target)
    first = [epoch["train_loss"] for epoch in clf.history_]
    again = pickle.loads(pickle.dumps(clf))
    again.fit(cells.images, cells.target)
    now = [epoch["train_loss"] for epoch in again.history_]
    if warm_start:
        assert now[:3] == first and now[3] < first[0]
    else:
        assert now == first
    again.partial_fit(cells.images, cells.target)
    assert again.n_iter_ == len(now) + 1


def test_frozen_blocks_stay_frozen_after_unpickling(tiny, weights_file, cells):
    clf = CNNClassifier(tiny, weights=weights_file(tiny), unfrozen_layers=1, device="cpu")
    clf.set_params(max_epochs=1).fit(cells.images, cells.target)
    again = pickle.loads(pickle.dumps(clf)).partial_fit(cells.images, cells.target)
    before = clf.net_.module_.backbone[0].state_dict()
    after = again.net_.module_.backbone[0].state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


def test_pickle_holds_the_weights_and_not_the_training_data(simple, cells):
    X = np.random.default_rng(0).integers(0, 256, (2000, 16, 48, 3), dtype=np.uint8)
    clf = simple(max_epochs=1, batch_size=500, early_stopping=True, augment=Augmenter())
    clf.fit(X, np.arange(2000) % 2, X_val=X[:1000], y_val=np.arange(1000) % 2)
    clf.partial_fit(X, np.arange(2000) % 2)
    n_weights = sum(tensor.numel() for tensor in clf.net_.module_.state_dict().values())
    size = len(pickle.dumps(clf))
    # Random bytes do not compress: the images would add 4.6 MB. What may be there are the weights
    # (4 bytes each, once), the row numbers (8 bytes each) and small change; the optimiser's two
    # moments would already triple it.
    assert X.nbytes > 4_000_000
    assert 4 * n_weights < size < 4 * n_weights + 8 * 2 * len(X) + 100_000


def test_a_callback_that_holds_data_is_not_in_the_net(simple, cells):
    clf = simple(max_epochs=1).fit(cells.images, cells.target)
    clf.net_.callbacks_.append(("hoarder", bytes(5_000_000)))
    assert len(pickle.dumps(clf.net_)) < 3_000_000


# ---------------------------------------------------------------- another machine


def test_model_that_asks_for_a_gpu_warns_and_predicts_on_the_cpu(fitted, cells, no_gpu):
    expected = fitted.predict_proba(cells.images)
    moved = pickle.loads(pickle.dumps(fitted)).set_params(device="cuda:99")
    with pytest.warns(UserWarning, match=r"device='cuda:99' is not available.*using 'cpu'"):
        given = moved.predict_proba(cells.images)
    assert np.array_equal(given, expected)
    assert moved.net_.device == "cpu"
    assert moved.device == "cuda:99"  # a parameter is the user's


def test_model_that_asks_for_a_gpu_is_not_trained_elsewhere(fitted, cells, no_gpu):
    moved = pickle.loads(pickle.dumps(fitted)).set_params(device="cuda:99")
    with pytest.raises(ValueError, match="not available"):
        moved.fit(cells.images, cells.target)


def test_model_with_device_auto_predicts_without_a_word(simple, cells, no_gpu):
    clf = simple(device="auto", max_epochs=1).fit(cells.images, cells.target)
    assert clf.net_.device == "cpu"
    again = pickle.loads(pickle.dumps(clf))
    assert np.array_equal(again.predict(cells.images), clf.predict(cells.images))


def test_network_on_another_device_is_pickled_on_the_cpu(fitted):
    """The meta device stands for a GPU: it is there everywhere, and is not the CPU."""
    net = copy.deepcopy(fitted.net_)
    net.device = "meta"
    state = net.__getstate__()
    assert state["device"] == "cpu"
    assert state["module_"] is not net.module_  # a copy was moved, not the net in use
    assert net.device == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_model_trained_on_a_gpu_predicts_nearly_the_same_on_the_cpu(simple, cells):
    clf = simple(device="cuda").fit(cells.images, cells.target)
    moved = pickle.loads(pickle.dumps(clf)).set_params(device="cpu")
    # TF32 is off by default: float32 rounding of other kernels.
    np.testing.assert_allclose(
        moved.predict_proba(cells.images), clf.predict_proba(cells.images), atol=1e-4
    )
    assert clf.net_.device == "cuda"
