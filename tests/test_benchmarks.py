"""The benchmarks are no part of the gates; that they find what they import is."""

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
TREES = {path.stem: ast.parse(path.read_text()) for path in FOLDER.glob("*.py")}


def defined(tree):
    """Return the names that a module defines or imports."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(each.asname or each.name for each in node.names)
        else:
            stored = (each for each in ast.walk(node) if isinstance(each, ast.Name))
            names.update(each.id for each in stored if isinstance(each.ctx, ast.Store))
    return names


@pytest.mark.parametrize("name", sorted(TREES))
def test_what_a_benchmark_imports_is_there(name):
    for node in ast.walk(TREES[name]):
        if not isinstance(node, ast.ImportFrom):
            continue
        for each in node.names:
            if node.module in TREES:
                assert each.name in defined(TREES[node.module]), (node.module, each.name)
            elif node.module.split(".")[0] == "wbcclf":
                found = hasattr(importlib.import_module(node.module), each.name)
                assert found or find_spec(f"{node.module}.{each.name}"), (node.module, each.name)
