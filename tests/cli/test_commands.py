"""The command line, called as a shell calls it."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

import wbcclf
from wbcclf.backbones import describe, list_backbones
from wbcclf.cli import _defaults
from wbcclf.cli._defaults import default_steps
from wbcclf.cli._main import COMMANDS
from wbcclf.cli._pipeline import make_pipeline


@pytest.mark.parametrize("package", ["torch", "typer"])
def test_a_package_that_is_missing_is_named_in_one_line(call, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "wbcclf.cli._main")
    message, out, _ = call("--version")
    assert message.startswith(f"wbcclf: error: the command needs {package}, which is not installed")
    assert "pip install" in message and "wbcclf.onnx" in message and "\n" not in message
    assert out == ""


def test_evaluate_writes_figures_that_agree_with_the_table(trained, call):
    figures, plot = trained / "figures.json", trained / "confusion.png"
    code, out, _ = call(
        *("evaluate", trained / "m.wbcclf", trained / "test", "--json", figures, "--plot", plot),
    )
    assert code == 0
    result = json.loads(figures.read_text())
    assert np.trace(result["confusion"]) / 20 == pytest.approx(result["accuracy"])
    assert f"accuracy {result['accuracy']:.3f}" in out
    found = result["calibration"]
    low, high = found["error_interval"]
    assert f"Calibration error {found['error']:.3f} ({low:.2f} to {high:.2f}); " in out
    assert f"would show {found['error_by_chance']:.3f} on average" in out
    for name, text in (
        *(("mcc", "Matthews correlation"), ("kappa", "Cohen's kappa")),
        *(("top_2_accuracy", "top-2 accuracy"), ("log_loss", "log loss")),
    ):
        low, high = result[f"{name}_interval"]
        assert f"{text} {result[name]:.3f} ({low:.2f} to {high:.2f})" in out
    [row] = [line for line in out.splitlines() if "lymphocyte" in line and " to " in line]
    low, high = result["recall_interval"][0]
    assert f"{result['recall'][0]:.3f} ({low:.2f} to {high:.2f})" in row
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_predict_writes_files_in_natural_order_with_probabilities(trained, call, read_csv):
    output = trained / "out.csv"
    code, _, _ = call("predict", trained / "m.wbcclf", trained / "new", "-o", output)
    assert code == 0
    rows = read_csv(output)
    assert [row["file"] for row in rows] == [f"{number}.png" for number in range(12)]
    model = wbcclf.load_model(trained / "m.wbcclf")
    expected = model.predict_proba([trained / "new" / row["file"] for row in rows])
    written = np.array([[row["lymphocyte"], row["neutrophil"]] for row in rows], dtype=float)
    np.testing.assert_allclose(written, expected, atol=5.1e-7)  # six decimals
    assert [row["label"] for row in rows] == model.classes_[expected.argmax(axis=1)].tolist()


def test_predict_leaves_broken_files_out_and_names_them(
    trained, tmp_path, call, write_cells, read_csv
):
    write_cells(tmp_path / "mixed", 4, 3, labelled=False)
    (tmp_path / "mixed" / "2b.png").write_bytes(b"no image")
    (tmp_path / "mixed" / ".DS_Store").write_bytes(b"hidden")
    (tmp_path / "mixed" / "sub").mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "mixed" / "sub" / "9.png")
    output = tmp_path / "out.csv"
    code, _, err = call("predict", trained / "m.wbcclf", tmp_path / "mixed", "-o", output)
    assert code == 0
    assert "2b.png" in err and ".DS_Store" in err
    files = [row["file"] for row in read_csv(output) if row["label"]]
    assert sorted(files) == ["0.png", "1.png", "2.png", "3.png", "sub/9.png"]


def test_predict_can_stop_at_broken_files_and_then_writes_no_table(
    trained, tmp_path, call, write_cells
):
    (tmp_path / "broken.png").write_bytes(b"no image")
    write_cells(tmp_path, 3, 3, labelled=False)
    output = tmp_path / "out.csv"
    code, _, err = call(
        *("predict", trained / "m.wbcclf", tmp_path, "-o", output, "--on-error", "raise"),
    )
    assert code == 1 and "broken.png" in err
    assert not output.exists()
    assert f"what was found is kept in {output}.parts" in err


@pytest.mark.parametrize(
    ("balance", "n_images", "class_weight"),
    [("none", 15, None), ("weights", 15, "balanced"), ("copies", 24, None), ("smote", 48, None)],
)
def test_unequal_classes_are_balanced_as_asked(
    balance, n_images, class_weight, tmp_path, call, seen, write_cells
):
    write_cells(tmp_path / "train", 24, 0)
    for path in sorted((tmp_path / "train" / "neutrophil").iterdir())[3:]:
        path.unlink()
    code, out, err = call(
        *("train", tmp_path / "train", "-o", tmp_path / "m.wbcclf", "--image-size", 32),
        *("--epochs", 1, "--balance", balance),
    )
    assert code == 0, err
    assert "15 images of 2 classes: lymphocyte 12, neutrophil 3" in out
    assert len(seen["train"]) == n_images
    assert wbcclf.load_model(tmp_path / "m.wbcclf")["classifier"].class_weight == class_weight


@pytest.mark.parametrize(
    ("given", "n_held"),
    [(("--early-stopping",), 6), (("--recipe", "field-cnn", "--crop", "nucleus"), 12)],
)
def test_groups_are_held_out_whole(given, n_held, trained, tmp_path, seen, held_out, call):
    code, out, err = call(
        *("train", trained / "train", "-o", tmp_path / "m.wbcclf", "--image-size", 32),
        *("--epochs", 1, "--groups", r"(\d)\.png", *given),
    )
    assert code == 0, err
    assert "valid_acc" in out
    # Ten groups of six pictures, by the last digit of the file's name. A tenth of them validates,
    # or a fifth, as the recipe says.
    assert (len(seen["X_val"]), len(seen["train"])) == (n_held, 60 - n_held)
    assert len({path.stem[-1] for path in held_out()}) == n_held / 6


def test_calibrate_needs_images_that_are_held_out(trained, tmp_path, call):
    arguments = ("train", trained / "train", "-o", tmp_path / "m.wbcclf", "--calibrate")
    code, _, err = call(*arguments)
    assert code != 0 and "--calibrate needs" in err and "--early-stopping" in err
    code, _, err = call(*arguments, "--early-stopping", "--image-size", 32, "--epochs", 1)
    assert code != 0 and "at least 50 validation images, not 6" in err


def test_calibrate_reaches_the_model(tmp_path, call):
    cells = wbcclf.make_blood_cells(520, classes=2, image_size=32, random_state=0)
    for number, (image, label) in enumerate(zip(cells.images, cells.target, strict=True)):
        (tmp_path / "train" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "train" / label / f"{number}.png")
    code, _, err = call(
        *("train", tmp_path / "train", "-o", tmp_path / "m.wbcclf", "--image-size", 32),
        *("--steps", 5, "--crop", "none", "--early-stopping", "--calibrate"),
    )
    assert code == 0, err
    assert wbcclf.load_model(tmp_path / "m.wbcclf")["classifier"].temperature_ > 0


def test_a_recipe_trains_its_own_network_at_its_own_size(trained, tmp_path, call):
    arguments = ("train", trained / "train", "-o", tmp_path / "m.wbcclf", "--recipe", "pbc-cnn8")
    code, out, err = call(*arguments, "--epochs", 1)
    assert code == 0, err
    assert "Trained 1 of 1 epochs" in out and "valid_acc" in out
    model = wbcclf.load_model(tmp_path / "m.wbcclf")
    assert model["loader"].image_size == 224
    classifier = model["classifier"]
    assert type(classifier) is wbcclf.CNN8Classifier
    assert (classifier.input_size, classifier.lr) == (224, 1e-3)
    assert classifier.early_stopping.monitor == "valid_acc"
    assert model.predict([trained / "new" / "0.png"]).shape == (1,)


@pytest.mark.filterwarnings("always:.*frozen at random:UserWarning")
def test_options_beside_a_recipe_change_it(trained, tmp_path, call):
    options = {
        "--image-size": 32,
        "--epochs": 1,
        "--batch-size": 10,
        "--lr": 0.01,
        "--unfrozen-layers": 2,
        "--device": "cpu",
        "--precision": "bfloat16",
        "--seed": 5,
    }
    arguments = [part for option in options.items() for part in option]
    output = tmp_path / "m.wbcclf"
    code, out, err = call(
        *("train", trained / "train", "-o", output, "--recipe", "field-cnn-l2"),
        *(*arguments, "--no-early-stopping"),
    )
    assert code == 0, err
    assert "frozen at random" in err and "valid_loss" not in out
    model = wbcclf.load_model(output)
    classifier = model["classifier"]
    assert model["loader"].image_size == classifier.input_size == 32
    assert (classifier.max_epochs, classifier.batch_size, classifier.lr) == (1, 10, 0.01)
    assert (classifier.unfrozen_layers, classifier.precision) == (2, "bfloat16")
    assert (classifier.early_stopping, classifier.random_state) == (False, 5)
    assert classifier.loss.l2 == {"conv2": 0.01, "conv3": 0.01}  # what was not given stays


@pytest.mark.parametrize("named", [wbcclf.CNN8Classifier, wbcclf.SepConvClassifier])
def test_a_backbone_is_trained_as_its_own_classifier(named, trained, tmp_path, call):
    code, _, err = call(
        *("train", trained / "train", "-o", tmp_path / "m", "--backbone", named.backbone),
        *("--image-size", 32, "--epochs", 1),
    )
    assert code == 0, err
    classifier = wbcclf.load_model(tmp_path / "m")["classifier"]
    cells = wbcclf.make_blood_cells(8, classes=2, image_size=32, random_state=0)
    own = named(max_epochs=1, device="cpu").fit(cells.images, cells.target)
    assert str(classifier.net_.module_) == str(own.net_.module_)
    assert classifier.lr == 3e-3  # the shell's, for random weights


@pytest.mark.parametrize(
    ("backbone", "given", "expected"),
    [
        ("simple_cnn", {}, 3e-3),
        ("squeezenet1_1", {}, 3e-4),  # ImageNet's weights are its own
        ("squeezenet1_1", {"weights": None}, 3e-3),
        ("simple_cnn", {"weights": "start.pth"}, 3e-4),
        ("squeezenet1_1", {"lr": 0.01}, 0.01),
    ],
)
def test_the_learning_rate_is_lower_where_training_begins_with_weights(backbone, given, expected):
    assert make_pipeline(backbone, None, None, None, given)["clf"].lr == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), (180, 0.01, 0)),
        (("--augment", "turns"), ("quarter", 0, 0)),
        (("--augment", "laboratory"), (180, 0.01, 1)),
    ],
)
def test_a_training_is_3000_steps_or_ten_passes_long(
    given, expected, trained, tmp_path, call, monkeypatch
):
    assert (default_steps(20_000, 32, True), default_steps(9_600, 32, True)) == (10 * 625, 3000)
    assert (default_steps(20_000, 32, False), default_steps(9_600, 32, False)) == (2 * 625, 600)
    monkeypatch.setattr(_defaults, "STEPS", 25)  # the test has no minutes
    code, out, err = call(
        *("train", trained / "train", "-o", tmp_path / "m.wbcclf", "--image-size", 8),
        *("--backbone", "cnn8", "--balance", "copies", "--batch-size", 60, *given),
    )
    assert code == 0, err
    assert "Trained 25 of 25 steps" in out
    classifier = wbcclf.load_model(tmp_path / "m.wbcclf")["classifier"]
    assert classifier.n_steps_ == 25
    augment = classifier.augment
    assert (augment.rotation, augment.hue, augment.laboratory) == expected


@pytest.mark.parametrize("given", [("--balance", "copies"), ("--recipe", "field-cnn")])
def test_steps_are_a_budget_of_training(given, trained, tmp_path, call):
    arguments = ("train", trained / "train", "-o", tmp_path / "m.wbcclf", "--image-size", 32)
    code, out, err = call(*arguments, "--steps", 5, "--batch-size", 20, *given)
    assert code == 0, err
    classifier = wbcclf.load_model(tmp_path / "m.wbcclf")["classifier"]
    assert (classifier.max_steps, classifier.n_iter_) == (5, 2)
    assert "Trained 5 of 5 steps" in out


def test_recipes_are_listed_with_what_was_published(call):
    code, out, _ = call("recipes")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "four-class-vgg16 C: pooled, reshuffled 0.8256 (leaky)" in lines
    assert sum(line.startswith("leukocyte-") for line in lines) == 16


def test_backbones_are_listed_and_described(call):
    code, out, _ = call("backbones")
    assert code == 0 and out.split() == list_backbones()
    code, out, _ = call("backbones", "field_cnn")
    assert code == 0 and out.strip() == str(describe("field_cnn"))


def error_cases(root):
    model, train, test = root / "m.wbcclf", root / "train", root / "test"
    return {
        "no such folder": (["train", root / "nowhere"], "does not exist"),
        "empty folder": (["train", root / "empty"], "is empty"),
        "one class": (["train", root / "one", "--image-size", 32], "only one class"),
        "two sets": (["train", root / "sets"], "several sets of class folders (TEST, TRAIN)"),
        "two sets to evaluate": (["evaluate", model, root / "sets"], "several sets"),
        "bad regular expression": (["train", train, "--groups", "(p"], "not a regular expression"),
        "bad device": (["train", train, "--device", "gpu", "-o", root / "x"], "device='gpu'"),
        "bad rate": (["train", train, "--lr", "-1", "-o", root / "x"], "'lr' parameter"),
        "plot without suffix": (["evaluate", model, test, "--plot", root / "c"], "suffix"),
        "one group a class": (
            ["train", train, "--early-stopping", "--groups", "(png)", "-o", root / "x"],
            "at least two groups",
        ),
        "unlabelled": (["train", root / "new", "--image-size", 32], "no class folders"),
        "no folder for the output": (["train", train, "-o", root / "a" / "m"], "does not exist"),
        "output is a folder": (["train", train, "-o", root / "test"], "is a folder"),
        "unknown backbone": (
            ["train", train, "--image-size", 32, "--backbone", "cnn9", "-o", root / "x"],
            "Did you mean 'cnn8'",
        ),
        "misspelt recipe": (["train", train, "--recipe", "pbc-cnn9"], "Did you mean 'pbc-cnn8'"),
        "recipe and network": (
            ["train", train, "--recipe", "pbc-mlp", "--backbone", "vgg16", "--augment", "none"],
            "--backbone, --augment cannot be given with --recipe",
        ),
        "unknown backbone to describe": (["backbones", "cnn9"], "Did you mean 'cnn8'"),
        "unseen label": (["evaluate", model, root / "unseen"], "knows none of"),
        "no model": (["evaluate", root / "none.wbcclf", test], "none.wbcclf"),
        "not a model": (["predict", root / "note.txt", test], "not a model"),
        "no images": (["predict", model, root / "empty", "-o", root / "o.csv"], "is empty"),
        "wrong option": (["train", train, "--epochs", "many"], "--help"),
        "unknown command": (["trian"], "--help"),
    }


@pytest.mark.parametrize("case", error_cases(__import__("pathlib").Path()))
def test_errors_are_one_line_that_says_what_to_do(case, trained, call, write_cells):
    (trained / "empty").mkdir(exist_ok=True)
    if not (trained / "one").exists():
        write_cells(trained / "one" / "only", 4, 0, labelled=False)
        write_cells(trained / "unseen" / "basophil", 2, 0, labelled=False)
        write_cells(trained / "sets" / "TRAIN", 4, 0)
        write_cells(trained / "sets" / "TEST", 4, 0)
        (trained / "note.txt").write_text("no model")
    arguments, expected = error_cases(trained)[case]
    code, _, err = call(*arguments)
    last = [line for line in err.splitlines() if line.startswith("wbcclf: error:")]
    assert code == (2 if "--help" in expected else 1), err
    assert len(last) == 1 and expected in last[0]
    assert "Traceback" not in err


@pytest.mark.filterwarnings("always::wbcclf.exceptions.TrainingInterruptedWarning")
def test_ctrl_c_keeps_the_model_and_tells_the_shell(trained, tmp_path, call, monkeypatch):
    from skorch.callbacks import PassthroughScoring

    def interrupt(self, net, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(PassthroughScoring, "on_epoch_end", interrupt)
    output = tmp_path / "m.wbcclf"
    code, _, err = call(
        *("train", trained / "train", "-o", output, "--image-size", 32, "--epochs", 3),
    )
    assert code == 130, err
    assert "interrupted in epoch 1" in err
    assert wbcclf.load_model(output).classes_.tolist() == ["lymphocyte", "neutrophil"]


def test_a_link_given_as_output_stays_a_link(trained, tmp_path, call, read_csv):
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    arguments = ("predict", trained / "m.wbcclf", trained / "new", "-o", tmp_path / "link.csv")
    assert call(*arguments)[0] == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert len(read_csv(tmp_path / "real.csv")) == 12


def test_class_names_are_not_taken_for_markup(tmp_path, call, write_cells):
    write_cells(tmp_path / "train", 8, 0)
    (tmp_path / "train" / "neutrophil").rename(tmp_path / "train" / "[red]cell")
    arguments = ("train", tmp_path / "train", "-o", tmp_path / "m", "--image-size", 32)
    code, out, _ = call(*arguments, "--epochs", 1)
    assert code == 0 and "[red]cell 4" in out
    code, out, _ = call("evaluate", tmp_path / "m", tmp_path / "train")
    assert code == 0 and "[red]cell" in out


def test_the_version_is_told(call):
    assert call("--version") == (0, f"wbcclf {wbcclf.__version__}\n", "")


def test_help_teaches_every_command(call):
    assert len(COMMANDS) > 10
    for command in (each.__name__ for each in COMMANDS):
        code, out, _ = call(command, "--help")
        assert code == 0
        assert "Usage:" in out and "…" not in out
        assert command == "demo" or "Example: wbcclf" in " ".join(out.split())
