"""What a server takes at most, and what it says of more."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 10**6


@dataclass(frozen=True)
class Limits:
    """What a server takes at most.

    Attributes
    ----------
    pictures : int
        In one request.
    picture_bytes, request_bytes : int
    held_bytes : int
        Of all requests that are not answered yet.
    pixels : int
        Of a picture.
    cells : int
        White cells of a picture, and nuclei of a part of it of 2048 x 2048 pixels.
    head_bytes : int
        Of the first line and the headers of a request.
    connections : int
    requests : int
        That wait for the model at the same time.
    head_seconds, body_seconds : float
        Until the head, and then the body of a request has come.
    answer_seconds : float
        Until the model has answered.
    """

    pictures: int = 100
    picture_bytes: int = 32 * MEGABYTE
    request_bytes: int = 64 * MEGABYTE
    held_bytes: int = 256 * MEGABYTE
    pixels: int = 25_000_000
    cells: int = 500
    head_bytes: int = 16_384
    connections: int = 128
    requests: int = 32
    head_seconds: float = 10
    body_seconds: float = 60
    answer_seconds: float = 60


class Refused(Exception):
    """A request that is not answered: a status code, and what to do."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
