"""The forms that are sent to a server: read into memory, within limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from wbcclf.serving._limits import MEGABYTE, Limits, Refused

HEAD_BYTES = 4096  # of the headers of a part
VALUE_BYTES = 1024  # of a part that is no file


@dataclass(frozen=True)
class Upload:
    """What a form holds: pictures with the names that the client gives them, and other values."""

    pictures: list[tuple[str, bytes]] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)


class Uploads:
    """Reads forms. All of them together hold no more than the limit of bytes.

    Where they would, the one that is read longest is given up: it is the slowest.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._held = 0
        self._deadlines: list[asyncio.Timeout] = []  # of the forms that are read, oldest first

    @asynccontextmanager
    async def reading(self, request: Request) -> AsyncIterator[Upload]:
        """Give what the form of a request holds. Its bytes count until the block ends.

        Raises
        ------
        Refused
            If it is no form, is too large or too slow, or there is no room for it.
        """
        parser = _Parser(_boundary(request), self.limits)
        declared = request.headers.get("content-length", "0")
        self._check_size(int(declared))  # h11 takes nothing but digits
        size = 0
        try:
            try:
                async with asyncio.timeout(self.limits.body_seconds) as deadline:
                    self._deadlines.append(deadline)
                    async for chunk in request.stream():
                        size += len(chunk)
                        self._held += len(chunk)
                        self._check_size(size)
                        self._make_room(deadline)
                        parser.write(chunk)
                    parser.finish()
            except TimeoutError:
                raise Refused(
                    408, "The pictures took too long to arrive. Send fewer at a time."
                ) from None
            finally:
                self._forget(deadline)
            yield parser.upload
        finally:
            self._held -= size
            parser.forget()

    def _check_size(self, size: int) -> None:
        if size > self.limits.request_bytes:
            raise Refused(
                413,
                f"A request may have {self.limits.request_bytes // MEGABYTE} MB. Send fewer or "
                "smaller pictures at a time.",
            )

    def _make_room(self, own: asyncio.Timeout) -> None:
        if self._held <= self.limits.held_bytes:
            return
        slowest = self._deadlines[0]
        if slowest is own:
            raise Refused(503, "The server holds too many pictures. Try again in a moment.")
        self._forget(slowest)
        slowest.reschedule(0)

    def _forget(self, deadline: asyncio.Timeout) -> None:
        if deadline in self._deadlines:
            self._deadlines.remove(deadline)


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refused(
            415,
            "Send the pictures as a form (multipart/form-data), as curl -F picture=@cell.png does.",
        )
    return options[b"boundary"]


class _Parser:
    """Takes a form in pieces, and keeps its parts as they are."""

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        self.upload = Upload()
        self.limits = limits
        self._has_ended = False
        self._head_size = 0
        self._header = [b"", b""]
        self._disposition = b""
        self._name = ""
        self._file_name: str | None = None
        self._data = bytearray()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, a, b: self._take_header(0, data[a:b]),
                    "on_header_value": lambda data, a, b: self._take_header(1, data[a:b]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_head,
                    "on_part_data": self._take_data,
                    "on_part_end": self._end,
                    "on_end": self._finish,
                },
            )
        except FormParserError as error:
            raise _broken(error) from error

    def write(self, chunk: bytes) -> None:
        """Take the next piece."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _broken(error) from error

    def finish(self) -> None:
        """Fail if the form is not whole."""
        if not self._has_ended:
            raise _broken("it ends too early")

    def forget(self) -> None:
        """Let go of all bytes: the parser and its callbacks hold each other for a while."""
        self.upload = Upload()
        self._data = bytearray()

    def _begin(self) -> None:
        self._head_size, self._header, self._disposition = 0, [b"", b""], b""
        self._name, self._file_name, self._data = "", None, bytearray()

    def _take_header(self, place: int, piece: bytes) -> None:
        self._head_size += len(piece)
        if self._head_size > HEAD_BYTES:
            raise _broken("the head of a part is too long")
        self._header[place] += piece

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = [b"", b""]

    def _end_head(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            self._file_name = options[b"filename"].decode("utf-8", "replace")
            if len(self.upload.pictures) == self.limits.pictures:
                raise Refused(
                    413,
                    f"A request may have {self.limits.pictures} pictures. Send the others in "
                    "further requests.",
                )

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        size = len(self._data) + end - start
        if self._file_name is None and size > VALUE_BYTES:
            raise Refused(413, f"{self._name}: a value may have {VALUE_BYTES} bytes.")
        if size > self.limits.picture_bytes:
            raise Refused(
                413,
                f"{self._file_name}: a picture may have "
                f"{self.limits.picture_bytes // MEGABYTE} MB. Save it as JPEG or PNG.",
            )
        self._data += data[start:end]

    def _end(self) -> None:
        data = bytes(self._data)
        if self._file_name is None:
            if len(self.upload.values) == self.limits.pictures:
                raise Refused(413, f"A request may have {self.limits.pictures} values.")
            self.upload.values[self._name] = data.decode("utf-8", "replace")
        else:
            self.upload.pictures.append((self._file_name, data))
        self._data = bytearray()

    def _finish(self) -> None:
        self._has_ended = True


def _broken(reason: object) -> Refused:
    return Refused(400, f"The form (multipart/form-data) is broken: {reason}.")
