"""`node-run`: `node-run a=b` trains; everything else is a command of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from node_runner import __version__


class RunGroup(TyperGroup):
    """`node-run a=b` means `node-run train a=b`."""

    own = ("--help", "--version")

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]  # Typer's own signature, which differs by version
        if args[:1] and not ctx.resilient_parsing and args[0] not in (*self.own, *self.list_commands(ctx)):
            args = ["train", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=RunGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Train and compare Neural ODEs.\n\nnode-run dataset=spiral solver=dopri5 trains; "
    "node-run list shows every option.",
)


def _version(value: bool) -> None:
    if value:
        print(f"node-run {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of node-run itself."""


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
)
def train(ctx: typer.Context) -> None:
    """Train one run, or a sweep with -m. All of Hydra's flags work. Example: node-run dataset=spiral solver=dopri5."""
    from node_runner.cli.hydra_entry import run_hydra

    assert ctx.parent is not None
    commands = list(ctx.parent.command.commands)  # type: ignore[attr-defined]
    words = os.environ.get("COMP_LINE", "").split(" ")
    if "query=bash" in ctx.args and len(words) == 2:
        print(*(name for name in commands if name.startswith(words[1])), end=" ")
    raise typer.Exit(run_hydra(ctx.args, commands))


def main() -> None:
    """Entry point of the `node-run` program."""
    # The user's own modules (NODE_RUNNER_PLUGINS, plug-ins in the working folder) can be imported.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    app()


if __name__ == "__main__":
    main()
