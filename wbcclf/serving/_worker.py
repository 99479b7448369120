"""The thread that runs the model: one batch at a time, of whatever pictures wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from wbcclf.exceptions import ImageReadError
from wbcclf.serving._model import ServedModel

BATCH = 16  # pictures: others wait that long


class Worker:
    """Runs a model in a thread of its own, so that the server goes on listening."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="wbcclf")
        self._waiting: list[tuple[bytes, asyncio.Future]] = []
        self._batches: asyncio.Task | None = None

    async def predict(self, files: Sequence[bytes]) -> list[dict | ImageReadError]:
        """Return what is predicted of each file, or why it is no picture."""
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in files]
        self._waiting += zip(files, futures, strict=True)
        if self._batches is None or self._batches.done():
            self._batches = loop.create_task(self._predict_batches())
        return await asyncio.gather(*futures)

    async def run(self, work: Callable[[bytes], Any], data: bytes) -> Any:
        """Return what a method of the model makes of a file."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, data)

    def close(self) -> None:
        """Begin nothing more; what runs ends."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _predict_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Nobody waits any longer for those that are done: their request was given up.
            self._waiting = [each for each in self._waiting if not each[1].done()]
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            if not batch:
                return
            files = [data for data, _ in batch]
            found: Sequence[Any]
            try:
                found = await loop.run_in_executor(self._pool, self.model.predict, files)
            except Exception as error:  # one for each: the server goes on
                found = [error] * len(batch)
            for (_, future), answer in zip(batch, found, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception) and not isinstance(answer, ImageReadError):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
