"""The steps of the tutorial run in their order; smaller here than on the page."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
# A small training knows too little for the page's bound on errors.
SMALLER = {
    "N_OURS, N_THEIRS, SIZE = 150, 100, 128": "N_OURS, N_THEIRS, SIZE = 50, 60, 64",
    "--steps 300": "--steps 40",
    "--reject 0.2": "--reject 0.95",
    "--image-size 64": "--image-size 32",
    "--most 12": "--most 4",
}


@pytest.mark.filterwarnings("default")  # the page shows them, too: cells that are not found
def test_the_tutorial_runs_from_top_to_bottom(call, tmp_path, monkeypatch):
    text = PAGE.read_text()
    for page, here in SMALLER.items():
        assert text.count(page) >= 1, page
        text = text.replace(page, here)
    monkeypatch.chdir(tmp_path)
    done = []
    for language, code in re.findall(r"^```(py|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language == "py":
            Path(code.partition("\n")[0].removeprefix("# ")).write_text(code)
            continue
        program, *arguments = shlex.split(code)
        if program == "python":
            runpy.run_path(*arguments)
        elif program == "rm":
            Path(*arguments).unlink()
        else:
            assert program == "wbcclf"
            code, out, err = call(*arguments)
            assert code == 0, (arguments, out, err)
            done.append(arguments[0])
    made = ["explore", "audit", "groups", "split", "train", "evaluate", "explain", "predict"]
    assert done == [*made, "evaluate", "adapt", "evaluate"]
    for name in ("explore.html", "audit.html", "report.html", "card.md", "maps.html"):
        assert Path(name).stat().st_size > 1000, name
