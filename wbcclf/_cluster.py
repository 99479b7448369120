"""Predictions by the workers of a Dask cluster, part by part, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import io
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

import wbcclf
from wbcclf.classifiers._store import Store
from wbcclf.inspection import predict_files

# Raised whenever the content of a part changes its meaning.
FORMAT = 1
SECONDS_TO_CONNECT = 10


def predict_on_cluster(
    scheduler: str,
    model_file: Path,
    paths: list[str],
    parts_folder: Path,
    *,
    chunk_size: int,
) -> Iterator[Bunch]:
    """Predict the classes of image files as `predict_files` does, on a cluster.

    Parts that are done lie in a folder until the caller removes it; the same call finds them there
    by the content of the model, and the names, sizes and times of the files.

    Parameters
    ----------
    scheduler : str
        Address of a Dask scheduler, like ``tcp://10.0.0.1:8786``.
    model_file : Path
    paths : list of str
        Every worker must see them and `model_file` under the same absolute names.
    parts_folder : Path
        Made if it is not there.
    chunk_size : int
        Files in a part.

    Yields
    ------
    Bunch
        As `predict_files`, for each part in order.

    Raises
    ------
    ImportError
        If distributed is not installed.
    OSError
        If the scheduler cannot be reached or has no workers, or if one of them does not see the
        model or the images.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("--scheduler needs distributed: pip install 'wbcclf[dask]'.") from error
    digest = hashlib.sha256(model_file.read_bytes()).hexdigest()
    classes = wbcclf.load_model(model_file).classes_
    chunks = [paths[start : start + chunk_size] for start in range(0, len(paths), chunk_size)]
    chunk_of = {_key(digest, chunk): chunk for chunk in chunks}
    parts = Store(parts_folder, float("inf"))
    todo = {key: chunk for key, chunk in chunk_of.items() if parts.read(key) is None}
    with ExitStack() as stack:
        if todo:
            try:
                client = Client(scheduler, timeout=SECONDS_TO_CONNECT, set_as_default=False)
            except (OSError, ValueError) as error:
                raise OSError(
                    f"--scheduler {scheduler} cannot be reached ({error}). Start one with `dask "
                    "scheduler`; it prints its address."
                ) from error
            done = _run(stack.enter_context(client), str(model_file.resolve()), digest, todo)
        for key, chunk in chunk_of.items():
            while key not in parts:
                parts.write(*next(done))
            yield _bunch(parts.read(key), chunk, classes)


def _key(model: str, chunk: list[str]) -> str:
    digest = hashlib.sha256(f"{FORMAT} {wbcclf.__version__} {model}".encode())
    for path in chunk:
        stat = os.stat(path)
        digest.update(os.fsencode(path) + f"\0{stat.st_size} {stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:40]


def _run(
    client: Any, model_file: str, digest: str, todo: dict[str, list[str]]
) -> Iterator[tuple[str, bytes]]:
    """Yield the parts as they are done; at most two of each thread of the cluster are under way.

    A worker that dies loses nothing: its parts are given to others. So they depend on files alone,
    and on nothing that was sent to a worker before and cannot be computed again.
    """
    from distributed import as_completed

    try:
        client.wait_for_workers(1, timeout=SECONDS_TO_CONNECT)
    except TimeoutError as error:
        address = client.scheduler.address
        raise OSError(
            f"--scheduler {address} has no workers. Start some with `dask worker {address} "
            "--nthreads 1`."
        ) from error
    # With a copy on every worker, killing one of them loses nothing.
    waiting = iter(todo.items())
    key_of = {}

    def submit(key: str, chunk: list[str]) -> Any:
        # Absolute, since a worker has its own working directory.
        absolute = [os.path.abspath(path) for path in chunk]
        future = client.submit(_predict_part, model_file, digest, absolute, pure=False)
        key_of[future] = key
        return future

    n_at_once = 2 * sum(client.nthreads().values())
    running = as_completed(
        [submit(*item) for item in islice(waiting, n_at_once)],
        loop=client.loop,
        with_results=True,
    )
    for future, part in running:
        yield key_of.pop(future), part
        for item in islice(waiting, 1):
            running.add(submit(*item))


def _predict_part(model_file: str, digest: str, paths: list[str]) -> bytes:
    """Run on a worker: return the probabilities of the readable files, and why others are not."""
    for path in (model_file, os.path.dirname(paths[0])):
        if not os.path.exists(path):
            raise FileNotFoundError(
                f"The worker on {socket.gethostname()} does not see {path}: workers need the model "
                "and the images under the same names, on a shared file system."
            )
    [found] = predict_files(_model(model_file, digest), paths, chunk_size=len(paths))
    place = {path: number for number, path in enumerate(paths)}
    file = io.BytesIO()
    np.savez(
        file,
        read=np.array([place[path] for path in found.paths], dtype=int),
        probabilities=found.probabilities,
        skipped=np.array([place[path] for path, _ in found.skipped], dtype=int),
        reasons=np.array([reason for _, reason in found.skipped], dtype=str),
    )
    return file.getvalue()


@lru_cache(maxsize=1)
def _model(path: str, digest: str) -> Any:
    if hashlib.sha256(Path(path).read_bytes()).hexdigest() != digest:
        raise OSError(
            f"The model {path} is another one on the worker on {socket.gethostname()}: workers "
            "need it on a shared file system."
        )
    return wbcclf.load_model(path)


def _bunch(part: Any, chunk: list[str], classes: np.ndarray) -> Bunch:
    with np.load(io.BytesIO(part)) as arrays:
        return Bunch(
            paths=[chunk[number] for number in arrays["read"]],
            labels=classes[arrays["probabilities"].argmax(axis=1)],
            probabilities=arrays["probabilities"],
            skipped=[
                (chunk[number], str(reason))
                for number, reason in zip(arrays["skipped"], arrays["reasons"], strict=True)
            ],
        )
