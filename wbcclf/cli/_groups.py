"""`wbcclf groups`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from sklearn.utils import Bunch

from wbcclf._files import some
from wbcclf.cli._console import out, print_table, warn
from wbcclf.cli._output import (
    JsonOption,
    check_not_read,
    check_outputs,
    save,
    save_figures,
    warn_of_formulas,
    write_csv,
)
from wbcclf.cli._shared import (
    OnError,
    OnErrorOption,
    by_class,
    by_reason,
    check_broken,
    named,
    report_left_out,
)
from wbcclf.cli._source import LabelColumn, Part, PathColumn, Root, Source
from wbcclf.model_selection import find_image_groups

N_LISTED = 5  # sizes, conflicts and links that are printed


def groups(
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES",
            help="Folder of images, with class folders or without, or a CSV file with a path per "
            "image.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="CSV file to write.")
    ] = Path("groups.csv"),
    links: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the pairs of images that make the groups to this CSV file, too: both "
            "paths, how many points of the two agree, and the certainty. No points: the files are "
            "byte for byte the same.",
        ),
    ] = None,
    json_: JsonOption = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    root: Root = None,
    part: Part = None,
    on_error: OnErrorOption = OnError.warn,
) -> None:
    """Find out which images show the same cell, and write it to a CSV file.

    About half a minute for a thousand images. Every --groups FILE takes the
    result, with the images where they are; so do load_image_folder and
    load_image_csv.

    Columns: path (from the CSV file's folder on), group, and certainty: how
    surely the image belongs to its group. Links of this certainty or more join
    it to more than half of the group. It is empty for an image that is alone.
    Look at those with a low one first.

    The classes of the images are not used to find groups. A group with images
    of several classes shows a cell with a wrong label, or a field with several
    cells. An image that cannot be read is a group of its own.

    Example: wbcclf groups cells/train -o groups.csv --links links.csv

    Example: wbcclf train cells/train --early-stopping --groups groups.csv
    """
    check_outputs(output=output, links=links, json=json_)
    source = Source(images, path_column, label_column, root, part=part, needs_labels=False)
    listing = source.list()
    for path in filter(None, (output, links, json_)):
        check_not_read(path, [images, *listing.paths])
    found = find_image_groups(listing.paths, on_error="skip", verbose=1)
    report_broken(listing, found.skipped, on_error)
    names = source.names(listing.paths, output)
    save(
        output, lambda path: write_csv(path, [["path", "group", "certainty"], *rows(names, found)])
    )
    warn_of_formulas(output, names)
    print_groups(listing, found)
    out.print(f"Groups: {output}")
    if links is not None:
        linked = links_of(source.names(listing.paths, links), found, range(len(found.links)))
        header = ["path", "other_path", "agreeing_points", "certainty"]
        save(links, lambda path: write_csv(path, [header, *linked]))
        out.print(f"Links: {links}")
    save_figures(json_, lambda: figures_of(listing, found))


def report_broken(listing: Bunch, broken: list, on_error: OnError) -> None:
    """Say what cannot be read, and what of the folder or table is left out."""
    n_images = len(listing.paths) + len(listing.missing)
    check_broken(listing.missing + broken, n_images, on_error)
    report_left_out(listing.missing, listing.skipped, n_images, on_error, "")
    if broken and on_error is not OnError.skip:
        warn(
            f"{len(broken)} of {n_images} images cannot be read. Each is a group of its own: "
            f"{named(broken)}."
        )


def rows(names: Sequence[str], found: Bunch) -> list[list]:
    """Return name, group and certainty of every image."""
    sure = ["" if np.isnan(share) else f"{share:.6f}" for share in found.image_certainty]
    return [list(row) for row in zip(names, found.groups.tolist(), sure, strict=True)]


def links_of(names: Sequence[str], found: Bunch, places: range | np.ndarray) -> list[list]:
    """Return both names, agreeing points and certainty of some links."""
    return [
        [
            *(names[row] for row in found.links[place]),
            found.agreeing[place] if found.agreeing[place] >= 0 else "",
            f"{found.certainty[place]:.6f}",
        ]
        for place in places
    ]


def figures_of(listing: Bunch, found: Bunch) -> dict[str, Any]:
    """Return what the JSON file holds."""
    paths = listing.paths.tolist()
    columns = zip(paths, found.groups, found.image_certainty, strict=True)
    return {
        "n_images": len(paths),
        "n_groups": found.n_groups,
        "n_alone": np.count_nonzero(np.bincount(found.groups) == 1),
        "several_classes": None if listing.target is None else several(listing, found.groups),
        "files": (
            {"file": path, "group": group, "certainty": certainty}
            for path, group, certainty in columns
        ),
        "links": each_link(paths, found),
        "unread": by_reason(found.skipped),
        "left_out": by_reason(listing.missing + listing.skipped),
    }


def each_link(paths: list[str], found: Bunch) -> Iterator[dict[str, Any]]:
    """Yield the pairs that make the groups, for JSON; no points for files that are the same."""
    is_needed = np.isin(np.arange(len(found.links)), weakest(found))
    columns = (found.links.tolist(), found.agreeing.tolist(), found.certainty, is_needed)
    for (row, other), n_points, certainty, needed in zip(*columns, strict=True):
        yield {
            "file": paths[row],
            "other_file": paths[other],
            "agreeing_points": n_points if n_points >= 0 else None,
            "certainty": certainty,
            "is_needed": needed,
        }


def print_groups(listing: Bunch, found: Bunch) -> None:
    sizes = np.bincount(found.groups)
    out.print(
        f"{len(found.groups)} images in {found.n_groups} groups: one cell, or one field, each. "
        f"{np.count_nonzero(sizes == 1)} images are alone."
    )
    if sizes.max() == 1:
        return
    largest = np.sort(sizes[sizes > 1])[::-1]
    out.print(f"Largest groups, in images: {some([*map(str, largest)], N_LISTED)}")
    if listing.target is not None:
        print_conflicts(listing, found.groups)
    places = weakest(found)[:N_LISTED]
    out.print("Least certain of the links that groups need:")
    print_table(
        ["image", "image", "points", "certainty"], links_of(listing.paths.tolist(), found, places)
    )


def print_conflicts(listing: Bunch, groups: np.ndarray) -> None:
    """Print the groups whose images have several classes."""
    conflicts = several(listing, groups)
    out.print(f"Groups with images of several classes: {len(conflicts)}")
    if not conflicts:
        return
    lines = [
        [
            each["group"],
            ", ".join(f"{row['label']} {row['n_images']}" for row in each["classes"]),
            each["look_at"],
        ]
        for each in conflicts[:N_LISTED]
    ]
    print_table(["group", "images", f"look at (of {len(conflicts)} groups)"], lines)


def several(listing: Bunch, groups: np.ndarray) -> list[dict[str, Any]]:
    """Return the groups whose images have several classes, and which image to look at first."""
    pairs = np.unique(np.column_stack([groups, classes_of(listing)]), axis=0)
    found = np.flatnonzero(np.bincount(pairs[:, 0]) > 1)
    by_group = np.argsort(groups, kind="stable")
    starts, stops = (np.searchsorted(groups, found, side, by_group) for side in ("left", "right"))
    conflicts = []
    for group, start, stop in zip(found.tolist(), starts, stops, strict=True):
        members = by_group[start:stop]
        labels = listing.target[members]
        classes = by_class(labels)
        # The first image of the rarest class is the most likely to have a wrong label.
        rarest = min(classes, key=lambda row: row["n_images"])["label"]
        example = listing.paths[members[labels == rarest][0]]
        conflicts.append({"group": group, "classes": classes, "look_at": example})
    return conflicts


def classes_of(listing: Bunch) -> np.ndarray:
    return np.searchsorted(listing.target_names, listing.target)


def weakest(found: Bunch) -> np.ndarray:
    """Return the links without which some group would fall apart, the least certain first.

    They are a spanning tree of every group, of its surest links: a weak link beside sure ones
    matters to no group.
    """
    points = np.where(found.agreeing < 0, np.iinfo(np.intp).max, found.agreeing)
    order = np.lexsort((points, found.certainty))[::-1]  # the surest first
    rank = np.empty(len(order))
    rank[order] = 1 + np.arange(len(order))
    n_images = len(found.groups)
    graph = coo_array((rank, found.links.T), shape=(n_images, n_images))
    needed = minimum_spanning_tree(graph.tocsr()).data.astype(np.intp) - 1
    return order[np.sort(needed)[::-1]]
