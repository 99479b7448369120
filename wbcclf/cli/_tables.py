"""Tables of predictions as CSV, JSON lines and Parquet, of any number of rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from wbcclf._files import plain, replacing
from wbcclf.cli._output import require, write_csv

COLUMNS = ["file", "label", "error", "familiarity"]
ROWS_TOGETHER = 16_384  # in a row group of Parquet


class Format(StrEnum):
    """How a table is written."""

    csv = "csv"
    parquet = "parquet"
    jsonl = "jsonl"


class Row(NamedTuple):
    """What is known of a file; None is unknown."""

    file: str
    label: Any
    error: str | None
    familiarity: float | None
    probabilities: list[float] | None


def format_of(output: Path, asked: Format | None, classes: list) -> Format:
    """Return the format that is asked for, or that of the file's suffix; CSV for any other suffix.

    Fails if the two contradict each other, or if the format cannot be written here.
    """
    suffix = output.suffix.lower().removeprefix(".")
    by_name = Format(suffix) if suffix in Format.__members__ else None
    require(
        asked is None or by_name is None or by_name == asked,
        f"--format {asked}, but {output} ends in .{suffix}. Leave out --format, or name the file "
        f"{output.with_suffix(f'.{asked}').name}.",
    )
    chosen = asked or by_name or Format.csv
    if chosen is Format.parquet:
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ImportError(
                '--format parquet needs pyarrow: pip install "wbcclf[parquet]".'
            ) from error
        taken = sorted({*COLUMNS} & {*map(str, classes)})
        require(
            not taken,
            f"A class of the model is called {', '.join(taken)}, as is another column of the table."
            " Use --format jsonl, which keeps them apart.",
        )
    return chosen


def write_table(
    path: Path, chosen: Format, rows: Iterator[Row], classes: list, folder: Path | None
) -> None:
    """Write a table with one row for each file; `folder` is as in `replacing`."""
    if chosen is Format.csv:
        write_csv(path, _csv_lines(rows, classes), folder)
        return
    with replacing(path, folder) as temporary:
        if chosen is Format.jsonl:
            _write_jsonl(temporary, rows, classes)
        else:
            _write_parquet(temporary, rows, classes)


def _csv_lines(rows: Iterable[Row], classes: list) -> Iterator[list]:
    yield [*COLUMNS, *classes]
    nothing = [""] * len(classes)
    for row in rows:
        look = "" if row.familiarity is None else f"{row.familiarity:.3f}"
        shares = [f"{share:.6f}" for share in row.probabilities or ()] or nothing
        yield [row.file, "" if row.label is None else row.label, row.error or "", look, *shares]


def _as_utf8(name: str) -> str:
    """Return a file name as text that every reader takes, with other bytes than UTF-8 escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _write_jsonl(path: Path, rows: Iterable[Row], classes: list) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            shares = row.probabilities and dict(zip(classes, row.probabilities, strict=True))
            line = plain(row._asdict() | {"file": _as_utf8(row.file), "probabilities": shares})
            file.write(json.dumps(line) + "\n")


def _write_parquet(path: Path, rows: Iterator[Row], classes: list) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = (pa.string(), pa.array(classes).type, pa.string(), pa.float32())
    names = [*COLUMNS, *map(str, classes)]
    schema = pa.schema(list(zip(names, [*types, *[pa.float32()] * len(classes)], strict=True)))
    with pq.ParquetWriter(path, schema) as writer:
        while group := list(islice(rows, ROWS_TOGETHER)):
            files = [_as_utf8(row.file) for row in group]
            _, *known, shares = zip(*group, strict=True)
            of_classes = zip(*(each or [None] * len(classes) for each in shares), strict=True)
            columns = [files, *known, *of_classes]
            arrays = [
                pa.array(each, kind) for each, kind in zip(columns, schema.types, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
