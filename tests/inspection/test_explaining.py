"""Maps of what a network looks at: how they are computed, and what their scores catch."""

import os
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from wbcclf import CNNClassifier, Head, ImageLoader, SimpleCNNClassifier, make_blood_cells
from wbcclf.classifiers.network._building import build_network
from wbcclf.classifiers.options._settings import Settings
from wbcclf.inspection import explain, write_explanation_page
from wbcclf.inspection.explaining import _looking
from wbcclf.inspection.explaining._maps import Viewer, grad_cam, mirrored_grad_cam, occlusion
from wbcclf.inspection.explaining._scores import (
    beside_the_cell,
    correlations,
    mean_of_known,
    of_other_pictures,
)

pytestmark = pytest.mark.filterwarnings("ignore:.* maps are empty:UserWarning")
SIZE = 64
MARK = slice(0, SIZE // 6)


def marked(n_samples, seed):
    """Return cells whose class is no property of the cell: "marked" has a mark in the corner."""
    images = make_blood_cells(n_samples, classes=2, image_size=SIZE, random_state=seed).images
    target = np.random.RandomState(seed).choice(["marked", "plain"], n_samples)
    images[target == "marked", MARK, MARK] = 40, 160, 60
    return images, target


def fitted(images, target, **params):
    clf = SimpleCNNClassifier(max_epochs=8, device="cpu", random_state=0, **params)
    return clf.fit(images, target)


@pytest.fixture(scope="module")
def honest():
    cells = make_blood_cells(120, classes=2, image_size=SIZE, random_state=0)
    return fitted(cells.images, cells.target)


@pytest.fixture(scope="module")
def pictures():
    return make_blood_cells(24, classes=2, image_size=SIZE, random_state=1).images


def viewer_of(clf):
    net = clf.net_
    return Viewer(net.module_.eval(), net.device, net.precision, 5, lambda done: None)


def test_a_network_that_goes_by_a_mark_in_the_corner_is_caught():
    clf = fitted(*marked(100, 0))
    images, target = marked(28, 1)
    assert clf.score(images, target) == 1.0
    with pytest.warns(UserWarning, match="may look at the background.*of the class marked"):
        found = explain(clf, images)
    of_mark = {each.label: each for each in found.by_class()}["marked"]
    assert of_mark.inside < of_mark.cell_share + 0.05
    assert of_mark.occlusion_inside < of_mark.cell_share + 0.05
    # Where it is marked, covering the mark matters most.
    rows = np.flatnonzero(target == "marked")
    odds, falls = occlusion(viewer_of(clf), images[rows], np.zeros(len(rows), int))
    assert len(odds) == len(rows)
    assert (falls.reshape(len(rows), -1).argmax(axis=1) == 0).mean() > 0.9


def test_the_same_network_without_marks_is_not_accused(honest, pictures):
    found = explain(honest, pictures)
    assert found.warning is None
    total = found.by_class()[-1]
    assert total.label is None and total.n_images == 24
    assert total.occlusion_inside > 2 * total.cell_share
    assert total.inside > 1.5 * total.cell_share
    assert "goes more by the cell" in found.answer()


def test_gradcam_of_a_linear_head_on_average_pooling_is_the_class_activation_map(honest, pictures):
    """Zhou et al. 2016: the head's weights times the last maps (here over their 2 x 2 pixels)."""
    network = honest.net_.module_.eval()
    target = np.arange(24) % 2
    with torch.no_grad():
        maps = network.backbone(network.preprocessing(torch.from_numpy(pictures))).numpy()
    weights = network.head[-1].weight.detach().numpy()[target]
    n_pixels = maps[0, 0].size
    expected = np.maximum(np.einsum("nk,nkij->nij", weights, maps) / n_pixels, 0)
    found = grad_cam(viewer_of(honest), pictures, target, len(network.backbone), plus_plus=False)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())

    gradient = (weights / n_pixels)[..., None, None].astype(float)
    alpha = gradient**2 / (2 * gradient**2 + gradient**3 * maps.sum((2, 3), keepdims=True))
    channel = (alpha * np.maximum(gradient, 0) * np.ones_like(maps)).sum((2, 3), keepdims=True)
    expected = np.maximum((channel * maps).sum(axis=1), 0)
    found = grad_cam(viewer_of(honest), pictures, target, len(network.backbone), plus_plus=True)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_maps_of_a_middle_block_are_those_of_hooks_on_the_whole_network(honest, pictures, method):
    network = honest.net_.module_.eval()
    target = np.arange(24) % 2
    kept = {}

    def keep(module, given, made):
        made.retain_grad()
        kept["maps"] = made

    handle = network.backbone.conv3.register_forward_hook(keep)
    network(images=torch.from_numpy(pictures))[np.arange(24), target].sum().backward()
    handle.remove()
    maps, gradient = kept["maps"].detach(), kept["maps"].grad
    network.zero_grad(set_to_none=True)
    if method == "gradcam":
        weights = gradient.mean(dim=(2, 3))
    else:
        below = 2 * gradient**2 + (maps * gradient**3).sum(dim=(2, 3), keepdim=True)
        weights = (torch.nan_to_num(gradient**2 / below) * gradient.relu()).sum(dim=(2, 3))
    expected = torch.einsum("nk,nkij->nij", weights, maps).relu().numpy()
    found = grad_cam(viewer_of(honest), pictures, target, 3, method == "gradcam++")
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())


