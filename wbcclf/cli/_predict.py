"""`wbcclf predict`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from sklearn.utils import Bunch

import wbcclf
from wbcclf._cluster import predict_on_cluster
from wbcclf._parts import file_digest, parts_folder, remove_parts
from wbcclf.cli import _defaults
from wbcclf.cli._console import out
from wbcclf.cli._output import (
    JsonOption,
    check_not_read,
    check_outputs,
    require,
    save,
    save_figures,
    warn_of_formulas,
    write_csv,
)
from wbcclf.cli._shared import (
    CHUNK,
    DEFAULT_MODEL,
    OnError,
    OnErrorOption,
    Reject,
    about_model,
    by_class,
    by_reason,
    collect,
    counts_text,
    is_packaged,
    read_model,
    set_rejection,
    split_model,
)
from wbcclf.inspection import predict_files


def predict(
    model_and_images: Annotated[
        list[Path],
        typer.Argument(
            metavar="[MODEL] IMAGES",
            help="Model file written by `wbcclf train`; without one, the model that comes with "
            f"wbcclf ({DEFAULT_MODEL}). Then a folder with images at any depth, or image files.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="CSV file to write.")
    ] = Path("predictions.csv"),
    json_: JsonOption = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Predict on the workers of this Dask scheduler (tcp://HOST:8786). They must see "
            "MODEL and IMAGES under the same names. Finished parts are kept in OUTPUT.parts until "
            "the end; after a crash, the same command resumes from them.",
        ),
    ] = None,
    reject: Reject = None,
    on_error: OnErrorOption = OnError.warn,
) -> None:
    """Predict the classes of images and write them to a CSV file.

    Columns: file, label, error, familiarity, and one probability per class. A
    file that was left out has no label; the column error says why. It also
    marks pictures in which a model of train --crop found no white cell: their
    label is that of their central square. Many pictures of platelets are marked,
    since a platelet is no white cell.

    The familiarity is the share of images from the model's laboratory that
    look less like its training images. Near 0, expect a wrong label. Models
    of older versions leave the column empty.

    Names are written as they are. A spreadsheet may take one that begins with
    =, +, - or @ for a formula: import the column as text.

    Example: wbcclf predict unlabelled/

    Example: wbcclf predict model.wbcclf unlabelled/ -o predictions.csv

    Example: wbcclf predict model.wbcclf a.jpg b.jpg -o predictions.csv

    Example: wbcclf predict model.wbcclf unlabelled/ --reject 0.05
    """
    check_outputs(output=output, json=json_)
    model_file, images = split_model(model_and_images)
    model = read_model(model_file, images)
    rejection = set_rejection(model, reject)
    listing = list_images(images)
    paths = listing.paths
    for result in filter(None, (output, json_)):
        check_not_read(result, [model_file, *paths])
    parts = parts_folder(output, file_digest(model_file))
    if scheduler is None:
        chunks = predict_files(model, paths, chunk_size=CHUNK)
    else:
        chunks = predict_on_cluster(
            scheduler, model_file, paths, parts, chunk_size=CHUNK, rejection=reject
        )
    all_in = f"The column error of {output} names all."
    found, broken = collect(chunks, listing, on_error, all_in, rejection)
    classes = model.classes_.tolist()
    uncut = dict.fromkeys(found.uncut or [], "no white cell found; the central square was used")
    looks = [""] * len(found.paths)
    if found.familiarity is not None:
        looks = [f"{share:.3f}" for share in found.familiarity]
    columns = (found.paths, found.labels, looks, found.probabilities)
    row_of = {
        path: [label, uncut.get(path, ""), look, *(f"{share:.6f}" for share in shares)]
        for path, label, look, shares in zip(*columns, strict=True)
    }
    nothing = [""] * (1 + len(classes))
    row_of |= {path: ["", reason, *nothing] for path, reason in broken + listing.skipped}
    files = paths + [path for path, _ in listing.skipped]
    names = [name_of(path, listing.root) for path in files]
    lines = [["file", "label", "error", "familiarity", *classes]]
    lines += [[name, *row_of[path]] for name, path in zip(names, files, strict=True)]
    save(output, lambda path: write_csv(path, lines))
    if scheduler is not None:
        remove_parts(parts)
    warn_of_formulas(output, [*names, *map(str, classes)])
    if is_packaged(model_file):
        out.print(f"Model: {DEFAULT_MODEL}. Classes: {', '.join(classes)}. {_defaults.LIMITS}")
    if found.familiarity is not None:
        out.print(
            f"Mean familiarity: {found.familiarity.mean():.2f} (0.50 for the laboratory of the "
            "training)"
        )
    counts = Counter(found.labels.tolist())
    out.print(f"Images predicted: {len(found.paths)} ({counts_text(counts)})")
    out.print(f"Predictions: {output}")
    save_figures(
        json_,
        lambda: (
            about_model(model_file)
            | {
                "n_images": len(found.paths),
                "classes": by_class(found.labels),
                "familiarity": None if found.familiarity is None else found.familiarity.mean(),
                "unfamiliar": found.is_unfamiliar,
                "rejection": rejection,
                "files": each_file(found, classes),
                "no_cell_found": found.uncut,
                "left_out": by_reason(broken + listing.skipped),
            }
        ),
    )


def each_file(found: Bunch, classes: list) -> Iterator[dict[str, Any]]:
    """Yield what is predicted of every image, for JSON."""
    looks = [None] * len(found.paths) if found.familiarity is None else found.familiarity
    columns = (found.paths, found.labels, looks, found.probabilities)
    for path, label, look, shares in zip(*columns, strict=True):
        yield {
            "file": path,
            "label": label,
            "familiarity": look,
            "probabilities": dict(zip(classes, shares, strict=True)),
        }


def list_images(given: list[Path]) -> Bunch:
    """Return the files of folders and single files.

    Returns
    -------
    Bunch
        With the attributes

        paths : list of str
        skipped, missing : list of (path, reason)
            What of the folders is no image; missing is empty.
        root : Path or None
            The folder, if one and nothing else was given.
    """
    paths, skipped = [], []
    for path in given:
        if path.is_dir():
            listing = wbcclf.list_image_folder(path, labelled=False)
            paths += listing.paths.tolist()
            skipped += listing.skipped
        else:
            require(path.exists(), f"{path} does not exist.")
            paths.append(str(path))
    one_folder = len(given) == 1 and given[0].is_dir()
    return Bunch(paths=paths, skipped=skipped, missing=[], root=given[0] if one_folder else None)


def name_of(path: str, root: Path | None) -> str:
    """Return how a file is called in a table: from the folder on that was given, if one was."""
    return (Path(path).relative_to(root) if root else Path(path)).as_posix()
