"""What the shell says of pictures that a model does not know, and of cells left uncertain."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import wbcclf


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with enough validation images for a bound, and folders of labelled pictures."""
    root = tmp_path_factory.mktemp("unfamiliar")
    home, val, test = (
        wbcclf.make_blood_cells(n, classes=2, image_size=32, random_state=seed)
        for n, seed in ((160, 0), (300, 1), (60, 2))
    )
    clf = wbcclf.SimpleCNNClassifier(max_epochs=8, batch_size=16, device="cpu", random_state=0)
    clf.fit(home.images, home.target, X_val=val.images, y_val=val.target)
    wbcclf.save_model(clf, root / "m.wbcclf")
    dark = (test.images * np.array([0.5, 0.4, 0.4])).astype(np.uint8)
    for name, images in (("home", test.images), ("dark", dark)):
        for number, (image, label) in enumerate(zip(images, test.target, strict=True)):
            path = root / name / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


def test_predict_warns_of_another_laboratory_alone(model, tmp_path, call, read_csv):
    output = tmp_path / "out.csv"
    code, _, err = call("predict", model / "m.wbcclf", model / "dark", "-o", output)
    assert code == 0
    assert "These 60 images do not look like those that the model was trained on" in err
    assert np.mean([float(row["familiarity"]) for row in read_csv(output)]) < 0.3
    code, _, err = call("predict", model / "m.wbcclf", model / "home", "-o", output)
    assert code == 0
    assert "do not look like" not in err
    assert 0.3 < np.mean([float(row["familiarity"]) for row in read_csv(output)]) < 0.7


def test_evaluate_writes_what_it_warns_of(model, tmp_path, call):
    found = {}
    for name in ("home", "dark"):
        figures = tmp_path / f"{name}.json"
        code, out, err = call("evaluate", model / "m.wbcclf", model / name, "--json", figures)
        found[name] = json.loads(figures.read_text())
        assert code == 0
        assert ("do not look like" in err) == found[name]["unfamiliar"] == (name == "dark")
        assert f"Mean familiarity: {found[name]['familiarity']:.2f}" in out
        assert "rejection" not in found[name]
    assert found["dark"]["familiarity"] < 0.3 < found["home"]["familiarity"]


def test_evaluate_warns_of_images_that_were_trained_on(model, tmp_path, call):
    home = wbcclf.make_blood_cells(160, classes=2, image_size=32, random_state=0)
    for number, (image, label) in enumerate(zip(home.images[:8], home.target[:8], strict=True)):
        path = tmp_path / "test" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    for path in sorted((model / "home").glob("*/*"))[:4]:
        shutil.copy(path, tmp_path / "test" / path.parent.name / f"new {path.name}")
    figures = tmp_path / "figures.json"
    code, _, err = call("evaluate", model / "m.wbcclf", tmp_path / "test", "--json", figures)
    assert code == 0
    assert "8 of these 12 images were used to train the model" in err
    assert json.loads(figures.read_text())["n_trained_on"] == 8
    code, _, err = call("evaluate", model / "m.wbcclf", model / "home", "--json", figures)
    assert code == 0
    assert "used to train the model" not in err
    assert json.loads(figures.read_text())["n_trained_on"] == 0


def test_rejection_leaves_cells_uncertain(model, tmp_path, call, read_csv):
    output, figures = tmp_path / "out.csv", tmp_path / "figures.json"
    code, out, _ = call(
        *("predict", model / "m.wbcclf", model / "home", "-o", output, "--reject", 0.15)
    )
    assert code == 0
    labels = [row["label"] for row in read_csv(output)]
    n_uncertain = labels.count("uncertain")
    assert 0 < n_uncertain < 60 and f"uncertain {n_uncertain}" in out
    code, out, _ = call(
        *("evaluate", model / "m.wbcclf", model / "home", "--json", figures, "--reject", 0.15)
    )
    result = json.loads(figures.read_text())
    assert code == 0
    assert result["n_images"] == 60 and result["classes"] == ["lymphocyte", "neutrophil"]
    assert result["rejection"]["n_called"] == 60 - n_uncertain
    assert result["rejection"]["declined"] == pytest.approx(n_uncertain / 60)
    n_right = sum(row["label"] == row["file"].partition("/")[0] for row in read_csv(output))
    assert result["rejection"]["accuracy"] == pytest.approx(n_right / (60 - n_uncertain))
    assert f"Of the {60 - n_uncertain} others, " in out
    apart = result["rejection"]["accuracy_interval"]
    code, out, _ = call(
        *("evaluate", model / "m.wbcclf", model / "home", "--json", figures, "--reject", 0.15),
        *("--groups", r"(\w+/\d)"),
    )
    calls = json.loads(figures.read_text())["rejection"]
    assert calls["accuracy"] == result["rejection"]["accuracy"]
    assert f"by cell; they show {calls['n_groups']})" in out
    assert np.ptp(calls["accuracy_interval"]) > np.ptp(apart)


def test_a_bound_is_not_promised_elsewhere(model, tmp_path, call):
    arguments = "predict", model / "m.wbcclf", model / "dark", "-o", tmp_path / "out.csv"
    bound = "The bound of 15% wrong calls does not hold for them."
    assert bound in call(*arguments, "--reject", 0.15)[2]
    assert bound not in call(*arguments)[2]


def test_a_model_with_nothing_to_call_says_so(model, tmp_path, call):
    for number in range(3):
        path = tmp_path / "lymphocyte" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        noise = np.random.RandomState(number).randint(256, size=(32, 32, 3))
        Image.fromarray(noise.astype(np.uint8)).save(path)
    code, out, _ = call("evaluate", model / "m.wbcclf", tmp_path, "--reject", 0.15)
    assert code == 0
    assert "Left uncertain: 100.0% of the images; none was called." in out


def test_a_model_that_is_too_often_wrong_says_so_first(model, tmp_path, call):
    poor = wbcclf.load_model(model / "m.wbcclf")
    poor._description.calls[1] = poor._description.calls[0]
    wbcclf.save_model(poor, tmp_path / "poor.wbcclf")
    code, _, err = call("predict", tmp_path / "poor.wbcclf", tmp_path / "none", "--reject", 0.15)
    assert code == 1
    n_held = poor._description.calls[0].max()
    assert "--reject 0.15: the model is too often wrong for it, even where it is s" in err
    assert f"(of {n_held} images that it was not trained on)" in err


def test_what_a_model_brings_along_may_be_too_much_for_it(model, tmp_path, call):
    strict = wbcclf.load_model(model / "m.wbcclf").set_params(rejection=0.001)
    wbcclf.save_model(strict, tmp_path / "strict.wbcclf")
    for command in ("predict", "evaluate"):
        code, _, err = call(command, tmp_path / "strict.wbcclf", model / "home")
        assert code == 1
        assert "The model's rejection=0.001 needs 2995 images or more that the model was not" in err


def test_rejection_needs_validation_images(trained, call, tmp_path):
    for command, images in (("predict", "new"), ("evaluate", "test")):
        code, _, err = call(command, trained / "m.wbcclf", tmp_path / "none", "--reject", 0.05)
        assert code == 1  # before it is seen that there are no images
        assert "--reject 0.05 needs 59 images or more that the model was not trained on" in err
        assert "This one has 0; one that `wbcclf adapt` wrote has none. " in err
        assert "`wbcclf train --early-stopping` holds out a tenth: train on" in err
        assert "many more than 590 images" in err
        code, _, err = call(command, trained / "m.wbcclf", trained / images, "--reject", 1)
        assert code == 1
        assert "--reject 1: give a share between 0 and 1" in err
