"""The HTTP API, and the page that uses it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from wbcclf.cells._limit import TooManyCells
from wbcclf.datasets._decode import TooManyPixels
from wbcclf.exceptions import ImageReadError
from wbcclf.serving._corrections import OTHER, Corrections
from wbcclf.serving._guard import Guard
from wbcclf.serving._limits import Limits, Refused
from wbcclf.serving._page import PAGE
from wbcclf.serving._uploads import Upload, Uploads
from wbcclf.serving._worker import Worker

RETRY_AFTER = "2"  # seconds
TOO_MUCH = TooManyPixels, TooManyCells

T = TypeVar("T")


class Api:
    """What the addresses below /api answer.

    Parameters
    ----------
    worker : Worker
    corrections : Corrections or None
    limits : Limits
    about : dict
        What /api/model answers.
    """

    def __init__(
        self,
        worker: Worker,
        corrections: Corrections | None,
        limits: Limits,
        about: dict[str, Any],
    ) -> None:
        self.worker = worker
        self.corrections = corrections
        self.limits = limits
        self.about = about
        self.uploads = Uploads(limits)
        self._n_waiting = 0
        self._saving = asyncio.Lock()

    async def tell_model(self, request: Request) -> Response:
        """GET /api/model: what the model is, and what the server takes."""
        return JSONResponse(self.about)

    async def predict(self, request: Request) -> Response:
        """POST /api/predict: what each picture is called."""
        async with self.uploads.reading(request) as upload:
            _require_pictures(upload)
            files = [data for _, data in upload.pictures]
            async with self._turn():
                found = await self._in_time(request, self.worker.predict(files))
        pictures = [
            {"name": name} | ({"error": str(each)} if isinstance(each, ImageReadError) else each)
            for (name, _), each in zip(upload.pictures, found, strict=True)
        ]
        faults = [each for each in found if isinstance(each, ImageReadError)]
        if len(faults) < len(found):
            return JSONResponse({"pictures": pictures})
        status = 413 if all(isinstance(each, TOO_MUCH) for each in faults) else 415
        first = f"{upload.pictures[0][0]}: {faults[0]}"
        return JSONResponse({"error": first, "pictures": pictures}, status)

    async def count(self, request: Request) -> Response:
        """POST /api/count: the white cells of a field."""
        async with self.uploads.reading(request) as upload:
            return await self._of_one(request, upload, self.worker.model.count)

    async def explain(self, request: Request) -> Response:
        """POST /api/explain: what the network goes by in a picture or in a cell of a field."""
        if not self.worker.model.explains:
            raise Refused(501, "The model is no network: there are no maps of it.")
        async with self.uploads.reading(request) as upload:
            work = partial(self.worker.model.explain, box=_read_box(upload))
            return await self._of_one(request, upload, work)

    async def correct(self, request: Request) -> Response:
        """POST /api/corrections: the true class of a picture or of a field's cell; it is saved."""
        if self.corrections is None:
            raise Refused(404, "Start wbcclf serve with --corrections DIR to save corrections.")
        async with self.uploads.reading(request) as upload:
            [(_, data)] = _require_pictures(upload, most=1)
            label = upload.values.get("class", "")
            if label not in self.corrections.names:
                raise Refused(
                    400,
                    f"class must be one of {', '.join(self.corrections.names)}; {OTHER} is for "
                    "pictures of no cell or of another kind.",
                )
            work = partial(self.worker.model.pick, box=_read_box(upload))
            async with self._turn():
                picture = await self._in_time(request, self.worker.run(work, data))
            try:
                async with self._saving:  # one after the other, for the last word to count
                    file = await asyncio.to_thread(self.corrections.save, picture, label)
            except OSError as error:
                raise Refused(
                    507,
                    f"The picture was not saved ({error.strerror or error}). The folder of "
                    "--corrections needs room and leave to write.",
                ) from error
        return JSONResponse({"class": label, "file": file}, 201)

    async def _of_one(self, request: Request, upload: Upload, work: Any) -> Response:
        [(name, data)] = _require_pictures(upload, most=1)
        async with self._turn():
            found = await self._in_time(request, self.worker.run(work, data))
        return JSONResponse({"name": name} | found)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._n_waiting == self.limits.requests:
            raise Refused(503, "The server is busy. Try again in a moment.")
        self._n_waiting += 1
        try:
            yield
        finally:
            self._n_waiting -= 1

    async def _in_time(self, request: Request, answer: Coroutine[Any, Any, T]) -> T:
        """Return an answer, as long as the client waits for it, and not for ever."""
        tasks = asyncio.create_task(answer), asyncio.create_task(_wait_until_gone(request))
        try:
            await asyncio.wait(
                tasks,
                timeout=self.limits.answer_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if tasks[0].done():
                return tasks[0].result()
            if tasks[1].done():
                raise ClientDisconnect
        finally:
            for task in tasks:
                task.cancel()
        raise Refused(
            503,
            f"The model did not answer in {self.limits.answer_seconds:g} seconds. Try again, with "
            "fewer or smaller pictures at a time.",
        )


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def make_app(api: Api, host: str) -> Starlette:
    """Return the server's application; `host` is where it listens."""

    async def show_page(request: Request) -> Response:
        return HTMLResponse(PAGE)

    routes = [
        Route("/", show_page),
        Route("/api/model", api.tell_model),
        Route("/api/predict", api.predict, methods=["POST"]),
        Route("/api/count", api.count, methods=["POST"]),
        Route("/api/explain", api.explain, methods=["POST"]),
        Route("/api/corrections", api.correct, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {
        Refused: _tell_refusal,
        ImageReadError: _tell_unreadable,
        HTTPException: _tell_http_error,
        ClientDisconnect: _tell_nobody,
        Exception: _tell_failure,
    }
    return Starlette(
        routes=routes,
        exception_handlers=handlers,
        middleware=[Middleware(Guard, host=host)],
    )


def _require_pictures(upload: Upload, most: int | None = None) -> list[tuple[str, bytes]]:
    if not upload.pictures:
        raise Refused(400, "The form holds no picture. Send one as a file, as curl -F does with @.")
    if most is not None and len(upload.pictures) > most:
        raise Refused(400, f"The form holds {len(upload.pictures)} pictures. Send one at a time.")
    return upload.pictures


def _read_box(upload: Upload) -> tuple[int, ...] | None:
    """Return (min_row, min_col, max_row, max_col) of the cell of a field, if the form names one."""
    text = upload.values.get("box")
    if text is None:
        return None
    is_read = re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9}){3}", text)
    box = tuple(int(number) for number in text.split(",")) if is_read else (0, 0, 0, 0)
    if not (box[0] < box[2] and box[1] < box[3]):
        raise Refused(
            400,
            "box must be min_row,min_col,max_row,max_col of a cell, as /api/count gives them, such "
            f"as 40,60,120,140, got {text!r}.",
        )
    return box


async def _tell_refusal(request: Request, error: Refused) -> Response:
    headers = {"retry-after": RETRY_AFTER} if error.status == 503 else None
    return JSONResponse({"error": str(error)}, error.status, headers)


async def _tell_unreadable(request: Request, error: ImageReadError) -> Response:
    status, what = (413, "is refused") if isinstance(error, TOO_MUCH) else (415, "cannot be read")
    return JSONResponse({"error": f"The picture {what}: {error}."}, status)


async def _tell_http_error(request: Request, error: HTTPException) -> Response:
    paths = ", ".join(route.path for route in request.app.routes)
    return JSONResponse(
        {"error": f"{error.detail}. The addresses are {paths}."}, error.status_code, error.headers
    )


async def _tell_nobody(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # which nobody reads


async def _tell_failure(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "The server failed. Its terminal says why."}, 500)
