"""One piece of work for every image, in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from numbers import Integral
from typing import Any, TypeVar

import joblib

from wbcclf._progress import progress_bar

T = TypeVar("T")

MAX_CHUNK = 16  # images handed to a thread at a time: enough to hide the hand-over


def n_threads(n_jobs: int | None) -> int:
    """Return the number of threads that `n_jobs` stands for; None and -1 are one for each core.

    Raises
    ------
    ValueError
        If it is 0 or no int.
    """
    if n_jobs is not None and (not isinstance(n_jobs, Integral) or n_jobs == 0):
        raise ValueError(f"n_jobs must be None or an int other than 0, got {n_jobs!r}.")
    if n_jobs is not None and n_jobs > 0:
        return int(n_jobs)
    # joblib counts the cores that this process may use (affinity, containers).
    return max(1, joblib.cpu_count() + 1 + int(-1 if n_jobs is None else n_jobs))


def run_in_threads(
    work: Callable[[int], None],
    n_items: int,
    n_jobs: int | None,
    verbose: int = 0,
    what: str = "Images",
) -> None:
    """Call ``work(index)`` for every index below `n_items`; show a bar on stderr if `verbose`.

    `what` names the items on the bar.
    """

    def one_by_one(block: range) -> None:
        for index in block:
            work(index)

    run_blocks_in_threads(one_by_one, n_items, n_jobs, verbose, what)


def run_blocks_in_threads(
    work: Callable[[range], None],
    n_items: int,
    n_jobs: int | None,
    verbose: int = 0,
    what: str = "Images",
) -> None:
    """Call ``work(indices)`` for blocks of up to MAX_CHUNK indices below `n_items`."""
    threads = n_threads(n_jobs)
    chunk = max(1, min(MAX_CHUNK, n_items // (4 * threads)))
    starts = range(0, n_items, chunk)
    with advancing(n_items, verbose, what) as advance:

        def work_chunk(start: int) -> None:
            block = range(start, min(start + chunk, n_items))
            work(block)
            advance(len(block))

        if threads == 1:
            for start in starts:
                work_chunk(start)
            return
        pool = ThreadPoolExecutor(threads, thread_name_prefix="wbcclf")
        try:
            for _ in pool.map(work_chunk, starts):
                pass
        finally:
            # Also after Ctrl+C: what has not begun is dropped instead of waited for.
            pool.shutdown(wait=True, cancel_futures=True)


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield the items; a thread makes the next one while one is in use, and no more than that.

    An error comes where its item would. If the generator is closed, or Ctrl+C comes while it waits,
    it ends when the item under way is made, and leaves no thread.
    """
    items, end = iter(items), object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="wbcclf")
    try:
        following = pool.submit(next, items, end)
        while (item := following.result()) is not end:
            following = pool.submit(next, items, end)
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def advancing(n_items: int, verbose: int, what: str = "Images") -> Any:
    """Give a function to call with the number of items done; a bar on stderr if `verbose`."""
    if not verbose:
        yield lambda done: None
        return
    with progress_bar() as bar:
        task = bar.add_task(what, total=n_items)
        yield lambda done: bar.advance(task, done)
