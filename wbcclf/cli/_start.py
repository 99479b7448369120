"""The command `wbcclf`, also where packages that it needs are missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line, or say which package it lacks."""
    try:
        if find_spec("torch") is None:  # most commands import it late
            raise ModuleNotFoundError(name="torch")
        from wbcclf.cli._main import main as run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "wbcclf"):  # an error of ours
            raise
        sys.exit(
            f"wbcclf: error: the command needs {missing}, which is not installed. Run pip install "
            "wbcclf, without --no-deps, to install all that it needs. Or predict in Python with "
            "wbcclf.onnx, which needs only numpy, opencv-python-headless and onnxruntime."
        )
    run()
