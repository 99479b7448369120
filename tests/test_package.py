"""What `make package` built installs, runs and tells the truth about itself."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import wbcclf

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built():
    """Return a function that finds the one file in dist/ with a suffix."""

    def find(suffix):
        files = [*(ROOT / "dist").glob(f"*{suffix}")]
        if not files:
            pytest.skip(f"dist/ has no {suffix}: `make package` builds it and runs these tests")
        return files[0]

    return find


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Return a function that runs a command where only the wheel is installed, not this clone.

    What the wheel depends on is that of this environment, so nothing is downloaded.
    """
    home = tmp_path_factory.mktemp("installed")
    venv.create(home / "venv", with_pip=False)
    python = home / "venv" / "bin" / "python"
    (purelib,) = (home / "venv").glob("lib/python*/site-packages")
    (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    options = ["--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    pip = [sys.executable, "-m", "pip", "--python", python, "install", *options]
    subprocess.run([*pip, built(".whl")], check=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(program, *arguments):
        command = [python.parent / program, *arguments]
        done = subprocess.run(
            command, cwd=home, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.package
def test_the_wheel_installs_by_itself(installed):
    where = installed("python", "-c", "import wbcclf; print(wbcclf.__file__)")
    assert "installed" in where and str(ROOT) not in where
    assert installed("wbcclf", "--version").split() == ["wbcclf", wbcclf.__version__]


SMOKE = """
import sys
from pathlib import Path
from PIL import Image
from wbcclf import cli, make_blood_cells
cells = make_blood_cells(8, classes=2, image_size=64, random_state=0)
for number, (image, label) in enumerate(zip(cells.images, cells.target)):
    Path('cells', label).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(f'cells/{label}/{number}.png')
for command in ('explore cells -o page.html', 'predict cells'):
    sys.argv = ['wbcclf', *command.split()]
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code
print(Path('page.html').read_text()[:15])
"""


@pytest.mark.package
def test_what_is_installed_draws_looks_and_predicts(installed):
    out = installed("python", "-c", SMOKE)
    assert "predictions.csv" in out  # the model is there
    assert out.endswith("<!doctype html>\n")  # so are the templates


@pytest.mark.package
def test_the_wheel_holds_the_package_and_its_licences_alone(built):
    names = zipfile.ZipFile(built(".whl")).namelist()
    info = f"wbcclf-{wbcclf.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"wbcclf", info}
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} < {*names}


@pytest.mark.package
def test_the_wheel_holds_what_pages_in_a_browser_run_on(built):
    vendored = [path.name for path in (ROOT / "wbcclf" / "exporting" / "vendor").glob("*")]
    if not vendored:
        pytest.skip("ONNX Runtime Web is not here: `make browser` fetches it before `make package`")
    names = {*zipfile.ZipFile(built(".whl")).namelist()}
    assert {f"wbcclf/exporting/vendor/{name}" for name in vendored} < names


@pytest.mark.package
def test_the_source_archive_builds_and_tests(built):
    with tarfile.open(built(".tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = ["Makefile", "requirements.txt", "mkdocs.yml", "api_pages.py", "CITATION.cff"]
    needed += ["tests/conftest.py", "docs/index.md", "examples/train_on_paths.py"]
    assert {*needed} < names


@pytest.mark.package
def test_the_metadata_name_no_address_that_does_not_exist(built):
    with zipfile.ZipFile(built(".whl")) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Version"] == wbcclf.__version__
    assert metadata.get_all("Project-URL") is None
    assert metadata.get_payload().startswith("# wbcclf")


def test_the_readme_of_the_index_has_no_link_into_the_repository():
    text = (ROOT / "PYPI.md").read_text()
    assert [link for link in re.findall(r"\]\(([^)]*)\)", text) if "://" not in link] == []


def test_the_citation_names_this_version():
    yaml = pytest.importorskip("yaml", reason="it comes with mkdocs: pip install 'wbcclf[docs]'")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} < {*citation}
    assert citation["version"] == wbcclf.__version__
    heading = f"## {wbcclf.__version__} ({citation['date-released']})"
    assert heading in (ROOT / "CHANGELOG.md").read_text()
