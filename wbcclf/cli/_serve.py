"""`wbcclf serve`."""

from __future__ import annotations

import socket
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

import wbcclf
from wbcclf.classifiers.familiarity._description import STRANGE
from wbcclf.cli import _defaults
from wbcclf.cli._classes import match_classes
from wbcclf.cli._console import out, warn
from wbcclf.cli._count import NotWhite
from wbcclf.cli._output import JsonOption, check_outputs, require, save_figures
from wbcclf.cli._shared import (
    DEFAULT_MODEL,
    ModelFile,
    Reject,
    about_model,
    is_packaged,
    named,
    read_model,
    set_rejection,
)
from wbcclf.cli._source import Source

NEEDED = ("starlette", "uvicorn", "python_multipart")
# What stands for all addresses of a machine, and the one that a browser on it opens.
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
LIMITS = (
    "What the model is worth on your pictures is not known until it is measured there: wbcclf "
    "evaluate MODEL DIR, on labelled cells of your own. For research, not for diagnosis."
)


def serve(
    model_file: ModelFile = Path(DEFAULT_MODEL),
    json_: JsonOption = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where to listen. 127.0.0.1: only this machine reaches the server. With any other "
            "address, everyone in the network does: there is no password.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="0: any port that is free.")
    ] = 8000,
    corrections: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Save the pictures and the cells of fields that you correct in this folder, in a "
            "folder for each class. `wbcclf train` and `wbcclf adapt` take it.",
        ),
    ] = None,
    sets: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGES",
            help="Labelled pictures of your laboratory that the model was not trained on: a folder "
            "with one folder of images per class, or a CSV file. From them the answers get sets of "
            "classes that hold the true one for 90% of new cells of each class, on average. "
            "9 cells of each class are the least.",
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|PATTERN|auto",
            help="Which images of --sets show the same cell: a CSV file with columns path and "
            "group (or cell_id), or a regular expression on the path. auto finds out from the "
            "images.",
        ),
    ] = None,
    reject: Reject = None,
    not_white: NotWhite = None,
) -> None:
    """Classify pictures on a page in the browser, or by an HTTP API.

    The page takes pictures of cells, and whole fields. Pictures do not leave
    this machine. Nothing is written but what you correct (--corrections).
    Ctrl-C stops the server. docs/serving.md describes the API and its limits.

    The JSON file is written when the server listens: scripts wait for it. It
    holds the address.

    Example: wbcclf serve

    Example: wbcclf serve model.wbcclf --corrections corrected/ --reject 0.05

    Example: wbcclf serve --sets our-cells/ --groups auto --port 0 --json s.json
    """
    require(
        all(find_spec(name) for name in NEEDED),
        'wbcclf serve needs starlette, uvicorn and python-multipart: pip install "wbcclf[serve]".',
    )
    from wbcclf.serving._app import Api, make_app
    from wbcclf.serving._corrections import Corrections
    from wbcclf.serving._guard import is_loopback
    from wbcclf.serving._limits import Limits
    from wbcclf.serving._model import ServedModel
    from wbcclf.serving._server import listen, make_server
    from wbcclf.serving._worker import Worker

    check_outputs(json=json_)
    require(groups is None or sets is not None, "--groups needs --sets.")
    with listen(host, port) as listener:  # before the model is loaded, which takes seconds
        model = read_model(model_file, [])
        rejection = set_rejection(model, reject)
        limits = Limits()
        apart = not_white or (_defaults.NOT_WHITE if is_packaged(model_file) else [])
        served = ServedModel(model, limits.pixels, limits.cells, apart)
        classes = [str(label) for label in served.classes]
        saved = None if corrections is None else Corrections(corrections, classes)
        if sets is not None:
            fit_sets(served, Source(sets, groups=groups))
        about = about_model(model_file) | {
            "version": wbcclf.__version__,
            "classes": classes,
            "not_white": apart,
            "worth": _defaults.LIMITS if is_packaged(model_file) else LIMITS,
            "strange": STRANGE,
            "rejection": rejection,
            "sets": about_sets(served),
            "corrections": None if saved is None else saved.names,
            "explains": served.explains,
            "limits": asdict(limits),
        }
        worker = Worker(served)
        here, bound_port = listener.getsockname()[:2]
        shown = LOOPBACK.get(here) or (f"[{host}]" if ":" in host else host)
        address = f"http://{shown}:{bound_port}"
        if not is_loopback(host):
            warn(
                f"--host {host}: everyone in the network can use the server, since there is no "
                "password, and read what is sent, since nothing is encrypted. Only use it in a "
                "network that you trust."
            )
        out.print(f"Model: {about['model']}. {about['worth']}")
        if saved is not None:
            out.print(f"Corrections: {corrections}")
        out.print(f"Address: {address} (Ctrl-C stops the server)")
        if here in LOOPBACK:
            out.print(
                f"From other machines: http://{socket.gethostname()}:{bound_port}, or with an "
                "address of this machine in place of its name"
            )
        save_figures(json_, lambda: {"address": address} | about)
        try:
            make_server(make_app(Api(worker, saved, limits, about), host), limits).run([listener])
        finally:
            worker.close()


def fit_sets(served: Any, source: Source) -> None:
    """Fit the prediction sets of a model on labelled pictures."""
    listing = source.list()
    known = [str(label) for label in served.classes]
    class_of = match_classes(listing.target_names, known, {})
    unknown = sorted({*class_of.values()} - {*known})
    require(
        not unknown,
        f"--sets: {source.path} holds the classes {', '.join(unknown)}, but the model knows "
        f"{', '.join(known)}. Leave them out.",
    )
    cells = source.load(served.loader)
    left_out = set(listing.skipped)
    broken = [item for item in cells.skipped if item not in left_out]
    require(not broken, f"--sets: {len(broken)} images cannot be read: {named(broken)}.")
    groups = None
    if listing.groups is not None:
        group_of = dict(zip(listing.paths.tolist(), listing.groups, strict=True))
        groups = [group_of[path] for path in cells.paths.tolist()]
    target = served.classifier.classes_[[known.index(class_of[name]) for name in cells.target]]
    served.fit_sets(cells.images, target, groups)
    out.print(f"Sets: from {int(served.sets.n_cells_.sum())} cells of {source.path}")


def about_sets(served: Any) -> dict[str, Any] | None:
    if served.sets is None:
        return None
    cells = dict(zip(map(str, served.classes), served.sets.n_cells_.tolist(), strict=True))
    return {"confidence_level": served.sets.confidence_level, "cells": cells}
