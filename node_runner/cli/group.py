"""How `node-run` reads its command line: what is no command trains, and every mistake is one line."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from node_runner.cli.leaving import Leaving


class Quick:
    """A command whose help option is off unless given: for `None` Typer would load its type machinery, 0.2 s."""

    def get_help_option(self, ctx: Any) -> Any:
        """Typer's own option, with a default."""
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.default = False
        return option


class RunCommand(Quick, TyperCommand):
    """A command beside `train`, whose work is in the file of its name, or in `command.py` of the folder of its name."""

    def invoke(self, ctx: Any) -> Any:
        """Import what the command needs, which Ctrl-C may end at once, and run it."""
        with Leaving():
            home = importlib.import_module(f"node_runner.cli.{self.name}")
            if hasattr(home, "__path__"):
                importlib.import_module(f"{home.__name__}.command")
        return super().invoke(ctx)


def end(code: int) -> NoReturn:
    """End the program with an exit code.

    Where Ctrl-C came while a string of code was run, as a dataclass is made of, Python remembers it and would end the
    program by that signal instead, although the exception was caught. The next string that is run makes it forget.
    """
    exec("")
    sys.exit(code)


class RunGroup(Quick, TyperGroup):
    """`node-run a=b` means `node-run train a=b`; every mistake is one line."""

    own = ("--help", "--version")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Send what is no command to `train`."""
        if not args:
            args = ["--help"]
        if not ctx.resilient_parsing and args[0] not in (*self.own, *self.list_commands(ctx)):
            args = ["train", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; its errors end the program with a line and the exit code of `report`."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, Exception) as error:
            # Typer's own (exit, usage) are for `main`, a closed pipe is for Typer.
            if isinstance(error, typer.Exit | BrokenPipeError) or hasattr(error, "format_message"):
                raise
            from node_runner.cli.explain import report

            raise typer.Exit(report(error, self.list_commands(ctx))) from error

    def main(self, *args: Any, **extra: Any) -> Any:
        """As Typer's, with its usage errors in one line."""
        standalone_mode = extra.pop("standalone_mode", True)
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
        except typer.Abort:  # Ctrl-C outside of `invoke`
            print("node-run: interrupted", file=sys.stderr)
            end(130)
        except Exception as error:
            if not standalone_mode or not hasattr(error, "format_message"):
                raise
            context = getattr(error, "ctx", None)
            command = context.info_name if context is not None and context.parent is not None else ""
            asked = f"node-run {command}".strip()
            print(f"node-run: {error.format_message().rstrip('.')}; see `{asked} --help`", file=sys.stderr)
            sys.exit(2)
        if not standalone_mode:
            return code
        end(code if isinstance(code, int) else 0)
