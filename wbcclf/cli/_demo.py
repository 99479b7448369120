"""`wbcclf demo`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

import wbcclf
from wbcclf.cli._console import out, warn
from wbcclf.cli._evaluate import evaluate
from wbcclf.cli._output import require
from wbcclf.cli._predict import predict
from wbcclf.cli._train import train


def demo(
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", help="Folder to write all results to."),
    ] = Path("demo"),
) -> None:
    """Try every step on synthetic cells.

    Draws cells, trains on them, evaluates, predicts, and says where everything
    is. Needs no data and no internet connection, and takes a minute or two.
    """
    import cv2

    for name, n_samples, seed in (("train", 600, 0), ("test", 200, 1), ("unlabelled", 20, 2)):
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
    train(output / "train", output=model, image_size=64, epochs=6)
    plot: Path | None = output / "confusion_matrix.png"
    if find_spec("matplotlib") is None:
        warn("no confusion matrix is drawn without matplotlib: pip install 'wbcclf[plot]'.")
        plot = None
    evaluate(model, output / "test", json_=output / "evaluation.json", plot=plot)
    predict([model, output / "unlabelled"], output=output / "predictions.csv")
