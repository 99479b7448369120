"""`wbcclf explore`: what it prints, and the files that it writes."""

import json

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'wbcclf[plot]'")


def test_a_folder_is_explored(trained, run, tmp_path):
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    done = run(
        "explore", trained / "train", "-o", page, "--json", figures, "--groups", r"(\d)\.png"
    )
    assert done.returncode == 0, done.stderr
    assert "lymphocyte" in done.stdout and "Sizes (height x width): 48x48 (60)" in done.stdout
    assert "What the pictures show" in page.read_text()
    found = json.loads(figures.read_text())
    assert [each["label"] for each in found["classes"]] == ["lymphocyte", "neutrophil"]
    assert sum(each["n_images"] for each in found["classes"]) == 60
    assert all(each["n_cells"] <= 10 for each in found["classes"])  # by the last digit
    shown = found["classes"][0]["typical"][0]
    assert shown.startswith(str(trained / "train" / "lymphocyte"))
    assert len(found["classes"][0]["levels"]) == 3
    assert found["left_out"] == []


def test_images_without_labels_are_one_class(trained, call):
    code, out, _ = call("explore", trained / "new")
    assert code == 0
    assert "all" in out and "12" in out


def test_broken_files_are_named_or_left_out(call, write_cells, tmp_path):
    write_cells(tmp_path / "cells", 12, 0)
    broken = tmp_path / "cells" / "neutrophil" / "broken.png"
    broken.write_bytes(b"no picture")
    code, _, err = call("explore", tmp_path / "cells")
    assert code == 1 and "broken.png" in err and "--on-error" in err
    figures = tmp_path / "figures.json"
    code, _, _ = call("explore", tmp_path / "cells", "--on-error", "skip", "--json", figures)
    assert code == 0
    assert json.loads(figures.read_text())["left_out"][0]["file"] == str(broken)


def test_a_page_is_not_written_over_an_image(trained, call):
    image = next((trained / "train" / "neutrophil").iterdir())
    code, _, err = call("explore", trained / "train", "-o", image)
    assert code == 1 and "would be overwritten" in err
