"""Where images come from: a folder of class folders, or a CSV file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from sklearn.utils import Bunch

import wbcclf
from wbcclf.cli._console import out
from wbcclf.cli._output import require
from wbcclf.datasets._rows import list_rows
from wbcclf.datasets._tables import GROUP_COLUMNS, Table, assign_groups
from wbcclf.model_selection import find_image_groups

LabelledImages = Annotated[
    Path,
    typer.Argument(
        metavar="IMAGES",
        help="Folder with one folder of images per class (IMAGES/neutrophil/1.jpg), or a CSV file "
        "with a path and a label per image.",
    ),
]
GroupColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of the --groups file, if it is not called group. Without --groups, a "
        "column of IMAGES, which must be a CSV file.",
    ),
]
PathColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        show_default="path, file, filename, image or image_path",
        help="Column of the CSV file with the image files.",
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        show_default="label, class, category, target, cell_type or type",
        help="Column of the CSV file with the classes.",
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        show_default="the CSV file's",
        help="Folder that the paths in the CSV file start from.",
    ),
]
Part = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PART",
        help="Use only rows of IMAGES, a CSV file such as `wbcclf split` writes, with this in the "
        "column part (or split). Its column group, if any, tells which images show the same cell. "
        "Repeat it to use several parts.",
    ),
]

AUTO = "auto"  # of --groups: found in the images


@dataclass(frozen=True)
class Source:
    """Images, as the options of a command describe them: labelled ones, where it needs labels."""

    path: Path
    path_column: str | None = None
    label_column: str | None = None
    root: Path | None = None
    groups: str | None = None
    group_column: str | None = None
    part: list[str] | None = None
    needs_labels: bool = True

    def __post_init__(self) -> None:
        """Fail where there are no images, and on options that do not go together."""
        require(
            self.groups != AUTO or self.group_column is None,
            "--group-column names a column of a file, and --groups auto reads none.",
        )
        require(self.path.exists(), f"IMAGES: {self.path} does not exist.")
        if self.groups not in (None, AUTO):
            named = Path(str(self.groups))
            what = "give a CSV file, a regular expression, or auto"
            require(not named.is_dir(), f"--groups: {named} is a folder; {what}.")
            require(
                named.suffix.lower() != ".csv" or named.exists(),
                f"--groups: {named} does not exist; {what}.",
            )
        require(
            self.path.is_dir() or self._is_table(),
            f"IMAGES: {self.path} is neither a folder nor a CSV file.",
        )
        if self._is_table():
            return
        of_tables = {
            "--path-column": self.path_column,
            "--label-column": self.label_column,
            "--root": self.root,
            "--part": self.part,
        }
        given = [option for option, value in of_tables.items() if value is not None]
        writes = " `wbcclf split` writes one." if self.part else ""
        require(not given, f"{', '.join(given)}: {self.path} is not a CSV file.{writes}")
        require(
            self.group_column is None or self.groups is not None, "--group-column needs --groups."
        )

    def list(self) -> Bunch:
        """Return the images without opening them.

        Returns
        -------
        Bunch
            As :func:`wbcclf.list_image_folder`, and

            missing : list of (path, reason)
                Rows of the CSV file without an image.
            unread : list of (path, reason)
                With --groups auto: images that cannot be read. Each is a group of its own.
        """
        listing = self._list_table() if self._is_table() else self._list_folder()
        listing.unread = []
        if self.groups == AUTO:
            found = find_image_groups(listing.paths, on_error="skip", verbose=1)
            listing.groups, listing.unread = found.groups, found.skipped
            out.print(
                f"--groups auto put {len(listing.paths)} images in {found.n_groups} groups: one "
                "cell, or one field, each."
            )
        return listing

    def load(self, loader: wbcclf.ImageLoader) -> Bunch:
        """Return the images that can be read, cut and stretched as a loader does."""
        size, crop = loader.image_size, loader.crop
        if self._is_table():
            return wbcclf.load_image_csv(
                self.path,
                path_column=self.path_column,
                label_column=self.label_column,
                group_column=self._own_group_column(),
                root=self.root,
                part=self.part,
                image_size=size,
                crop=crop,
                on_error="skip",
                verbose=1,
            )
        return wbcclf.load_image_folder(
            self.path,
            image_size=size,
            crop=crop,
            groups=self._groups(),
            on_error="skip",
            verbose=1,
        )

    def names(self, paths: Iterable[str], table: Path) -> Sequence[str]:
        """Return the images' paths as a table names them: from its folder on."""
        root = self.path
        if self._is_table():
            root = self.path.parent if self.root is None else self.root
        # Both are resolved, since either may be named by way of a link. What is below is not.
        real_root, folder = os.path.realpath(root), os.path.realpath(table.parent)
        files = (os.path.join(real_root, os.path.relpath(path, root)) for path in paths)
        return [Path(os.path.relpath(file, folder)).as_posix() for file in files]

    def _is_table(self) -> bool:
        return self.path.is_file()

    def _own_group_column(self) -> str | None:
        if self.groups is None and self.group_column is None:
            usual = ("group",) if self.part is None else GROUP_COLUMNS
            return Table(self.path).find_column(None, usual, "group")
        return self.group_column if self.groups is None else None

    def _groups(self) -> str | tuple[str, str, str] | None:
        """Return `groups` as the loaders take them."""
        if self.groups == AUTO:
            return None
        if self.groups is None or self.group_column is None:
            return self.groups
        return self.groups, "path", self.group_column

    def _list_folder(self) -> Bunch:
        listing = wbcclf.list_image_folder(self.path, groups=self._groups())
        require(
            listing.target is not None or not self.needs_labels,
            f"{self.path} has no class folders: there are no labels.",
        )
        sets = [] if listing.split is None else sorted(set(listing.split.tolist()))
        require(
            len(sets) < 2,
            f"{self.path} holds several sets of class folders ({', '.join(sets)}), which would be "
            f"mixed: give one of them, like {self.path / sets[-1] if sets else self.path}.",
        )
        listing.missing = []
        return listing

    def _list_table(self) -> Bunch:
        rows = list_rows(
            self.path,
            self.path_column,
            self.label_column,
            self._own_group_column(),
            self.root,
            self.part,
        )
        require(
            self.part is not None or len(rows.parts) < 2,
            f"{self.path} holds several parts ({', '.join(rows.parts)}), which would be mixed: "
            f"choose with --part{' or --part'.join(f' {part}' for part in rows.parts)}.",
        )
        if rows.labels is None and self.needs_labels:
            raise ValueError(
                f"{self.path} has no column label, class or the like: name it with --label-column."
            )
        groups: Sequence[str] | np.ndarray | None = rows.groups
        if self.groups not in (None, AUTO):
            root = self.path.parent if self.root is None else self.root
            below = [Path(os.path.relpath(path, root)).parts for path in rows.paths]
            groups = assign_groups(self._groups(), root, below)
        return Bunch(
            paths=np.array(rows.paths),
            target=None if rows.labels is None else np.array(rows.labels),
            target_names=None if rows.labels is None else sorted(set(rows.labels)),
            groups=None if groups is None else np.array(groups),
            skipped=rows.skipped,
            missing=rows.missing,
        )
