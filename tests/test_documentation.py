"""What the documentation shows runs, and what the package promises about importing holds."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from wbcclf.backbones import _registry

ROOT = Path(__file__).parents[1]


def python_blocks(name):
    text = (ROOT / name).read_text()
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        *(f"docs/{page}.md" for page in ("guide", "training", "search", "recipes", "plugins")),
    ],
)
def test_the_code_blocks_of_a_page_run_one_after_the_other(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_registry, "_BACKBONES", dict(_registry._BACKBONES))
    blocks = python_blocks(name)
    assert blocks
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, name, "exec"), namespace)
    assert capsys.readouterr().out


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_there_are_three_examples():
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    assert "accuracy" in capsys.readouterr().out


def test_the_pretrained_example_runs_with_real_weights(wbcclf_data, monkeypatch, capsys):
    weights = wbcclf_data.parent / "weights" / "squeezenet1_1_features.npz"
    path = ROOT / "examples" / "search_unfrozen_layers.py"
    monkeypatch.setattr(sys, "argv", [str(path), str(weights)])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.count("unfrozen_layers=") == 4


def test_importing_stays_light():
    code = (
        "import sys, wbcclf\n"
        "print([name for name in ('torch', 'skorch', 'matplotlib', 'typer')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_in_the_api_pages():
    import wbcclf

    pages = "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    missing = [name for name in wbcclf.__all__ if f"::: wbcclf.{name}\n" not in pages]
    assert not missing


def test_the_pinned_requirements_name_no_address():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 30
    pattern = r'[A-Za-z0-9._-]+(\[[a-z]+\])?==[0-9][A-Za-z0-9.+-]*( ; sys_platform == "linux")?'
    assert [line for line in pins if not re.fullmatch(pattern, line)] == []
