"""A model meets images whose classes are called otherwise, or are not its own."""

import json
import re
import shutil

import numpy as np
import pytest

from wbcclf.cli._classes import match_classes


@pytest.fixture
def folder(trained, tmp_path):
    """Return a copy of test/."""
    return shutil.copytree(trained / "test", tmp_path / "test")


def rounded(value):
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 9) if isinstance(value, float) else value


@pytest.fixture
def evaluate(trained, tmp_path, call):
    """Return a function that evaluates a folder: (code, stdout, stderr, figures)."""

    def evaluate(folder, *options):
        output = tmp_path / "figures.json"
        output.unlink(missing_ok=True)
        code, out, err = call("evaluate", trained / "m.wbcclf", folder, "--json", output, *options)
        if code:
            return code, out, err, None
        figures = json.loads(output.read_text())
        # Folders of other names come in another order. Sums of floats depend on it, and so does the
        # calibration, which is simulated image by image.
        del figures["calibration"]
        return code, out, err, rounded(figures)

    return evaluate


def test_upper_and_lower_case_alone_are_no_difference(folder, evaluate):
    *_, expected = evaluate(folder)
    (folder / "neutrophil").rename(folder / "NEUTROPHIL")
    code, out, err, figures = evaluate(folder)
    assert code == 0, err
    assert "The images' class NEUTROPHIL counts as the model's class neutrophil" in out
    assert figures == expected


def test_nor_are_spaces(folder, evaluate):
    *_, expected = evaluate(folder)
    (folder / "neutrophil").rename(folder / " Neutrophil ")
    code, _, err, figures = evaluate(folder)
    assert code == 0, err
    assert figures == expected


@pytest.mark.parametrize("names", [("NEUTROPHIL", "Neutrophil"), ("neutrophil", "neutrophil ")])
def test_two_spellings_are_one_class_if_the_user_says_so(names, folder, evaluate):
    *_, expected = evaluate(folder)
    files = sorted((folder / "neutrophil").iterdir())
    (folder / "neutrophil").rename(folder / "away")
    for number, path in enumerate(files):
        (folder / names[number % 2]).mkdir(exist_ok=True)
        (folder / "away" / path.name).rename(folder / names[number % 2] / path.name)
    (folder / "away").rmdir()
    others = [name for name in names if name != "neutrophil"]
    code, _, err, figures = evaluate(
        folder, *(part for name in others for part in ("--map", f"{name}=neutrophil"))
    )
    assert code == 0, err
    assert figures == expected
    for path in folder.rglob("*.png"):  # of which nothing is said before the classes are clear
        path.write_bytes(b"")
    code, _, err, _ = evaluate(folder)
    assert code == 1
    assert all(repr(name) in err for name in others)
    assert f"--map '{others[0]}=neutrophil'" in err or f"--map {others[0]}=neutrophil" in err


def test_spellings_are_told_apart_where_the_model_does():
    assert match_classes(["b", "B"], ["b", "B"], {}) == {"b": "b", "B": "B"}
    with pytest.raises(ValueError, match="the model's 'b', 'B' differ"):
        match_classes(["b "], ["b", "B"], {})


def test_figures_are_of_all_images_where_no_image_of_a_known_class_can_be_read(folder, evaluate):
    (folder / "neutrophil").rename(folder / "blast")
    for path in (folder / "lymphocyte").iterdir():
        path.write_bytes(b"")
    code, out, err, figures = evaluate(folder, "--on-error", "warn")
    assert code == 0, err
    assert "blast: their 10 images count as wrong" in err
    assert "All images: accuracy 0.000" in out and "that the model knows" not in out
    assert figures["n_images"] == 10 and "known_classes_only" not in figures
    assert len(figures["left_out"]) == 10


def test_classes_are_mapped_as_asked(folder, evaluate):
    *_, expected = evaluate(folder)
    (folder / "BNE").mkdir()
    for path in list((folder / "neutrophil").iterdir())[:4]:
        path.rename(folder / "BNE" / path.name)
    (folder / "neutrophil").rename(folder / "SNE")
    code, _, err, figures = evaluate(folder, "--map", "SNE=neutrophil", "--map", "BNE=neutrophil")
    assert code == 0, err
    assert figures == expected


def test_a_class_without_images_has_no_figures(folder, evaluate):
    *_, figures = evaluate(folder)
    predicted = np.sum(figures["confusion"], axis=0).argmax()
    name, other = figures["classes"][predicted], figures["classes"][predicted - 1]
    code, out, err, figures = evaluate(folder, "--map", f"{name}={other}")
    assert code == 0, err
    assert figures["support"][figures["classes"].index(name)] == 0
    assert [name, "0", "-", "-", "-"] in [re.findall(r"[\w.-]+", line) for line in out.splitlines()]
    present = [f1 for f1, n in zip(figures["f1"], figures["support"], strict=True) if n]
    assert figures["macro_f1"] == pytest.approx(np.mean(present))


def test_classes_that_the_model_does_not_know_count_as_wrong(folder, evaluate):
    *_, known = evaluate(folder)
    shutil.copytree(folder / "neutrophil", folder / "blast")
    code, out, err, figures = evaluate(folder)
    assert code == 0, err
    assert "the model does not know blast: their 10 images count as wrong" in err
    assert figures["unknown_classes"] == ["blast"]
    assert figures["n_images"] == 30
    row = figures["classes"].index("blast")
    assert figures["recall"][row] == 0 and sum(figures["confusion"][row]) == 10
    assert figures["accuracy"] == pytest.approx(known["accuracy"] * 2 / 3)
    only = figures["known_classes_only"]
    assert only == {name: known[name] for name in only}
    assert f"All images: accuracy {figures['accuracy']:.3f}" in out
    assert f"that the model knows: accuracy {known['accuracy']:.3f}" in out


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (["neutrophil"], "write NAME=CLASS"),
        (["cell=neutrophil"], "no class cell; they have lymphocyte, neutrophil"),
        (["neutrophil=neutrofil"], "Did you mean neutrophil?"),
        (["neutrophil=lymphocyte", "neutrophil=neutrophil"], "mapped twice"),
    ],
)
def test_wrong_maps_are_errors(pairs, expected, folder, evaluate):
    code, _, err, _ = evaluate(folder, *(part for pair in pairs for part in ("--map", pair)))
    assert code == 1 and expected in err


def test_a_folder_of_which_the_model_knows_nothing_is_an_error(folder, evaluate):
    (folder / "neutrophil").rename(folder / "a")
    (folder / "lymphocyte").rename(folder / "b")
    code, _, err, _ = evaluate(folder)
    assert code == 1
    assert "knows none of the images' classes a, b; it knows lymphocyte, neutrophil" in err
