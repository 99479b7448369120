"""What is printed: text as text, and tables as wide as they are."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

ENDLESS = 100_000  # columns


class _Console(Console):
    """A console for text that may hold anything, since files and classes are called anything."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, soft_wrap=True, markup=False, emoji=False, **options)
        if not self.file.isatty():  # rich would cut tables in a file or pipe at 80 columns
            self.width = ENDLESS

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; an OSError names the stream."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            raise OSError(f"{self.file.name} cannot be written to ({error.strerror}).") from error

    def render_str(self, text: str, **options: Any) -> Text:
        """Return what rich prints for a string; every one passes here, a table's cells too."""
        return super().render_str(printable(text, self.encoding), **options)


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""Return a text with Python's escapes for what a terminal obeys or cannot show.

    Control codes, marks that change the direction of writing, bytes of a file name that are not
    UTF-8, and characters that the encoding lacks.

    Examples
    --------
    >>> print(printable("mono\x1b[31mcyte"), printable("Zelle ä", "ascii"))
    mono\x1b[31mcyte Zelle \xe4
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


out = _Console()
err = _Console(stderr=True)


def print_table(header: list[Any], rows: list[list[Any]], **options: Any) -> None:
    table = Table(**options)
    for title in header:  # on a narrow terminal they are wrapped, and not cut
        table.add_column(str(title), overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    out.print(table)


def one_line(message: Any) -> str:
    return " ".join(line.strip() for line in str(message).split("\n")).strip()


def warn(message: Any) -> None:
    err.print(f"wbcclf: warning: {one_line(message)}")
