"""Augmenter: its output in a file instead of in memory."""

import gc
import pickle

import numpy as np
import pytest

from wbcclf import Augmenter


def batch():
    images = np.random.RandomState(0).randint(0, 256, (40, 16, 12, 3)).astype(np.uint8)
    return images, np.arange(40) % 2


def owner(array):
    """Return the array that another one is a view of."""
    while isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    return array


@pytest.mark.parametrize("as_rows", [False, True])
def test_the_output_lies_in_a_file_and_holds_the_same_values(tmp_path, as_rows):
    images, target = batch()
    X = images.reshape(40, -1) if as_rows else images
    params = {"n_copies": 2, "random_state": 0, "image_shape": images.shape[1:]}
    wanted = Augmenter(**params).fit_resample(X, target)[0]
    out = Augmenter(**params, spill_dir=tmp_path).fit_resample(X, target)[0]
    assert isinstance(owner(out), np.memmap)
    assert len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(np.asarray(out), np.asarray(wanted))
    del out
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_fitted_augmenter_takes_no_images_along(tmp_path):
    images, target = batch()
    augmenter = Augmenter(random_state=0, spill_dir=tmp_path)
    out = augmenter.fit_resample(images, target)[0]
    assert len(pickle.dumps(augmenter)) < out.nbytes / 5


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"spill_dir=.*gone.* is not a folder"):
        Augmenter(spill_dir=tmp_path / "gone").fit_resample(*batch())


def test_a_full_disk_is_named(tmp_path, limit_files):
    limit_files(40_000)  # of the 46,080 bytes of 80 images
    with pytest.raises(OSError, match="has no room"):
        Augmenter(spill_dir=tmp_path).fit_resample(*batch())
    assert not list(tmp_path.iterdir())
