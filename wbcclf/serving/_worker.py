"""The thread that runs the model: one batch or one other piece of work at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from wbcclf.exceptions import ImageReadError
from wbcclf.serving._model import ServedModel

# Of pictures that are predicted together. The smallest come first, so that few large ones do not
# keep others waiting.
BATCH, BATCH_BYTES = 16, 4_000_000


class Worker:
    """Runs a model in a thread of its own, so that the server goes on listening.

    Batches of pictures and other work take turns. What nobody waits for any longer is not begun.
    """

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="wbcclf")
        self._pictures: list[tuple[bytes, asyncio.Future]] = []
        self._others: list[tuple[Callable[[], list], asyncio.Future]] = []
        self._working: asyncio.Task | None = None

    async def predict(self, files: Sequence[bytes]) -> list[dict | ImageReadError]:
        """Return what is predicted of each file, or why it is no picture."""
        futures = [asyncio.get_running_loop().create_future() for _ in files]
        self._pictures += zip(files, futures, strict=True)
        self._begin()
        return await asyncio.gather(*futures)

    async def run(self, work: Callable[[bytes], Any], data: bytes) -> Any:
        """Return what a method of the model makes of a file."""
        future = asyncio.get_running_loop().create_future()
        self._others.append((lambda: [work(data)], future))
        self._begin()
        return await future

    def close(self) -> None:
        """Begin nothing more; what runs ends."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while self._pictures or self._others:
            batch = self._next_batch()
            if batch:
                files, futures = zip(*batch, strict=True)
                await self._answer(futures, partial(self.model.predict, files))
            self._others = [each for each in self._others if not each[1].done()]
            if self._others:
                work, future = self._others.pop(0)
                await self._answer([future], work)

    def _next_batch(self) -> list[tuple[bytes, asyncio.Future]]:
        wanted = (each for each in self._pictures if not each[1].done())
        batch: list[tuple[bytes, asyncio.Future]] = []
        rest: list[tuple[bytes, asyncio.Future]] = []
        room = BATCH_BYTES
        for each in sorted(wanted, key=lambda each: len(each[0])):
            room -= len(each[0])
            is_in = not batch or (len(batch) < BATCH and room >= 0)
            (batch if is_in else rest).append(each)
        self._pictures = rest
        return batch

    async def _answer(self, futures: Sequence[asyncio.Future], work: Callable[[], list]) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._pool, work)
        except Exception as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, answer in zip(futures, found, strict=True):
            if not future.done():
                future.set_result(answer)