def test_maps_turn_with_the_picture(honest, pictures):
    target = np.zeros(24, int)
    maps = mirrored_grad_cam(viewer_of(honest), pictures, target, 4, False)
    turned = np.ascontiguousarray(pictures[:, :, ::-1])
    other = mirrored_grad_cam(viewer_of(honest), turned, target, 4, False)
    np.testing.assert_allclose(other[:, :, ::-1], maps, atol=1e-4 * maps.max())


def test_occlusion_finds_the_patch_that_a_score_is_read_from():
    class Reader:
        def batches(self, n):
            return (np.arange(start, min(start + 7, n)) for start in range(0, n, 7))

        def logits(self, images):
            light = images[:, 14:21, 7:14].mean(axis=(1, 2, 3)) / 255
            return np.stack([light, np.zeros_like(light)], axis=1).astype(np.float32)

    images = np.full((3, 49, 49, 3), 51, np.uint8)
    images[:, 14:21, 7:14] = 255
    odds, falls = occlusion(Reader(), images, np.array([0, 0, 1]))
    np.testing.assert_allclose(odds, [1, 1, -1])
    expected = np.zeros((3, 7, 7))
    expected[:, 2, 1] = 0.8, 0.8, -0.8  # the border has 51 of 255
    np.testing.assert_allclose(falls, expected, atol=1e-6)


def test_a_model_is_left_as_it_was(honest, pictures):
    network = honest.net_.module_.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    state = torch.get_rng_state()
    explain(honest, pictures[:4])
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)
    assert modes == [module.training for module in network.modules()]
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_maps_are_between_0_and_1_and_the_same_again(honest, pictures):
    first, again = explain(honest, pictures[:5]), explain(honest, pictures[:5])
    assert first.maps.dtype == np.float32 and first.maps.shape == (5, SIZE, SIZE)
    assert first.maps.min() >= 0
    assert set(first.maps.max(axis=(1, 2)).tolist()) <= {0.0, 1.0}
    np.testing.assert_array_equal(first.maps, again.maps)
    np.testing.assert_array_equal(first.randomisation, again.randomisation)
    np.testing.assert_array_equal(first.images, pictures[:5])
    np.testing.assert_array_equal(first.predicted, honest.predict(pictures[:5]))
    np.testing.assert_allclose(first.probability, honest.predict_proba(pictures[:5]).max(axis=1))


def test_a_network_at_random_weights_explains_nothing(honest, pictures, monkeypatch):
    """Its maps are those of the network with the same random weights: the score is 1."""
    monkeypatch.setattr(_looking, "N_RANDOM", 1)
    random, _ = build_network(Settings.of(honest), honest._domain(), None, 0)
    learnt = {name: each.clone() for name, each in honest.net_.module_.state_dict().items()}
    honest.net_.module_.load_state_dict(random.state_dict())
    try:
        with warnings.catch_warnings(action="ignore"):
            found = explain(honest, pictures, block="conv3")
    finally:
        honest.net_.module_.load_state_dict(learnt)
    known = np.isfinite(found.randomisation)
    assert known.sum() > 4
    np.testing.assert_allclose(found.randomisation[known], 1)
    chance = found.randomisation_by_chance
    assert chance[np.isfinite(chance)].mean() < 0.9


def test_a_map_is_of_the_class_that_is_asked_for(honest, pictures):
    one, other = honest.classes_
    each = explain(honest, pictures[:4], target=[one, other, one, other])
    assert each.target.tolist() == [one, other, one, other]
    proba = honest.predict_proba(pictures[:4])
    np.testing.assert_allclose(each.probability, proba[np.arange(4), [0, 1, 0, 1]])
    same = explain(honest, pictures[:4], target=one)
    np.testing.assert_array_equal(each.maps[0], same.maps[0])
    assert not np.array_equal(each.maps[1], same.maps[1])


