"""The curve of a training that runs in a notebook.

No kernel is installed with the tests. A shell of IPython stands for one: it has the settings by
which a kernel is known, its class is called like a kernel's, and it keeps what would be sent to the
browser. What a browser makes of it is not tested.
"""

import base64
import json
import subprocess
import sys

import pytest

from wbcclf import SimpleCNNClassifier, make_blood_cells
from wbcclf.classifiers.training import _live, _net

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'wbcclf[plot]'")
pytest.importorskip("IPython", reason="IPython is not installed")

KERNEL = """
import json, sys
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

class ZMQInteractiveShell(InteractiveShell):
    pass

shell = ZMQInteractiveShell.instance(config=Config(IPKernelApp={}))
shell.display_pub = CapturingDisplayPublisher()

def sent(verbose=1, pause=0):
    shell.display_pub.outputs.clear()
    done = shell.run_cell(f'''
from wbcclf import SimpleCNNClassifier, make_blood_cells
from wbcclf.classifiers.training import _live
_live.LEAST_PAUSE, _live.LARGEST_SHARE = {pause}, float('inf')
cells = make_blood_cells(60, classes=2, image_size=16, random_state=0)
clf = SimpleCNNClassifier(max_epochs=4, device="cpu", random_state=0, verbose={verbose})
clf = clf.fit(cells.images, cells.target)
''')
    assert done.success
    return [
        [output["data"].get("image/png"), output["transient"], output["update"]]
        for output in shell.display_pub.outputs
    ]

found = {"every epoch": sent(), "seldom": sent(pause=600), "silent": sent(verbose=0)}
matplotlib = {name: sys.modules.pop(name) for name in [*sys.modules] if name[:10] == "matplotlib"}
sys.modules["matplotlib"] = None
found["without matplotlib"] = sent()
sys.modules.update(matplotlib)
shell.config.pop("IPKernelApp")
ZMQInteractiveShell.__name__ = "TerminalInteractiveShell"
found["terminal"] = sent()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def kernel():
    """Return what the kernel sends to the browser in each case, and its stderr."""
    done = subprocess.run(
        [sys.executable, "-c", KERNEL], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.parametrize(("case", "n_drawn"), [("every epoch", 4), ("seldom", 2)])
def test_one_picture_is_drawn_anew(kernel, case, n_drawn):
    pictures, transients, updates = zip(*kernel[0][case], strict=True)
    assert len(pictures) == n_drawn  # the last epoch is drawn, however soon it comes
    assert updates == (False, *[True] * (n_drawn - 1))
    assert len({each["display_id"] for each in transients}) == 1
    for picture in pictures:
        assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert len(set(pictures)) == n_drawn


@pytest.mark.parametrize("case", ["silent", "without matplotlib", "terminal"])
def test_else_nothing_is_drawn(kernel, case):
    assert kernel[0][case] == []


def test_the_bar_does_not_ask_for_widgets(kernel):
    assert "ipywidgets" not in kernel[1]
    assert "training, epoch 4" in kernel[1]


def test_a_script_imports_neither_ipython_nor_matplotlib():
    code = (
        "import sys; from wbcclf import *; cells = make_blood_cells(20, classes=2, image_size=16);"
        "SimpleCNNClassifier(max_epochs=1, verbose=1).fit(cells.images, cells.target);"
        "assert not {'IPython', 'matplotlib'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_training_survives_a_picture_that_cannot_be_drawn(monkeypatch):
    drawn = []

    def fail(*arguments):
        drawn.append(1)
        raise RuntimeError("no font")

    monkeypatch.setattr(_net, "can_draw_live", lambda: True)
    monkeypatch.setattr(_live, "draw_history", fail)
    monkeypatch.setattr(_live, "LEAST_PAUSE", 0)
    cells = make_blood_cells(40, classes=2, image_size=16, random_state=0)
    clf = SimpleCNNClassifier(max_epochs=3, device="cpu", random_state=0, verbose=1)
    with pytest.warns(UserWarning, match=r"goes on without it \(RuntimeError: no font\)"):
        clf.fit(cells.images, cells.target)
    assert clf.n_iter_ == 3 and drawn == [1]


def test_what_is_learnt_does_not_depend_on_the_picture(monkeypatch):
    cells = make_blood_cells(40, classes=2, image_size=16, random_state=0)
    shown = []
    monkeypatch.setattr(_live.LiveCurve, "_show", lambda self, history: shown.append(len(history)))
    probabilities = []
    for draws in (True, False):
        monkeypatch.setattr(_net, "can_draw_live", lambda draws=draws: draws)
        clf = SimpleCNNClassifier(max_epochs=2, device="cpu", random_state=0, verbose=1)
        probabilities.append(clf.fit(cells.images, cells.target).predict_proba(cells.images))
    assert shown == [1, 2]
    assert (probabilities[0] == probabilities[1]).all()
