"""A model meets images whose classes are called otherwise, or are not its own."""

import json
import shutil

import pytest


@pytest.fixture
def folder(trained, tmp_path):
    """Return a copy of test/."""
    return shutil.copytree(trained / "test", tmp_path / "test")


@pytest.fixture
def evaluate(trained, tmp_path, call):
    """Return a function that evaluates a folder: (code, stdout, stderr, figures)."""

    def evaluate(folder, *options):
        output = tmp_path / "figures.json"
        output.unlink(missing_ok=True)
        code, out, err = call("evaluate", trained / "m.wbcclf", folder, "-o", output, *options)
        return code, out, err, json.loads(output.read_text()) if code == 0 else None

    return evaluate


def test_upper_and_lower_case_alone_are_no_difference(folder, evaluate):
    *_, expected = evaluate(folder)
    (folder / "neutrophil").rename(folder / "NEUTROPHIL")
    code, out, err, figures = evaluate(folder)
    assert code == 0, err
    assert "NEUTROPHIL of the images is taken for the model's neutrophil" in out
    assert figures == expected


def test_but_are_where_two_classes_would_be_one(folder, evaluate):
    shutil.copytree(folder / "neutrophil", folder / "Neutrophil")
    code, out, err, figures = evaluate(folder)
    assert code == 0, err
    assert "taken for" not in out and figures["unknown_classes"] == ["Neutrophil"]


def test_classes_are_mapped_as_asked(folder, evaluate):
    *_, expected = evaluate(folder)
    (folder / "BNE").mkdir()
    for path in list((folder / "neutrophil").iterdir())[:4]:
        path.rename(folder / "BNE" / path.name)
    (folder / "neutrophil").rename(folder / "SNE")
    code, _, err, figures = evaluate(folder, "--map", "SNE=neutrophil", "--map", "BNE=neutrophil")
    assert code == 0, err
    assert figures == expected


def test_classes_that_the_model_does_not_know_count_as_wrong(folder, evaluate):
    *_, known = evaluate(folder)
    shutil.copytree(folder / "neutrophil", folder / "blast")
    code, out, err, figures = evaluate(folder)
    assert code == 0, err
    assert "the model does not know blast: their 10 images count as wrong" in err
    assert figures["unknown_classes"] == ["blast"]
    assert figures["n_samples"] == 30
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
