"""Fetch ONNX Runtime Web, which `wbcclf.export_page` puts into its pages: `make browser`.

npm brings the package. Its hash is pinned here, so it is the one that was tested. Two files of it
are needed: the loader and the smallest WebAssembly that runs our graphs. The package has no licence
file; that of the Python package onnxruntime, built from the same source, is taken.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from wbcclf._files import replacing
from wbcclf.exporting._page import LICENCES, RUNTIME_SCRIPT, RUNTIME_WASM

PACKAGE = "onnxruntime-web@1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
VENDOR = Path(__file__).parent / "wbcclf" / "exporting" / "vendor"


def main() -> None:
    """Fill the folder of what is not our own."""
    npm, onnxruntime = shutil.which("npm"), importlib.util.find_spec("onnxruntime")
    if npm is None or onnxruntime is None or onnxruntime.origin is None:
        sys.exit("`make browser` needs npm, and onnxruntime for its licence.")
    VENDOR.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", PACKAGE, "--silent", "--ignore-scripts"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (packed,) = Path(folder).glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
        if digest != SHA512:
            sys.exit(f"{PACKAGE} has the SHA-512 {digest}, not the pinned {SHA512}.")
        with tarfile.open(packed) as archive:
            for name in (RUNTIME_SCRIPT, RUNTIME_WASM):
                member = archive.extractfile(f"package/dist/{name}")
                assert member is not None  # it is a file
                _write(name, member.read())
    for name in LICENCES:
        _write(name, (Path(onnxruntime.origin).parent / name).read_bytes())


def _write(name: str, content: bytes) -> None:
    with replacing(VENDOR / name) as temporary:
        temporary.write_bytes(content)


if __name__ == "__main__":
    main()
