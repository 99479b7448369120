"""Data frames whose columns are not all of one NumPy dtype."""

import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import SMOTE as TheirSMOTE
from imblearn.over_sampling import RandomOverSampler
from imblearn.under_sampling import NearMiss

from wbcclf import SMOTE, Augmenter, DeepFeatures, ImageSampler, SimpleCNNClassifier

ROWS = np.random.RandomState(0).randint(0, 256, (40, 48)).astype(np.uint8)
TARGET = np.repeat([0, 1], [28, 12])
BYTES = pd.DataFrame(ROWS, columns=[f"p{number}" for number in range(48)])
FRAMES = {
    "UInt8": BYTES.astype("UInt8"),
    "converted": BYTES.convert_dtypes(),
    "Int64": BYTES.astype("Int64"),
    "Float32": BYTES.astype("Float32"),
    "two nullable": BYTES.astype({"p0": "UInt8", "p1": "Float32"}),
    "two plain": BYTES.astype({"p0": "float32"}),
}
SAMPLERS = [
    Augmenter(random_state=0),
    SMOTE(random_state=0),
    ImageSampler(RandomOverSampler(random_state=0)),
    ImageSampler(TheirSMOTE(random_state=0)),
    ImageSampler(NearMiss()),
]
OTHERS = [
    SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0),
    SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0, early_stopping=True),
    DeepFeatures("simple_cnn", weights=None, device="cpu", random_state=0),
]


def resampled(sampler, X):
    return sampler.fit_resample(X, TARGET)[0]


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_samplers_give_back_what_they_were_given(sampler, kind):
    X = FRAMES[kind]
    out = resampled(sampler, X)
    assert out.dtypes.to_list() == X.dtypes.to_list()
    as_numbers = X.astype(np.result_type(*(dtype.type for dtype in X.dtypes)))
    expected = resampled(sampler, as_numbers.to_numpy())
    whole = [dtype.kind in "ui" for dtype in X.dtypes]
    rounded = np.where(whole, np.rint(expected), expected)  # not cut off
    np.testing.assert_array_equal(out.to_numpy(dtype=float), rounded.astype(float))


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("estimator", OTHERS, ids=repr)
def test_other_estimators_see_the_numbers(estimator, kind):
    X = FRAMES[kind]
    as_numbers = X.astype(np.result_type(*(dtype.type for dtype in X.dtypes)))
    estimator.fit(X, TARGET)
    method = getattr(estimator, "predict_proba", None) or estimator.transform
    out = method(X)
    assert estimator.feature_names_in_.tolist() == X.columns.to_list()
    estimator.fit(as_numbers, TARGET)
    np.testing.assert_array_equal(out, method(as_numbers))
    if kind in ("UInt8", "converted"):
        assert estimator.value_range_ == (0, 255)


@pytest.mark.parametrize("estimator", SAMPLERS + OTHERS, ids=repr)
def test_a_missing_value_is_named(estimator):
    X = FRAMES["UInt8"].copy()
    X.iloc[3, 2] = pd.NA
    fit = getattr(estimator, "fit_resample", estimator.fit)
    with pytest.raises(ValueError, match=r"X holds 1 missing .*\(NA\), first in row 3 .* 'p2'"):
        fit(X, TARGET)


@pytest.mark.parametrize("columns", [BYTES.columns, ["p3"]], ids=["all", "one"])
@pytest.mark.parametrize("dtype", ["bool", "boolean"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_booleans_are_refused_or_stay_booleans(sampler, dtype, columns):
    X = BYTES.assign(**{name: (BYTES[name] > 127).astype(dtype) for name in columns})
    if isinstance(sampler, ImageSampler):
        out = resampled(sampler, X)
        assert out.dtypes.to_list() == X.dtypes.to_list()
        assert set(out["p3"]) == {True, False}
        return
    with pytest.raises(ValueError, match=r"X must hold numbers .*, got dtype bool"):
        resampled(sampler, X)