@pytest.mark.parametrize(
    "params",
    [
        {"unfrozen_layers": 1, "weights": None},
        {"precision": "bfloat16"},
        {"test_time_augmentation": True},
        {"batch_size": 3, "input_size": 96},
    ],
)
@pytest.mark.filterwarnings("ignore:.*frozen at random weights:UserWarning")
def test_networks_of_all_kinds_are_explained(params, pictures):
    labels = np.arange(24) % 2
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0, **params)
    found = explain(clf.fit(pictures, labels), pictures[:4])
    assert found.maps.shape == (4, SIZE, SIZE) and np.isfinite(found.maps).all()
    np.testing.assert_allclose(
        found.probability, clf.predict_proba(pictures[:4]).max(axis=1), atol=1e-6
    )


def test_floats_and_grey_pictures_are_shown_as_rgb(pictures):
    grey = pictures.mean(axis=3, keepdims=True, dtype=np.float32) / 255
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    found = explain(clf.fit(grey, np.arange(24) % 2), grey[:3])
    assert found.images.shape == (3, SIZE, SIZE, 3) and found.images.dtype == np.uint8
    np.testing.assert_allclose(found.images[..., 1] / 255, grey[:3, ..., 0], atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize(("pooling", "block"), [("avg", "block12"), ("token", "block11")])
def test_a_vision_transformer_is_read_at_the_tokens_of_its_patches(pooling, block, pictures):
    pytest.importorskip("timm")
    vit = CNNClassifier(
        "timm:vit_tiny_patch16_224",
        weights=None,
        head=Head(pooling=pooling),
        input_size=(64, 96),
        max_epochs=1,
        device="cpu",
        random_state=0,
    )
    vit.fit(pictures[:4], [0, 1, 0, 1])
    found = explain(vit, pictures[:1])
    assert found.block == block and found.maps.max() == 1
    maps = grad_cam(viewer_of(vit), pictures[:1], np.zeros(1, int), 4, False)
    assert maps.shape == (1, 4, 6)
    if pooling == "token":  # the class token of the last block is all that the head reads
        with pytest.raises(ValueError, match="block='block12' is none"):
            explain(vit, pictures[:1], block="block12")


def test_pipelines_searches_and_files(honest, pictures, tmp_path):
    for number, image in enumerate(pictures[:4]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    expected = explain(honest, pictures[:4])
    search = GridSearchCV(LogisticRegression(), {})
    search.best_estimator_ = make_pipeline(ImageLoader(image_size=SIZE), honest)
    for model, X in (
        (honest, tmp_path),
        (honest, sorted(tmp_path.iterdir())),
        (make_pipeline(ImageLoader(image_size=SIZE), honest), str(tmp_path)),
        (make_pipeline(ImageLoader(image_size=SIZE), honest), list(pictures[:4])),
        (search, tmp_path),
    ):
        found = explain(model, X)
        np.testing.assert_array_equal(found.maps, expected.maps)
    assert found.paths == [os.fspath(tmp_path / f"{number}.png") for number in range(4)]


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"method": "lime"}, ValueError, "method must be one of gradcam, gradcam"),
        ({"method": "occlusion", "block": "conv1"}, ValueError, "Leave block out"),
        ({"block": "conv9"}, ValueError, "block='conv9' is none.*conv1, conv2, conv3"),
        ({"target": "blast"}, ValueError, "no class blast, but lymphocyte, neutrophil"),
        ({"target": ["neutrophil"] * 3}, ValueError, "one label or one for each of 2 pictures"),
        ({"X": np.zeros((2, 32, 32, 3), np.uint8)}, ValueError, "works on 64x64x3"),
        ({"X": np.zeros((0, SIZE, SIZE, 3), np.uint8)}, ValueError, "0 sample"),
        ({"X": "nowhere"}, FileNotFoundError, "X='nowhere' is neither"),
        ({"model": SimpleCNNClassifier()}, NotFittedError, "not fitted"),
        ({"model": SimpleCNNClassifier}, TypeError, "must be a fitted classifier"),
        ({"model": LogisticRegression().fit([[0], [1]], [0, 1])}, TypeError, "CNNClassifier"),
    ],
)
def test_what_cannot_be_explained_is_refused(honest, pictures, params, error, message):
    with pytest.raises(error, match=message):
        explain(**{"model": honest, "X": pictures[:2], **params})


def test_networks_with_nothing_to_show_are_refused(pictures):
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    small = np.ascontiguousarray(pictures[:, :5, :5])
    with pytest.raises(ValueError, match="5x5 pixels, which cannot be covered"):
        explain(clf.fit(small, np.arange(24) % 2), small)
    clf.fit(pictures, np.arange(24) % 2).set_params(input_size=32)
    with pytest.raises(ValueError, match="input_size changed"):
        explain(clf, pictures)


