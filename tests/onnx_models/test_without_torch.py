"""The same answers where NumPy, OpenCV and onnxruntime are all there is."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx_models.drawn_model import CROP, write_model

import wbcclf
import wbcclf.onnx
from wbcclf import make_blood_cells

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
PACKAGES = ("numpy", "cv2", "onnxruntime", "wbcclf")
N_RUNS = 5
CODE = """
import sys
sys.path.append(sys.argv[1])
import json, time

def seconds():
    return time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)

start = seconds()
import numpy, cv2, onnxruntime
others = seconds() - start
import wbcclf.onnx
both = seconds() - start
model = wbcclf.onnx.load(sys.argv[2], n_threads=1)
answers = model.answer(sys.argv[3:])
# Not ru_maxrss, which a process takes over from the one that started it.
(memory,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
packages = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(json.dumps({
    "packages": sorted(packages - {"__main__"}),
    "others": others,
    "both": both,
    "MB": int(memory.split()[1]) / 1000,
    "labels": answers.labels.tolist(),
    "probabilities": answers.probabilities.tolist(),
}))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Return a folder that holds nothing but links to the packages, and the libraries of theirs."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory as Linux counts it")
    root = tmp_path_factory.mktemp("environment")
    for name in PACKAGES:
        package = Path(importlib.util.find_spec(name).origin).parent
        libraries = {"numpy": "numpy.libs", "cv2": "opencv_python_headless.libs"}.get(name)
        for folder in (package, libraries and package.with_name(libraries)):
            if folder and folder.exists():
                (root / folder.name).symlink_to(folder)
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for number, size in enumerate((96, 160, (200, 128))):
        cells = make_blood_cells(2, 2, image_size=size, random_state=0)
        for index, image in enumerate(cells.images):
            cv2.imwrite(str(root / f"{number}-{index}.png"), image[..., ::-1])
    return [str(path) for path in sorted(root.iterdir())]


def run(environment, *arguments):
    """Return what the code prints in a Python without site-packages; no variable points to any."""
    command = [sys.executable, "-I", "-S", "-c", CODE, environment, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_is_quick_memory_small_and_the_answers_are_the_same(environment, pictures, tmp_path):
    path = write_model(tmp_path / "model.onnx", image_size=[32, 32], crop=CROP)
    expected = wbcclf.onnx.load(path).answer(pictures)
    runs = [run(environment, path, *pictures) for _ in range(N_RUNS)]
    for each in runs:
        assert each["packages"] == sorted(PACKAGES)
        assert each["labels"] == expected.labels.tolist()
        np.testing.assert_allclose(each["probabilities"], expected.probabilities, atol=1e-6)
    both, others = (np.median([each[name] for each in runs]) for name in ("both", "others"))
    assert both < 0.5
    assert both / others < 2
    assert max(each["MB"] for each in runs) < 200


def test_what_needs_the_rest_says_so(environment):
    code = f"import sys; sys.path.append({str(environment)!r}); import wbcclf; wbcclf.SMOTE"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert "ModuleNotFoundError: No module named" in done.stderr
