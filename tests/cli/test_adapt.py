"""`wbcclf adapt`: pictures of another laboratory with labels and without, and errors."""

import csv
import json
import shutil

import pytest
from imblearn.pipeline import make_pipeline
from PIL import Image

import wbcclf
from wbcclf.classifiers.training import _adapt

pytestmark = pytest.mark.filterwarnings(  # in the shell they are lines on stderr
    "always:The old model is kept:UserWarning",
    "always:No white cell was found:UserWarning",
)


@pytest.fixture(scope="module")
def model(trained, tmp_path_factory):
    """Return the file of a model that is adapted in seconds."""
    path = tmp_path_factory.mktemp("small") / "m.wbcclf"
    paths = sorted((trained / "train").rglob("*.png"))
    crop = wbcclf.CellCropper("cell", background="normalise", stain="normalise")
    classifier = wbcclf.SimpleCNNClassifier(max_epochs=4, lr=3e-3, device="cpu", random_state=0)
    model = make_pipeline(wbcclf.ImageLoader(32, crop=crop), classifier)
    wbcclf.save_model(model.fit(paths, [each.parent.name for each in paths]), path)
    return path


@pytest.fixture
def in_a_hurry(monkeypatch):
    """Train for some steps only, where it does not matter what is learnt."""
    monkeypatch.setattr(_adapt, "STEPS", 3)


@pytest.fixture
def in_less_time(monkeypatch):
    """Train for as many steps as two clearly different classes need."""
    monkeypatch.setattr(_adapt, "STEPS", 20)


@pytest.fixture
def away(trained, tmp_path):
    """Return a folder with the cells of test/ in other colours; classes are spelt otherwise."""
    for path in sorted((trained / "test").rglob("*.png")):
        changed = tmp_path / "away" / path.parent.name.upper() / path.name
        changed.parent.mkdir(parents=True, exist_ok=True)
        red, green, blue = Image.open(path).split()
        darker = zip((red, green, blue), (0.75, 0.6, 0.85), strict=True)
        channels = [
            channel.point(lambda value, share=share: value * share) for channel, share in darker
        ]
        Image.merge("RGB", channels).save(changed)
    return tmp_path / "away"


def test_it_writes_the_better_model_and_says_by_how_much(
    model, trained, away, call, in_less_time, tmp_path
):
    output = tmp_path / "new.wbcclf"
    before = model.read_bytes()
    figures = tmp_path / "figures.json"
    code, out, err = call("adapt", model, away, "-o", output, "--json", figures)
    assert code == 0, err
    assert "20 images of 2 classes: lymphocyte 10, neutrophil 10" in out
    found = json.loads(figures.read_text())
    assert [row["n_images"] for row in found["classes"]] == [10, 10]
    assert "Comparing" in err
    assert "Adapting" in err
    assert f"Model: {output}" in out
    assert model.read_bytes() == before
    old, new = wbcclf.load_model(model), wbcclf.load_model(output)
    paths = [str(path) for path in sorted(away.rglob("*.png"))]
    is_other = (old.predict_proba(paths) != new.predict_proba(paths)).any()
    if "old model is kept" in err:  # that of another machine may differ
        assert "macro recall is" in err and not is_other and not found["is_adapted"]
    else:
        assert "cross-validated, 20 cells" in out and is_other and found["is_adapted"]
        for when in ("before", "after"):
            low, high = found["adaptation"][f"{when}_interval"]
            value = found["adaptation"][when]
            assert f"Macro recall {when}: {value:.3f} ({low:.3f} to {high:.3f})" in out


def test_a_table_and_a_map_give_the_same_as_a_folder(
    model, trained, away, call, in_a_hurry, tmp_path
):
    table = tmp_path / "away.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for path in sorted(away.rglob("*.png")):
            label = {"NEUTROPHIL": "SNE"}.get(path.parent.name, path.parent.name)
            writer.writerow([path.relative_to(tmp_path).as_posix(), label])
    outputs = []
    for images, given in ((away, ()), (table, ("--map", "SNE=neutrophil"))):
        code, out, err = call("adapt", model, images, "-o", tmp_path / "n", *given)
        assert code == 0, err
        outputs.append([line for line in out.splitlines() if "lymphocyte 10" in line])
    assert outputs[0] == outputs[1] and outputs[0]


def test_without_labels_a_network_without_batch_norm_stays_and_it_says_so(
    model, trained, call, tmp_path
):
    output = tmp_path / "new.wbcclf"
    code, out, err = call("adapt", model, trained / "new", "-o", output)
    assert code == 0, err
    assert "12 images without labels" in out and "only BatchNorm layers are adapted" in err
    assert wbcclf.load_model(output).classes_.tolist() == ["lymphocyte", "neutrophil"]


def test_what_is_wrong_is_said_before_images_are_read(model, trained, call, tmp_path):
    new = tmp_path / "new.wbcclf"
    blasts = tmp_path / "blasts"
    for label in ("blast", "neutrophil"):
        (blasts / label).mkdir(parents=True)
        (blasts / label / "1.png").write_bytes(b"no image")
    one_class = tmp_path / "one-class"
    (one_class / "Neutrophil").mkdir(parents=True)
    (one_class / "Neutrophil" / "1.png").write_bytes(b"no image")
    for arguments, message in (
        ((model, blasts, "-o", new), "holds the classes blast, but the model knows lymphocyte"),
        ((model, trained / "new", "-o", new, "--map", "a=neutrophil"), "has no labels"),
        ((model, one_class, "-o", new), "holds images of one class only, neutrophil. Give"),
        ((model, tmp_path / "none", "-o", new), "does not exist"),
        ((trained / "test", model, "-o", new), "Give the model first"),
        ((model, trained / "test", "-o", tmp_path / "no" / "n"), "does not exist"),
        ((model, trained / "test"), "--output"),
        ((model, trained / "test", "-o", model), "would be overwritten, but it is also an input"),
        ((model, trained / "new", "-o", trained / "new" / "0.png"), "would be overwritten, but"),
    ):
        code, _, err = call("adapt", *arguments)
        assert code and message in err, err
    assert not new.exists()


def test_what_can_be_read_may_be_too_little(model, trained, call, tmp_path):
    new, few = tmp_path / "new.wbcclf", tmp_path / "few"
    for label in ("lymphocyte", "neutrophil"):
        (few / label).mkdir(parents=True)
    (few / "lymphocyte" / "broken.png").write_bytes(b"no image")
    paths = sorted((trained / "test" / "neutrophil").glob("*.png"))
    for path, says in (
        (paths[0], "few holds fewer than two different images that can be read"),
        (paths[1], "few holds images of one class only, neutrophil. Give images of two"),
    ):
        shutil.copy(path, few / "neutrophil")
        code, _, err = call("adapt", model, few, "-o", new, "--on-error", "skip")
        assert code == 1 and says in err
    assert not new.exists()


def test_broken_images_are_left_out_when_asked(model, away, call, in_a_hurry, tmp_path):
    (away / "NEUTROPHIL" / "broken.png").write_bytes(b"no image")
    arguments = ("adapt", model, away, "-o", tmp_path / "new.wbcclf")
    code, _, err = call(*arguments)
    assert code == 1 and "1 of 21 images cannot be read" in err
    code, out, err = call(*arguments, "--on-error", "warn")
    assert code == 0 and "broken.png" in err and "20 images of 2 classes" in out
