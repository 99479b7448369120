"""Predictions of a Dask cluster, part by part."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import wbcclf
from wbcclf._files import read_regular
from wbcclf._parts import file_digest
from wbcclf._predictions import Chunk, pack
from wbcclf.inspection import predict_files
from wbcclf.inspection._files import last_step

SECONDS_TO_CONNECT = 10
ADDRESS = re.compile(r"((tcp|tls|ucx|ws|wss)://)?[^/\s]+:\d+")


def predict_on_cluster(
    scheduler: str, model_file: Path, digest: str, rejection: float | None, todo: Iterator[Chunk]
) -> Iterator[tuple[str, bytes]]:
    """Predict the classes of image files as `predict_here` does, on a cluster.

    Parameters
    ----------
    scheduler : str
        Address of a Dask scheduler, like ``tcp://10.0.0.1:8786``.
    model_file : Path
    digest : str
        Of the model's file.
    rejection : float or None
        For the model instead of its own; None leaves that.
    todo : iterator of (name, files)
        Every worker must see the files and `model_file` under the same absolute names.

    Yields
    ------
    (name, bytes)
        A part when it is done, in any order.

    Raises
    ------
    ImportError
        If distributed is not installed.
    OSError
        If the scheduler cannot be reached, is lost or has no workers, or if one of them does not
        see the model or an image that can be read here.
    ValueError
        If `scheduler` is not an address.
    """
    if not ADDRESS.fullmatch(scheduler):
        raise ValueError(f"--scheduler {scheduler!r} is not an address like tcp://10.0.0.1:8786.")
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("--scheduler needs distributed: pip install 'wbcclf[dask]'.") from error
    # Its traceback of a lost connection says no more than our error.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    waiting = next(todo, None)
    if waiting is None:  # all is there
        return
    try:
        client = Client(scheduler, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(
            f"--scheduler {scheduler} cannot be reached ({error}). Start one with "
            "`dask scheduler`; it prints its address."
        ) from error
    with client:
        yield from _run(client, (str(model_file.resolve()), digest, rejection), waiting, todo)


def _run(
    client: Any,
    model: tuple[str, str, float | None],
    waiting: Chunk | None,
    todo: Iterator[Chunk],
) -> Iterator[tuple[str, bytes]]:
    """Yield the parts as they are done; at most two of each thread of the cluster are under way.

    A worker that dies loses nothing: its parts are given to others. So they depend on files alone,
    and on nothing that was sent to a worker before and cannot be computed again.
    """
    from distributed import Future, as_completed
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError

    try:
        client.wait_for_workers(1, timeout=SECONDS_TO_CONNECT)
    except TimeoutError as error:
        address = client.scheduler.address
        raise OSError(
            f"--scheduler {address} has no workers. Start some with `dask worker {address} "
            "--nthreads 1`."
        ) from error
    chunk_of: dict[Future, Chunk] = {}
    running = as_completed([], loop=client.loop, with_results=True)
    here = os.getcwd()  # a worker has its own working directory

    def submit() -> None:
        nonlocal waiting
        # Counted anew each time, since workers come and go.
        n_at_once = 2 * sum(client.nthreads().values())
        while waiting is not None and (len(chunk_of) < n_at_once or not chunk_of):
            future = client.submit(_predict_part, *model, here, waiting[1], pure=False)
            chunk_of[future] = waiting
            running.add(future)
            waiting = next(todo, None)

    try:
        submit()
        for future, result in running:
            if isinstance(result, FutureCancelledError):  # other errors have been raised
                raise result
            key, _ = chunk_of.pop(future)
            part, unread, host = result
            _check_read(unread, host)
            yield key, part
            submit()
    except (CommClosedError, FutureCancelledError) as error:
        raise OSError(
            f"The scheduler {client.scheduler.address} is lost ({error}). The finished parts "
            "are kept: run the same command again, with this or another scheduler, to resume."
        ) from error


def _predict_part(
    model_file: str, digest: str, rejection: float | None, folder: str, files: list[str]
) -> tuple[bytes, list[str], str]:
    """Run on a worker: return a part, the files that could not be opened, and the worker's host.

    `folder` is that from which relative names are seen.
    """
    paths = [os.path.normpath(os.path.join(folder, path)) for path in files]
    for path in (model_file, os.path.dirname(paths[0])):
        if not os.path.exists(path):
            raise FileNotFoundError(
                f"The worker on {socket.gethostname()} does not see {path}: workers need the model "
                "and the images under the same names, on a shared file system."
            )
    model = _model(model_file, digest, rejection)
    [found] = predict_files(model, paths, chunk_size=len(paths))
    unread = [path for path, _ in found.skipped if not _can_be_read(path)]
    return pack(files, paths, found), unread, socket.gethostname()


def _can_be_read(path: str) -> bool:
    try:
        read_regular(path)
    except OSError:
        return False
    return True


def _check_read(unread: list[str], host: str) -> None:
    """Fail if a worker could not read a file that can be read here: the fault is the worker's."""
    for path in unread:
        if _can_be_read(path):
            raise FileNotFoundError(
                f"The worker on {host} cannot read {path}, which can be read here: workers need "
                "the images under the same names, on a shared file system. Stop or repair that "
                "worker, then run the same command again to resume."
            )


@lru_cache(maxsize=1)
def _model(path: str, digest: str, rejection: float | None) -> Any:
    if file_digest(Path(path)) != digest:
        raise OSError(
            f"The worker on {socket.gethostname()} has a different model at {path}: workers "
            "must read it from a shared file system."
        )
    model = wbcclf.load_model(path)
    if rejection is not None:
        last_step(model).set_params(rejection=rejection)
    return model
