"""The snippet on the design's first page, on real images."""

import hashlib
from dataclasses import replace

import joblib
import numpy as np
import pytest
import torch
from imblearn.pipeline import Pipeline
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

from wbcclf import SMOTE, Augmenter, VGG16Classifier, load_image_folder
from wbcclf.backbones import WeightsSource, _registry, get_backbone
from wbcclf.backbones._weights import cache_folder

COUNTS = {"neutrophil": 10, "lymphocyte": 8, "platelet": 8}


@pytest.fixture
def folder(wbcclf_data, tmp_path):
    """Return a folder with a few real images of three classes."""
    root = tmp_path / "WBC"
    for label, count in COUNTS.items():
        (root / label).mkdir(parents=True)
        for path in sorted((wbcclf_data / "pbc" / "train" / label).glob("*.jpg"))[:count]:
            (root / label / path.name).symlink_to(path)
    return root


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    """Put a (random) VGG16 under the published file's name into an empty cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    cache_folder().mkdir(parents=True)
    spec = get_backbone("vgg16")
    source = spec.weights["imagenet"]
    path = cache_folder() / source.file_name
    assert path.name == "vgg16-397923af.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = spec.build().state_dict()
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    weights = {"imagenet": WeightsSource(source.url, digest, "BSD-3-Clause")}
    monkeypatch.setitem(_registry._BACKBONES, "vgg16", replace(spec, weights=weights))
    return state


def test_contract_snippet(folder, imagenet, tmp_path):
    # Groups are None unless given, and StratifiedGroupKFold needs them.
    cells = load_image_folder(folder, image_size=(32, 32), groups=r"_(\d+)\.jpg")
    pipe = Pipeline(
        [
            ("aug", Augmenter()),
            ("smote", SMOTE()),
            ("clf", VGG16Classifier(device="cpu", max_epochs=1)),
        ]
    )
    grid = {"clf__unfrozen_layers": [0, 1, 3, "all"]}
    search = GridSearchCV(pipe, grid, cv=StratifiedGroupKFold(2), error_score="raise")
    search.fit(cells.images, cells.target, groups=cells.groups)
    joblib.dump(search.best_estimator_, tmp_path / "model.joblib")

    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.cv_results_["param_clf__unfrozen_layers"].tolist() == [0, 1, 3, "all"]
    loaded = joblib.load(tmp_path / "model.joblib")
    assert loaded.classes_.tolist() == sorted(COUNTS)
    assert loaded["clf"].n_features_in_ == 32 * 32 * 3
    expected = search.best_estimator_.predict_proba(cells.images)
    assert np.array_equal(loaded.predict_proba(cells.images), expected)
    assert np.array_equal(search.predict(cells.images), loaded.predict(cells.images))

    # The weights came from the file, and what is frozen is still what the file holds.
    n_unfrozen = {"all": 13}.get(loaded["clf"].unfrozen_layers, loaded["clf"].unfrozen_layers)
    chain = loaded["clf"].net_.module_.backbone
    in_file = [key for key in imagenet if key.endswith("weight")]
    same = [
        torch.equal(block[0].weight, imagenet[key])
        for key, block in zip(in_file, chain, strict=True)
    ]
    assert same == [True] * (13 - n_unfrozen) + [False] * n_unfrozen
