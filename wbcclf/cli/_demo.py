"""`wbcclf demo`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

import wbcclf
from wbcclf.cli._console import out, warn
from wbcclf.cli._evaluate import evaluate
from wbcclf.cli._output import JsonOption, check_outputs, require, save_figures
from wbcclf.cli._predict import predict
from wbcclf.cli._train import train

CELLS = {"train": 600, "test": 200, "unlabelled": 20}


def demo(
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", help="Folder to write all results to."),
    ] = Path("demo"),
    json_: JsonOption = None,
) -> None:
    """Try every step on synthetic cells.

    Draws cells, trains on them, evaluates, predicts, and says where everything
    is. Needs no data and no internet connection, and takes a minute or two.
    """
    import cv2

    check_outputs(json=json_)
    for seed, (name, n_samples) in enumerate(CELLS.items()):
        cells = wbcclf.make_blood_cells(n_samples, image_size=64, random_state=seed)
        for number, (image, label) in enumerate(zip(cells.images, cells.target, strict=True)):
            path = output / name / ("" if name == "unlabelled" else label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            require(
                cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)),
                f"{path} could not be written.",
            )
    out.print(f"Synthetic cells: {output / 'train'}, {output / 'test'}, {output / 'unlabelled'}")
    model = output / "model.wbcclf"
    figures = {step: output / f"{step}.json" for step in ("training", "evaluation", "predictions")}
    train(output / "train", output=model, json_=figures["training"], image_size=64, epochs=6)
    plot: Path | None = output / "confusion_matrix.png"
    if find_spec("matplotlib") is None:
        warn("no confusion matrix is drawn without matplotlib: pip install 'wbcclf[plot]'.")
        plot = None
    evaluate(model, output / "test", json_=figures["evaluation"], plot=plot)
    predict(
        [model, output / "unlabelled"],
        output=output / "predictions.csv",
        json_=figures["predictions"],
    )
    save_figures(
        json_, lambda: {step: json.loads(path.read_text()) for step, path in figures.items()}
    )
