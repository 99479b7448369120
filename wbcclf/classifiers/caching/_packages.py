"""Whose code is whose: packages that were installed, and what is the user's own."""

from __future__ import annotations

import hashlib
import os
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path


def package_of(module: str) -> str | None:
    """Return the :func:`package_digest` of the package that a module belongs to."""
    return package_digest(module.partition(".")[0])


@cache
def package_digest(name: str) -> str | None:
    """Return a digest of the code of an installed package; None for code of the user's own."""
    if name == "__main__":  # in a process of joblib, it is said to be joblib's
        return None
    try:  # whether it is imported or not
        file = Path(find_spec(name).origin or "")
    except (AttributeError, ImportError, ValueError):  # none at all, or one without a file
        return None
    if name in sys.stdlib_module_names and (
        not file.suffix or file.is_relative_to(Path(os.__file__).parent)
    ):
        return ".".join(map(str, sys.version_info[:3]))
    try:  # the digests of the files that pip has noted
        installed = distribution(name)
        is_there = Path(installed.locate_file(name)) == file.parent
        record = (installed.read_text("RECORD") or "").splitlines() if is_there else []
    except PackageNotFoundError:  # its distribution has another name
        record = []
    told = [line for line in record if line.startswith(f"{name}/") and ".py," in line]
    digest = hashlib.sha256("\n".join(told).encode())
    if not told:
        # wbcclf itself may be an editable installation.
        if name != "wbcclf" and not {"site-packages", "dist-packages"} & {*file.parts}:
            return None
        for path in sorted(file.parent.rglob("*.py")) if file.stem == "__init__" else [file]:
            digest.update(path.relative_to(file.parent).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
