"""What took long to compute is not lost where it cannot be written."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile

import pytest

import wbcclf

pytestmark = pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="the full disk is Linux's /dev/full"
)


def arguments_of(command, trained):
    if command == "train":
        folder = trained / "train"
        return ("train", folder, "-o", "/dev/full", "--image-size", 32, "--epochs", 1)
    option = "--json" if command == "evaluate" else "-o"
    return (command, trained / "m.wbcclf", trained / "test", option, "/dev/full")


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_a_result_that_does_not_fit_on_the_disk_is_kept_in_the_current_folder(
    command, trained, tmp_path, monkeypatch, call, read_csv
):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*arguments_of(command, trained))
    assert code == 1
    [kept] = tmp_path.iterdir()
    [error] = [line for line in err.splitlines() if line.startswith("wbcclf: error:")]
    assert "/dev/full could not be written (No space left on device)" in error
    assert f"is in {kept} instead" in error
    if command == "train":
        assert wbcclf.load_model(kept).classes_.tolist() == ["lymphocyte", "neutrophil"]
    elif command == "evaluate":
        assert json.loads(kept.read_text())["n_images"] == 20
    else:
        assert len(read_csv(kept)) == 20


def test_or_in_the_folder_for_temporary_files(trained, tmp_path, monkeypatch, call, read_csv):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, _, err = call(*arguments_of("predict", trained))
    [kept] = tmp_path.iterdir()
    assert code == 1 and f"is in {kept} instead" in err
    assert len(read_csv(kept)) == 20


def test_where_nothing_can_be_written_the_error_names_the_file_and_nothing_is_half_written(
    trained, tmp_path, start
):
    def limit():  # no file may grow beyond so many bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    output = tmp_path / "m.wbcclf"
    output.write_text("what was there before")
    arguments = ("train", trained / "train", "-o", output, "--image-size", 32, "--epochs", 1)
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = start(*arguments, cwd=tmp_path, env=environment, preexec_fn=limit)
    assert done.returncode == 1
    assert f"wbcclf: error: {output} could not be written (File too large), and neither" in (
        done.stderr
    )
    assert "run the same command again" in done.stderr
    assert list(tmp_path.iterdir()) == [output] and output.read_text() == "what was there before"


def test_a_full_disk_behind_stdout_is_named(start):
    with open("/dev/full", "w") as full:
        done = start("--version", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode != 0
    assert "wbcclf: error: <stdout> cannot be written to (No space left on device)" in done.stderr


def test_a_disk_too_full_for_the_model_is_found_before_training(
    trained, tmp_path, monkeypatch, call
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    output = tmp_path / "m.wbcclf"
    code, out, err = call("train", trained / "train", "-o", output, "--image-size", 32)
    assert code == 1 and "images" not in out
    assert f"{output} needs" in err and "only 0.0 MB are free" in err


def test_predictions_go_through_a_pipe(trained, tmp_path):
    command = [sys.executable, "-c", "from wbcclf.cli import main; main()", "predict"]
    command += [trained / "m.wbcclf", trained / "new", "-o", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "file,label,error" in done.stdout
    assert not list(tmp_path.iterdir())
