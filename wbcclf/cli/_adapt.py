"""`wbcclf adapt`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from imblearn.pipeline import Pipeline

import wbcclf
from wbcclf._resampled import row_digests
from wbcclf.classifiers.familiarity._description import FEWEST
from wbcclf.cli._classes import MapOption, match_classes, parse_map
from wbcclf.cli._console import out
from wbcclf.cli._output import (
    JsonOption,
    check_not_read,
    check_outputs,
    require,
    save,
    save_figures,
)
from wbcclf.cli._shared import (
    ModelFile,
    OnError,
    OnErrorOption,
    about_model,
    by_class,
    by_reason,
    check_broken,
    counts_text,
    read_model,
    report_left_out,
)
from wbcclf.cli._source import LabelColumn, Part, PathColumn, Root, Source
from wbcclf.inspection._files import model_parts
from wbcclf.persistence import check_file_name


def adapt(
    model_file: ModelFile,
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES",
            help="Pictures of the new laboratory: a folder with one folder of images per class, a "
            "CSV file with a path and a label per image, or a folder of images without labels.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Model file to write.")
    ],
    json_: JsonOption = None,
    map_: MapOption = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    root: Root = None,
    part: Part = None,
    on_error: OnErrorOption = OnError.stop,
) -> None:
    """Make a model fit another laboratory, and write it to a new file.

    Ten labelled cells of each class are a good start. The new model is compared
    with the old one on cells that it was not adapted to, by cross-validation.

    Without labels only a network with BatchNorm can be adapted. Give images of
    all classes, fifty or more. Whether the model is better then is not known.
    It may be worse; do not do it with wbcclf:blood-cells.

    From fewer than 50 images the new model cannot tell how familiar others are.
    The new model cannot be used with --reject: for that, train one with
    --early-stopping.

    If the new model's macro recall is not higher, the new file holds the old
    model, and a warning says so.

    Example: wbcclf adapt model.wbcclf our-cells/ -o ours.wbcclf

    Example: wbcclf adapt model.wbcclf our-cells/ -o ours.wbcclf --map SNE=neutrophil
    """
    check_outputs(output=output, json=json_)
    check_file_name(output)
    renamed = parse_map(map_ or [])
    model = read_model(model_file, [images])
    source = Source(images, path_column, label_column, root, part=part, needs_labels=False)
    listing = source.list()
    for result in filter(None, (output, json_)):
        check_not_read(result, [model_file, images, *listing.paths])
    known = [str(label) for label in model.classes_]  # names of folders are text
    if listing.target is None:
        require(not renamed, f"--map: {images} has no labels.")
    else:
        class_of = match_classes(listing.target_names, known, renamed)
        unknown = sorted({*class_of.values()} - {*known})
        require(
            not unknown,
            f"{images} holds the classes {', '.join(unknown)}, but the model knows "
            f"{', '.join(known)}. Map them with --map NAME=CLASS, leave them out, or train a new "
            "model on images of all classes with `wbcclf train`.",
        )
        require_classes(images, {*class_of.values()})
    loader, transformers, classifier = model_parts(model)
    cells = source.load(loader)
    left_out = set(listing.skipped)
    broken = [item for item in cells.skipped if item not in left_out]
    n_images = len(listing.paths) + len(listing.missing)
    check_broken(broken, n_images, on_error)
    report_left_out(broken, listing.skipped, n_images, on_error, "")
    X, y = cells.images, None
    for step in transformers:
        X = step.transform(X)
    require(
        len(np.unique(row_digests(X))) > 1,
        f"{images} holds fewer than two different images that can be read: give more.",
    )
    if cells.target is None:
        out.print(f"{len(X)} images without labels")
    else:
        y = classifier.classes_[[known.index(class_of[name]) for name in cells.target]]
        counts = Counter(y.tolist())
        require_classes(images, {*map(str, counts)})
        out.print(f"{len(X)} images of {len(counts)} classes: {counts_text(counts)}")
    adapted = wbcclf.adapt(classifier, X, y, verbose=1)
    if adapted is not classifier:  # else it has warned, with the figures
        print_figures(adapted)
        if adapted._description is None:
            out.print(
                "The new model cannot tell how familiar images are, and does not warn of those of "
                f"another laboratory. For that, adapt it to {FEWEST} or more different images "
                f"(here {adapted.adaptation_.n_cells})."
            )
    figures = {
        "n_images": len(X),
        "classes": None if y is None else by_class(y),
        "is_adapted": adapted is not classifier,
        "adaptation": getattr(adapted, "adaptation_", None),
        "can_tell_familiarity": adapted._description is not None,
        "left_out": by_reason(broken + listing.skipped),
    }
    if classifier is not model:
        *before, (name, _) = model.steps
        adapted = Pipeline([*before, (name, adapted)])
    save(output, lambda path: wbcclf.save_model(adapted, path))
    out.print(f"Model: {output}")
    save_figures(json_, lambda: about_model(output) | figures)


def require_classes(images: Path, found: set[str]) -> None:
    require(
        len(found) > 1,
        f"{images} holds images of one class only, {', '.join(found)}. Give images of two or "
        "more classes that the model knows.",
    )


def print_figures(adapted: wbcclf.CNNClassifier) -> None:
    adaptation = adapted.adaptation_
    if "before" not in adaptation:
        out.print(
            f"Adapted to {adaptation.n_cells} images without labels, in which the old model finds "
            f"{adaptation.n_classes_found:.1f} of its {len(adapted.classes_)} classes (rare ones "
            "count less)"
        )
        return
    for when in ("before", "after"):
        low, high = adaptation[f"{when}_interval"]
        out.print(
            f"Macro recall {when}: {adaptation[when]:.3f} ({low:.3f} to {high:.3f}), "
            f"cross-validated, {adaptation.n_cells} cells"
        )
