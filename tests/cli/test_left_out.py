"""No file is missing without a trace."""

import csv
import json
import shutil

import pytest


@pytest.fixture
def mixed(trained, tmp_path):
    """Return a copy of test/ with 25 broken images, a hidden file and one of another kind."""
    root = tmp_path / "mixed"
    shutil.copytree(trained / "test", root)
    for number in range(25):
        (root / "neutrophil" / f"broken{number}.png").write_bytes(b"no image")
    (root / "lymphocyte" / ".hidden").write_bytes(b"")
    (root / "lymphocyte" / "notes.md").write_text("")
    return root


def expect_all(paths, root):
    names = [path.removeprefix(f"{root}/") for path in paths]
    assert sorted(names[:25]) == sorted(f"neutrophil/broken{number}.png" for number in range(25))
    assert sorted(names[25:]) == ["lymphocyte/.hidden", "lymphocyte/notes.md"]


def arguments_of(command, trained, folder, output):
    if command == "train":
        return (command, folder, "-o", output, "--image-size", 32, "--epochs", 1)
    option = "--json" if command == "evaluate" else "-o"
    return (command, trained / "m.wbcclf", folder, option, output)


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_broken_images_are_named_first_and_all_of_them_in_a_file(
    command, trained, mixed, tmp_path, call, read_csv
):
    output = tmp_path / "output"
    code, _, err = call(*arguments_of(command, trained, mixed, output), "--on-error", "warn")
    assert code == 0, err
    warnings = [line for line in err.splitlines() if line.startswith("wbcclf: warning:")]
    assert len(warnings) == 2
    assert "25 of 45 images that cannot be read:" in warnings[0]
    assert warnings[0].count("/broken") == 20 and "and 5 more" in warnings[0]
    assert "also left out, 2:" in warnings[1]
    assert ".hidden (hidden" in warnings[1] and "notes.md (the suffix" in warnings[1]
    if command == "train":
        assert f"{output}.left-out.csv names all" in warnings[0]
        expect_all([row["file"] for row in read_csv(tmp_path / "output.left-out.csv")], mixed)
    elif command == "evaluate":
        left_out = json.loads(output.read_text())["left_out"]
        expect_all([item["file"] for item in left_out], mixed)
        assert all(item["reason"] for item in left_out)
    else:
        rows = read_csv(output)
        assert len(rows) == 47
        left_out = [row for row in rows if row["error"]]
        expect_all([row["file"] for row in left_out], mixed)
        assert not any(row["label"] or row["neutrophil"] for row in left_out)


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_raise_and_skip_mean_the_same_everywhere(command, trained, mixed, tmp_path, call):
    arguments = arguments_of(command, trained, mixed, tmp_path / "output")
    code, _, err = call(*arguments, "--on-error", "raise")
    assert code == 1
    [error] = [line for line in err.splitlines() if line.startswith("wbcclf: error:")]
    assert "25 of 45 images cannot be read: " in error and "--on-error warn" in error
    # What was predicted is kept for the same command with --on-error warn.
    kept = {"predict": ["output.parts"]}.get(command, [])
    assert [path.name for path in tmp_path.glob("output*")] == kept
    code, _, err = call(*arguments, "--on-error", "skip")
    assert code == 0 and "warning" not in err
    assert not (tmp_path / "output.left-out.csv").exists()


def test_a_table_that_names_missing_files_is_read_as_asked(trained, tmp_path, call):
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for path in sorted((trained / "test").rglob("*.png")):
            writer.writerow([path, path.parent.name])
        writer.writerows([["gone.png", "neutrophil"], ["gone.png", ""]])
    figures = tmp_path / "figures.json"
    arguments = ("evaluate", trained / "m.wbcclf", table, "--json", figures)
    code, _, err = call(*arguments)
    assert code == 1 and "1 of 21 images cannot be read: " in err and "gone.png (no such" in err
    code, _, err = call(*arguments, "--on-error", "warn")
    assert code == 0, err
    left_out = json.loads(figures.read_text())["left_out"]
    assert [item["reason"] for item in left_out] == ["no such file", "no label"]


@pytest.mark.filterwarnings("always::wbcclf.exceptions.DuplicateImageWarning")
def test_train_passes_on_what_the_loaders_warn_of(trained, tmp_path, call):
    root = shutil.copytree(trained / "test", tmp_path / "test")
    shutil.copy(next((root / "neutrophil").iterdir()), root / "lymphocyte" / "same.png")
    arguments = ("train", root, "-o", tmp_path / "m", "--image-size", 32, "--epochs", 1)
    code, _, err = call(*arguments)
    assert code == 0, err
    [line] = [line for line in err.splitlines() if line.startswith("wbcclf: warning:")]
    assert "byte for byte the same" in line and "same.png" in line
