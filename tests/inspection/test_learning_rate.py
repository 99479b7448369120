"""The learning-rate range test."""

import numpy as np
import pytest
from imblearn.pipeline import Pipeline
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

from wbcclf import Augmenter, Cosine, GradualUnfreezing, Optimizer
from wbcclf.inspection import find_learning_rate


@pytest.fixture(scope="module")
def result(clf, cells):
    return find_learning_rate(clf, cells.images, cells.target, highest=10.0)


def test_the_loss_falls_and_then_rises(result):
    assert len(result.learning_rates) == len(result.losses) > 50
    np.testing.assert_allclose(result.learning_rates[[0, 1]], [1e-6, 1e-6 * 1e7 ** (1 / 99)])
    lowest = result.losses.argmin()
    assert result.losses[lowest] < 0.8 * result.losses[0]
    assert result.losses[-1] > 1.5 * result.losses[lowest]
    assert result.suggestion == pytest.approx(result.learning_rates[lowest] / 10)


def test_the_suggestion_trains_better_than_a_hundredth_of_it(result, clf, cells):
    from sklearn.base import clone

    def loss(lr):
        fitted = clone(clf).set_params(lr=lr, max_epochs=5).fit(cells.images, cells.target)
        return fitted.history_[-1]["train_loss"]

    assert loss(result.suggestion) < 0.8 * loss(result.suggestion / 100)


def test_the_classifier_itself_stays_unfitted_and_as_it_was(clf, cells):
    before = repr(clf.get_params())
    find_learning_rate(clf, cells.images, cells.target, n_steps=10)
    assert repr(clf.get_params()) == before
    assert not hasattr(clf, "net_")


def test_blocks_keep_the_proportions_of_their_rates(clf, cells):
    class Rates(Callback):
        def initialize(self):
            return self

        def on_batch_end(self, net, **kwargs):
            seen.append([group["lr"] for group in net.optimizer_.param_groups])

    seen: list = []
    from sklearn.base import clone

    trial = clone(clf).set_params(optimizer=Optimizer(layer_lr_decay=0.5), callbacks=[Rates()])
    find_learning_rate(trial, cells.images, cells.target, lowest=1e-4, highest=1e-3, n_steps=10)
    np.testing.assert_allclose(np.array(seen)[:, 0], np.geomspace(1e-4, 1e-3, 10))
    np.testing.assert_allclose(np.array(seen)[:, 5] / np.array(seen)[:, 0], 0.5**5)


def test_schedules_and_averages_do_not_disturb_the_test(clf, cells):
    from sklearn.base import clone

    plain = clone(clf).set_params(unfrozen_layers=2)
    trained = clone(clf).set_params(
        unfrozen_layers=GradualUnfreezing(layers=2, epochs_per_layer=3),
        lr_schedule=Cosine(warmup_epochs=2),
        averaging=0.9,
        early_stopping=True,
    )
    with pytest.warns(UserWarning, match="frozen at random"):
        expected, found = (
            find_learning_rate(each, cells.images, cells.target, n_steps=10)
            for each in (plain, trained)
        )
    np.testing.assert_array_equal(found.losses, expected.losses)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lowest": 1.0, "highest": 0.1}, r"lowest=1.0 and highest=0.1"),
        ({"lowest": 0.0}, "lowest=0.0"),
        ({"highest": None}, "highest=None"),
        ({"n_steps": 9}, "n_steps=9 must be"),
        ({"n_steps": 10.5}, "n_steps=10.5 must be"),
    ],
)
def test_wrong_ranges_are_refused(clf, cells, wrong, message):
    with pytest.raises(ValueError, match=message):
        find_learning_rate(clf, cells.images, cells.target, **wrong)


def test_a_pipeline_or_a_search_is_refused(clf, cells):
    pipeline = Pipeline([("copies", Augmenter()), ("clf", clf)])
    for model in (pipeline, GridSearchCV(clf, {})):
        with pytest.raises(TypeError, match=rf"{type(model).__name__}.*pipeline\[-1\].*best_estim"):
            find_learning_rate(model, cells.images, cells.target)
