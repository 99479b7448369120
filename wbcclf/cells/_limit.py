"""How many cells a picture may have where somebody waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from wbcclf.exceptions import ImageReadError

# Each cell takes milliseconds, and a small file can have 100,000. Whoever finds cells on their own
# machine waits as long as they like. A server must not. It is several calls above this, and all
# between would have to hand its limit on. A context variable holds in the thread that sets it.
_MOST: ContextVar[float] = ContextVar("_MOST", default=float("inf"))


class TooManyCells(ImageReadError):
    """A picture has more cells than may be looked for."""


@contextmanager
def at_most(n_cells: int) -> Iterator[None]:
    """Have pictures of more cells refused in this thread until the block ends."""
    token = _MOST.set(n_cells)
    try:
        yield
    finally:
        _MOST.reset(token)


def check_number(n_cells: int) -> None:
    """Check the number of cells of a picture, or of nuclei that may be of cells.

    Raises
    ------
    TooManyCells
        If there are more than the limit, if there is one.
    """
    if n_cells > _MOST.get():
        raise TooManyCells(
            f"it has more than {_MOST.get()} white cells, or spots that look like their nuclei; "
            "cut it into parts"
        )
