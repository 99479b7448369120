"""The entry point: what `wbcclf` is made of, and how it ends."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

import wbcclf
from wbcclf.cli._adapt import adapt
from wbcclf.cli._audit import audit
from wbcclf.cli._backbones import backbones
from wbcclf.cli._console import err, one_line, out, warn
from wbcclf.cli._count import count
from wbcclf.cli._demo import demo
from wbcclf.cli._evaluate import evaluate
from wbcclf.cli._explain import explain
from wbcclf.cli._explore import explore
from wbcclf.cli._export import export
from wbcclf.cli._groups import groups
from wbcclf.cli._predict import predict
from wbcclf.cli._recipes import recipes
from wbcclf.cli._split import split
from wbcclf.cli._train import train
from wbcclf.exceptions import TrainingInterruptedWarning

# Without rich the help has room for its text on a terminal of 80 columns.
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def show_version(asked: bool) -> None:
    if asked:
        out.print(f"wbcclf {wbcclf.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=show_version),
    ] = False,
) -> None:
    """Classify white blood cell images. Start with `wbcclf demo`."""


# In the order of the help: before training, training and after it, and the rest.
COMMANDS: list[Callable[..., None]] = [
    *(explore, audit, groups, split),
    *(train, evaluate, explain, adapt, predict, count, export),
    *(demo, recipes, backbones),
]
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command line; errors are one line on stderr, without a traceback.

    Exit codes: 0 success, 1 error, 2 wrong usage, 130 interrupted.
    """
    # An interrupted training keeps its model, but the shell has to know of the interruption.
    interrupted = []

    def show(message, category, *rest, **named):
        if issubclass(category, TrainingInterruptedWarning):
            interrupted.append(message)
        warn(message)

    warnings.showwarning = show
    try:
        # typer returns the code of what exits early (--help 0, Ctrl-C 130) and else None.
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        # typer's own errors (wrong usage) know their text and exit code; the rest are ours and
        # say what to do; both are for a person at a shell, who has no use for a stack of calls.
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        usage = " See wbcclf --help." if hasattr(error, "format_message") else ""
        text = one_line(text) or type(error).__name__
        err.print(f"wbcclf: error: {text}{usage}")
        code = getattr(error, "exit_code", 1)
    if interrupted or code:
        sys.exit(130 if interrupted else code)
