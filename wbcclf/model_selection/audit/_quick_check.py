"""The part of the audit that hardly takes time: what training and evaluation look at, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.utils import Bunch

from wbcclf.datasets._decode import read_file
from wbcclf.datasets._file_facts import file_facts
from wbcclf.exceptions import ImageReadError
from wbcclf.model_selection.audit._findings import file_shortcuts

MOST_FILES = 1_000  # that are opened


def check_headers(
    paths: Sequence[str], y: np.ndarray, groups: np.ndarray | None = None
) -> list[Bunch]:
    """Report what in the headers of files gives a class away.

    Some files are opened, drawn with a fixed seed; those without a header that can be read are left
    out, since most of them are broken.

    Parameters
    ----------
    paths : sequence of str
    y : ndarray of shape (n_files,), str
    groups : ndarray of shape (n_files,) or None
        Without groups every file counts as a cell of its own.

    Returns
    -------
    list of Bunch
        Findings, as `check_data` gives them.
    """
    facts, rows = [], []
    for row in np.random.RandomState(0).permutation(len(paths))[:MOST_FILES].tolist():
        try:
            facts.append(file_facts(read_file(paths[row])))
        except ImageReadError:
            continue
        rows.append(row)
    if len(np.unique(y[rows])) < 2:
        return []
    cells = np.arange(len(rows)) if groups is None else groups[rows]
    return file_shortcuts(facts, y[rows], cells, [paths[row] for row in rows])