def test_correlations_are_spearmans():
    rng = np.random.RandomState(0)
    maps, others = rng.rand(2, 5, 4, 3).round(1)  # with ties
    maps[4] = 0.5
    found = correlations(maps, others)
    expected = [spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(maps[:4], others, strict=False)]
    np.testing.assert_allclose(found[:4], expected)
    assert np.isnan(found[4])
    np.testing.assert_array_equal(of_other_pictures(maps), maps[[3, 4, 0, 1, 2]])
    assert np.isnan(of_other_pictures(maps[:1])).all()
    scores = mean_of_known([np.array([1.0, np.nan, np.nan]), np.array([0.0, 0.5, np.nan])])
    np.testing.assert_array_equal(scores, [0.5, 0.5, np.nan])


def test_the_rule_of_the_warning():
    share = np.full(20, 0.2)
    target = np.array(["a", "b"] * 10)
    rng = np.random.RandomState(0)
    on_cell = np.where(target == "a", 0.6, 0.2 + rng.normal(0, 0.1, 20))
    found = beside_the_cell(on_cell, share, target)
    assert found.startswith("of the class b") and "class a" not in found
    assert beside_the_cell(np.full(20, 0.6), share, target) == ""
    every = beside_the_cell(share / 2, share, np.arange(20))  # no class has ten
    assert every == "of all classes: 10% on the cell, which covers 20%"
    assert beside_the_cell(share[:9] / 2, share[:9], target[:9]) == ""
    assert beside_the_cell(np.ones(20), np.ones(20), target) == ""  # nothing is beside it
    assert beside_the_cell(np.full(20, np.nan), share, target) == ""


def test_maps_that_miss_a_cell_that_occlusion_shows_are_not_to_be_trusted(honest, pictures):
    found = explain(honest, pictures)
    wrong = replace(found, inside=found.cell_share * 0.5)
    assert wrong.warning.startswith("Do not trust these maps")
    few = replace(found, **{name: getattr(found, name)[:3] for name in _arrays(found)})
    assert few.warning is None and "Too few pictures" in few.answer()
    none = replace(found, occlusion_inside=np.full(24, np.nan), inside=np.full(24, np.nan))
    assert "No white cell was found" in none.answer()


def _arrays(found):
    return [name for name, value in vars(found).items() if isinstance(value, np.ndarray)]


def test_an_overlay_is_clear_where_the_map_is_0(honest, pictures):
    found = explain(honest, pictures[:6])
    row = int(np.flatnonzero(found.maps.max(axis=(1, 2)) == 1)[0])
    shown = found.overlay(row)
    clear = found.maps[row] == 0
    np.testing.assert_array_equal(shown[clear], found.images[row][clear])
    top = np.unravel_index(found.maps[row].argmax(), (SIZE, SIZE))
    light = 0.3 * found.images[row][top] + 0.7 * np.array([252, 255, 164])  # inferno's last colour
    np.testing.assert_allclose(shown[top], light, atol=1)


def test_frames_figures_and_notebooks(honest, pictures):
    plt = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("pandas")
    found = explain(honest, pictures[:3])
    frame = found.to_frame()
    assert frame["picture"].tolist() == ["images[0]", "images[1]", "images[2]"]
    np.testing.assert_array_equal(frame["inside"], found.inside)
    figure = found.plot(rows=[2])
    assert len(figure.axes) == 2 and "on cell" in figure.axes[1].get_title()
    plt.close(figure)
    plt.close(found.plot())
    assert found._repr_html_().count("<img") == 3


def test_a_page_holds_pictures_and_maps_and_escapes_names(pictures, tmp_path):
    labels = np.array(["<script>", "b"])[np.arange(24) % 2]
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0).fit(pictures, labels)
    with warnings.catch_warnings(action="ignore"):  # it has learnt nothing
        found = explain(clf, pictures)
    assert "<script>" not in found._repr_html_()
    write_explanation_page(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert page.count("<img") == 48
    with pytest.raises(TypeError, match="what explain returned"):
        write_explanation_page(SimpleNamespace(), tmp_path / "other.html")


def test_real_cells_show_that_the_packaged_model_goes_by_the_cell(wbcclf_data):
    from wbcclf import load_model

    files = sorted((wbcclf_data / "bcisc" / "images").iterdir())[::22][:12]
    with warnings.catch_warnings(action="ignore"):  # of Grad-CAM, which misses the cells
        found = explain(load_model("wbcclf:blood-cells"), files)
    assert found.images.shape == (12, 96, 96, 3)
    known = np.isfinite(found.occlusion_inside)
    assert known.sum() >= 10
    assert found.occlusion_inside[known].mean() > 1.5 * found.cell_share[known].mean()
