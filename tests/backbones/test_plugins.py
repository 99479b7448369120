"""Backbones of other packages: found when asked for, named when broken, never in our place."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import pytest

from wbcclf.backbones import get_backbone, list_backbones
from wbcclf.exceptions import BrokenPluginWarning

ROOT = Path(__file__).parents[2]

SPEC = """
from torch import nn
from wbcclf.backbones import BackboneSpec

def make(name):
    return BackboneSpec(
        name=name,
        build=lambda: nn.Sequential(nn.Conv2d(3, 4, 1)),
        blocks=lambda network: {"only": network},
        input_size=8,
        smallest_size=1,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        paper="none",
    )
"""


def no_lookup(*args, **kwargs):
    raise AssertionError("entry points were looked up")


def test_entry_points_are_looked_up_only_for_names_that_are_not_registered(monkeypatch):
    monkeypatch.setattr(metadata, "entry_points", no_lookup)
    assert get_backbone("vgg16").name == "vgg16"
    with pytest.raises(AssertionError, match="looked up"):
        get_backbone("vgg61")


def test_a_plugin_is_listed_without_being_imported_and_loaded_once(install, monkeypatch):
    install("someones", {"somenet": "someones:NET"}, SPEC + "NET = make('somenet')")
    assert "somenet" in list_backbones()
    assert "someones" not in sys.modules
    spec = get_backbone("somenet")
    assert spec.name == "somenet"
    monkeypatch.setattr(metadata, "entry_points", no_lookup)
    assert get_backbone("somenet") is spec


def test_a_plugin_without_a_version_has_that_of_its_package(install):
    install("someones", {"somenet": "someones:NET"}, SPEC + "NET = make('somenet')")
    assert get_backbone("somenet").version == "someones 1.0"
    code = "from dataclasses import replace\nNET = replace(make('othernet'), version='7')"
    install("others", {"othernet": "others:NET"}, SPEC + code)
    assert get_backbone("othernet").version == "7"
    install("families", {"family": "families:family"}, SPEC + FAMILY)
    assert get_backbone("family:a").version == "families 1.0"


def test_names_are_compared_exactly(install):
    install("someones", {"somenet": "someones:NET"}, SPEC + "NET = make('somenet')")
    with pytest.raises(ValueError, match=r"'Somenet'; there are .*somenet.*mean 'somenet'"):
        get_backbone("Somenet")


FAMILY = """
def family(rest):
    if rest == "unheard":
        raise ValueError("no network is called 'unheard'")
    if rest == "bug":
        raise KeyError("oh")
    return make("family:" + rest)
"""


def test_a_family_is_asked_for_what_follows_the_colon(install):
    install("someones", {"family": "someones:family"}, SPEC + FAMILY)
    assert get_backbone("family:a").name == "family:a"
    assert get_backbone("family:b").name == "family:b"
    assert "family" in list_backbones()
    with pytest.raises(ValueError, match="no network is called 'unheard'"):
        get_backbone("family:unheard")
    for name in ("family", "family:"):
        with pytest.raises(ValueError, match="'family' is a family of networks"):
            get_backbone(name)
    with (
        pytest.warns(BrokenPluginWarning, match=r"'family:bug' of someones .*KeyError: 'oh'"),
        pytest.raises(ValueError, match="Unknown backbone 'family:bug'"),
    ):
        get_backbone("family:bug")


def test_one_network_is_no_family(install):
    install("someones", {"somenet": "someones:NET"}, SPEC + "NET = make('somenet')")
    with pytest.raises(ValueError, match="'somenet' is one network, not a family"):
        get_backbone("somenet:large")


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise ValueError('bad version')", "ValueError: bad version"),
        ("NETWORK = 1", "AttributeError: .*NET"),
        ("NET = 'somenet'", "it returns 'somenet' instead of a BackboneSpec"),
        (SPEC + "NET = make('othernet')", "its BackboneSpec has the name 'othernet'"),
    ],
)
def test_a_broken_plugin_is_named_and_its_backbone_unknown(install, code, fault):
    install("someones", {"somenet": "someones:NET"}, code)
    with (
        pytest.warns(BrokenPluginWarning, match=rf"'somenet' of someones .*someones:NET.*{fault}"),
        pytest.raises(ValueError, match=r"Unknown backbone 'somenet'; there are .*vgg16"),
    ):
        get_backbone("somenet")
    assert get_backbone("vgg16").name == "vgg16"


@pytest.mark.parametrize("name", ["vgg16", "timm", "xception"])
def test_what_wbcclf_offers_cannot_be_replaced(install, name):
    install("intruder", {name: "intruder:NET"}, "raise RuntimeError('must not be imported')")
    with pytest.warns(BrokenPluginWarning, match=rf"'{name}' of intruder .*taken by wbcclf"):
        assert list_backbones().count(name) == 1
    theirs = f"{name}:resnet10t" if name == "timm" else name
    assert get_backbone(theirs).name == theirs
    assert "intruder" not in sys.modules


def test_two_packages_with_the_same_name_are_both_named(install):
    for package in ("first", "second"):
        install(package, {"somenet": f"{package}:NET"}, SPEC + "NET = make('somenet')")
    with pytest.warns(BrokenPluginWarning, match=r"'somenet' of (first|second).*(first|second)"):
        assert "somenet" in list_backbones()
    with pytest.raises(ValueError, match=r"offered by (first|second) .*(first|second) .*Uninstall"):
        get_backbone("somenet")
    assert {"first", "second"}.isdisjoint(sys.modules)


@pytest.mark.parametrize("name", ["xception", "timm:resnet10t"])
def test_without_timm_the_error_says_what_to_install(name, registry, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.delitem(sys.modules, "wbcclf.backbones._timm", raising=False)
    assert {"xception", "timm"} <= set(list_backbones())
    with pytest.raises(ImportError, match=r'pip install "wbcclf\[timm\]"'):
        get_backbone(name)


def test_an_object_with_a_spec_is_taken_as_it_is():
    class Own:
        def spec(self):
            return "its spec"

    assert get_backbone(Own()) == "its spec"


TRAINING = """
import sys
import pytest
from wbcclf import CNNClassifier, make_blood_cells
cells = make_blood_cells(20, classes=2, image_size=16, random_state=0)
clf = CNNClassifier("tinynet", unfrozen_layers="top", max_epochs=2, device="cpu", random_state=0)
with pytest.warns(UserWarning, match="1 of 2 blocks of tinynet are frozen at random weights"):
    clf.fit(cells.images, cells.target)
assert clf.predict(cells.images).shape == (20,)
print(len(clf.history_), "epochs", [name for name, _ in clf.net_.module_.backbone.named_children()])
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-W", "error", sys.argv[1]]))
"""


def test_the_example_plugin_installs_trains_and_passes_its_own_test(tmp_path):
    plugin = shutil.copytree(ROOT / "examples" / "plugin", tmp_path / "plugin")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    scratch = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    # The scratch environment sees all that is installed here, editable packages included.
    here = sysconfig.get_path("purelib")
    Path(scratch.stdout.strip(), "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    pip = "pip install --quiet --no-index --no-deps --no-build-isolation --no-compile"
    subprocess.run([python, "-m", *pip.split(), "--disable-pip-version-check", plugin], check=True)
    done = subprocess.run(
        [python, "-c", TRAINING, plugin], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 epochs ['bottom', 'top']" in done.stdout
    assert "1 passed" in done.stdout
    with pytest.raises(ValueError, match="Unknown backbone 'tinynet'"):  # it is not here
        get_backbone("tinynet")
