"""Predictions by the workers of a Dask cluster, part by part, so that a killed run resumes."""

from __future__ import annotations

import io
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

import wbcclf
from wbcclf._files import read_regular
from wbcclf._parts import file_digest, part_key
from wbcclf._store import Store
from wbcclf.inspection import predict_files
from wbcclf.inspection._files import last_step

# Raised whenever the content of a part changes its meaning.
FORMAT = 3
SECONDS_TO_CONNECT = 10
ADDRESS = re.compile(r"((tcp|tls|ucx|ws|wss)://)?[^/\s]+:\d+")


def predict_on_cluster(
    scheduler: str,
    model_file: Path,
    paths: list[str],
    folder: Path,
    *,
    chunk_size: int,
    rejection: float | None = None,
) -> Iterator[Bunch]:
    """Predict the classes of image files as `predict_files` does, on a cluster.

    Parts that are done lie in a folder until the caller removes it; the same call finds them there
    by the content of the model, and the absolute names, sizes and times of the files.

    Parameters
    ----------
    scheduler : str
        Address of a Dask scheduler, like ``tcp://10.0.0.1:8786``.
    model_file : Path
    paths : list of str
        Every worker must see them and `model_file` under the same absolute names.
    folder : Path
        For the parts; made if it is not there.
    chunk_size : int
        Files in a part.
    rejection : float or None
        For the model instead of its own; None leaves that.

    Yields
    ------
    Bunch
        As `predict_files`, for each part in order.

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
    digest = file_digest(model_file)
    chunks = [paths[start : start + chunk_size] for start in range(0, len(paths), chunk_size)]
    what = f"prediction {FORMAT} {digest} {rejection}"
    chunk_of = {part_key(what, chunk): chunk for chunk in chunks}
    parts = Store(folder, float("inf"))
    with ExitStack() as stack:
        client = None
        done: Iterator[tuple[str, bytes]] = iter(())
        for key, chunk in chunk_of.items():
            while (part := parts.read(key)) is None:
                found = next(done, None)
                if found is not None:
                    parts.write(*found)
                    continue
                # The first that is missing, or one that another run has removed.
                if client is None:
                    try:
                        client = Client(scheduler, timeout=SECONDS_TO_CONNECT, set_as_default=False)
                    except (OSError, ValueError) as error:
                        raise OSError(
                            f"--scheduler {scheduler} cannot be reached ({error}). Start one with "
                            "`dask scheduler`; it prints its address."
                        ) from error
                    stack.enter_context(client)
                todo = {name: paths for name, paths in chunk_of.items() if name not in parts}
                done = _run(client, (str(model_file.resolve()), digest, rejection), todo)
            yield _bunch(part, chunk)


def _run(
    client: Any, model: tuple[str, str, float | None], todo: dict[str, list[str]]
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
    waiting = list(reversed(todo.items()))
    key_of: dict[Future, str] = {}
    running = as_completed([], loop=client.loop, with_results=True)

    def submit() -> None:
        # Counted anew each time, since workers come and go.
        n_at_once = 2 * sum(client.nthreads().values())
        while waiting and (len(key_of) < n_at_once or not key_of):
            key, chunk = waiting.pop()
            # Absolute, since a worker has its own working directory.
            absolute = [os.path.abspath(path) for path in chunk]
            future = client.submit(_predict_part, *model, absolute, pure=False)
            key_of[future] = key
            running.add(future)

    try:
        submit()
        for future, part in running:
            if isinstance(part, FutureCancelledError):  # other errors have been raised
                raise part
            key = key_of.pop(future)
            _check_read(part, todo[key])
            yield key, part
            submit()
    except (CommClosedError, FutureCancelledError) as error:
        raise OSError(
            f"The scheduler {client.scheduler.address} is lost ({error}). The finished parts "
            "are kept: run the same command again, with this or another scheduler, to resume."
        ) from error


def _predict_part(model_file: str, digest: str, rejection: float | None, paths: list[str]) -> bytes:
    """Run on a worker: return what is predicted of the readable files, and why others are not."""
    for path in (model_file, os.path.dirname(paths[0])):
        if not os.path.exists(path):
            raise FileNotFoundError(
                f"The worker on {socket.gethostname()} does not see {path}: workers need the model "
                "and the images under the same names, on a shared file system."
            )
    model = _model(model_file, digest, rejection)
    [found] = predict_files(model, paths, chunk_size=len(paths))
    place = {path: number for number, path in enumerate(paths)}
    file = io.BytesIO()
    np.savez(
        file,
        read=np.array([place[path] for path in found.paths], dtype=int),
        labels=found.labels,
        probabilities=found.probabilities,
        skipped=np.array([place[path] for path, _ in found.skipped], dtype=int),
        reasons=np.array([reason for _, reason in found.skipped], dtype=str),
        unread=np.array([not _can_be_read(path) for path, _ in found.skipped], dtype=bool),
        host=socket.gethostname(),
        **{
            name: found[name]
            for name in ("familiarity", "trained_on", "found")
            if found[name] is not None
        },
    )
    return file.getvalue()


def _can_be_read(path: str) -> bool:
    try:
        read_regular(path)
    except OSError:
        return False
    return True


def _check_read(part: bytes, chunk: list[str]) -> None:
    """Fail if a worker could not read a file that can be read here: the fault is the worker's."""
    with np.load(io.BytesIO(part)) as arrays:
        for number in arrays["skipped"][arrays["unread"]]:
            if _can_be_read(chunk[number]):
                raise FileNotFoundError(
                    f"The worker on {arrays['host']} cannot read {chunk[number]}, which can be "
                    "read here: workers need the images under the same names, on a shared file "
                    "system. Stop or repair that worker, then run the same command again to resume."
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


def _bunch(part: Any, chunk: list[str]) -> Bunch:
    with np.load(io.BytesIO(part)) as arrays:
        return Bunch(
            paths=[chunk[number] for number in arrays["read"]],
            labels=arrays["labels"],
            probabilities=arrays["probabilities"],
            familiarity=arrays.get("familiarity"),
            trained_on=arrays.get("trained_on"),
            found=arrays.get("found"),
            skipped=[
                (chunk[number], str(reason))
                for number, reason in zip(arrays["skipped"], arrays["reasons"], strict=True)
            ],
        )
