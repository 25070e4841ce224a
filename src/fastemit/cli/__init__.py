"""The command line: `fastemit <command>`, or `python -m fastemit <command>`.

Each command is a module of this package with `add_parser(subparsers)` and `run(args) -> int`, and a place in
`_COMMANDS`. It imports what it needs in `run`, so that `fastemit --help` loads no emitter.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

from fastemit._version import __version__
from fastemit.cli import bench, collector, redis_worker, send, spool
from fastemit.cli._completion import SHELLS, completion

__all__ = ["main"]


class _Command(Protocol):
    """What a module of a command has."""

    def add_parser(self, subparsers: Any, /) -> argparse.ArgumentParser: ...

    def run(self, args: argparse.Namespace, /) -> int: ...


_COMMANDS: tuple[_Command, ...] = (collector, send, redis_worker, spool, bench)


class _Parser(argparse.ArgumentParser):
    """Reports a usage error in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fastemit: error: {message} (see {self.prog} --help)\n")


class _PrintCompletion(argparse.Action):
    """Prints the script and ends, as `--version` does."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, values: object, option_string: str | None = None
    ) -> NoReturn:
        try:
            text = completion(parser, str(values))
        except ImportError as error:
            parser.exit(1, f"fastemit: error: {error}\n")
        print(text)
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a usage error, 1 for any other.

    `argv` are the arguments without the program's name, `sys.argv[1:]` by default. Errors are one line on
    stderr.
    """
    _prepare_streams()
    parser = _parser()
    try:
        args, rest = parser.parse_known_args(argv)
        _take_rest(parser, args, rest)
        if args.command is None:
            parser.print_help()
            return 2
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except SystemExit as exit_:  # argparse's way to end, after --help, --version and usage errors
        return exit_.code if isinstance(exit_.code, int) else 1
    except BrokenPipeError:
        # Nobody reads the output any more. Python flushes stdout again at exit, and would report an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        what = f"{error.filename}: " if isinstance(error.filename, str) else ""
        print(f"fastemit: error: {what}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # `python -m` ends itself by SIGINT when a Ctrl-C has come out of an `exec` of a string, although it is caught
        # here. Dataclasses are made by such an `exec`. The next `exec` of a string takes that back.
        exec("")
        return 130


def _prepare_streams() -> None:
    """Replace output streams that are closed, and show characters that their encoding has not as escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Otherwise `print` would write errors to standard output.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open to the end
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _take_rest(parser: argparse.ArgumentParser, args: argparse.Namespace, rest: Sequence[str]) -> None:
    """Add the files that follow an option. argparse takes only those that follow the argument before them."""
    if rest and "files" in args and all(arg == "-" or not arg.startswith("-") for arg in rest):
        args.files = [*args.files, *rest]
    elif rest:
        prog = f"{parser.prog} {args.command}" if args.command else parser.prog
        parser.exit(2, f"fastemit: error: unrecognized arguments: {' '.join(rest)} (see {prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastemit", description="Tools around the fastemit Snowplow emitter.")
    parser.add_argument("-V", "--version", action="version", version=f"fastemit {__version__}")
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=SHELLS,
        metavar="SHELL",
        help="print what completes commands and options in your shell: bash, zsh or fish",
    )
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="<command>")
    for command in _COMMANDS:
        command.add_parser(subparsers).set_defaults(run=command.run)
    return parser
