"""What happens where image files cannot be read: `on_error` of all that read many."""

from __future__ import annotations

from wbcclf._files import some
from wbcclf._warnings import warn
from wbcclf.exceptions import ImageReadError, SkippedFileWarning

ON_ERROR = ("raise", "warn", "skip")


def check_on_error(on_error: str) -> None:
    """Raise a ValueError if there is no such choice."""
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {', '.join(ON_ERROR)}, got {on_error!r}.")


def report_failures(
    failures: list[tuple[str, str]], n_files: int, on_error: str, advice: str
) -> None:
    """Raise an ImageReadError or warn, as `on_error` says, if there are failures (path, reason)."""
    if not failures:
        return
    listed = some([f"{path}: {reason}" for path, reason in failures], 5, "\n  ")
    n_broken = f"{len(failures)} of {n_files} files cannot be read as images"
    if len(failures) == n_files:
        raise ImageReadError(f"{n_broken}, so there is nothing to load:\n  {listed}")
    if on_error == "raise":
        raise ImageReadError(f"{n_broken}:\n  {listed}\n{advice}")
    if on_error == "warn":
        warn(f"{n_broken} and are left out:\n  {listed}", SkippedFileWarning)
