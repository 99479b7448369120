"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` if the block ends well.

    Whatever happens, no half-written file is left, and an existing one stays until then.
    """
    path = Path(path).resolve()  # a link stays a link
    if path.exists() and not path.is_file():  # a pipe or device is written to, not replaced
        yield path
        return
    # The suffix is kept: some writers choose the format by it.
    temporary = path.with_name(f"{path.stem}.{os.getpid()}-{get_ident()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
