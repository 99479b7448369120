"""Fixtures that all rooms share."""

import os
import shutil
import sys
from pathlib import Path
from unittest import mock

import pytest

from wbcclf import load_model
from wbcclf.backbones import _registry
from wbcclf.exporting import export_onnx


@pytest.fixture(scope="session")
def wbcclf_data() -> Path:
    """Return the folder with real images."""
    if "WBCCLF_DATA" not in os.environ:
        pytest.skip("WBCCLF_DATA is not set: tests on real images need that folder")
    return Path(os.environ["WBCCLF_DATA"])


@pytest.fixture(scope="session")
def packaged_onnx(tmp_path_factory) -> Path:
    """Return the ONNX file of the model that comes with the package; making it takes 20 s."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: wbcclf[onnx]")
    path = tmp_path_factory.mktemp("packaged") / "model.onnx"
    export_onnx(load_model("wbcclf:blood-cells"), path)
    return path


@pytest.fixture(scope="session")
def chromium():
    """Return Debian's Chromium, without a screen; every page of it has a context of its own."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    # Without the last three it looks up hosts at every start. Root has no sandbox.
    options = [
        *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    ]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture
def registry():
    """Return the registered backbones by name; afterwards they are again what they were before.

    Nothing that an earlier test loaded from a plugin is known.
    """
    with mock.patch.dict(_registry._BACKBONES), mock.patch.dict(_registry._LOADED, clear=True):
        yield _registry._BACKBONES


@pytest.fixture
def limit_files():
    """Return a function after which no file of this process grows beyond so many bytes.

    To the process it is as if the disk was full.
    """
    resource = pytest.importorskip("resource", reason="limits as POSIX has them")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda n_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def install(registry, tmp_path, monkeypatch):
    """Return a function that puts a package of one file, with entry points, onto the path."""

    def install(package, entry_points, code):
        info = tmp_path / package / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.3\nName: {package}\nVersion: 1.0\n")
        lines = (f"{name} = {value}\n" for name, value in entry_points.items())
        (info / "entry_points.txt").write_text("[wbcclf.backbones]\n" + "".join(lines))
        (info.parent / f"{package}.py").write_text(code)
        monkeypatch.syspath_prepend(info.parent)
        monkeypatch.delitem(sys.modules, package, raising=False)

    return install
