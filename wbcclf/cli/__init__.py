"""The command line: a file for each command, which parses, calls and prints."""

from wbcclf.cli._start import main

__all__ = ["main"]
