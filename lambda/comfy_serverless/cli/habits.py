"""What all commands have in common: how they are declared, what they print and where, and how they end.

- Results go to stdout, everything said about them to stderr, so that `$(…)` and `|` get results alone.
- `--json` prints one JSON document (`logs`: one a line), of an error too: `{"error": {"code", "message", "details"}}`.
- Nothing is lost in a narrow terminal, nothing crashes in one that knows few letters, and a reader that has gone
  (`| head -1`) ends the command in silence.

It loads nothing that takes time; what prints tables does so when there is one to print.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from comfy_serverless.cli.interrupts import INTERRUPTED as INTERRUPTED
from comfy_serverless.cli.interrupts import interrupt_ends as interrupt_ends

if TYPE_CHECKING:
    from comfy_serverless.errors import ComfyError

FAILED, WRONG_USAGE, READER_GONE = 1, 2, 141

#: A column that may be folded stays this wide, in letters.
_FOLDED_WIDTH = 8
_GAP = 2
#: What is taken for the name of an action, too.
_ALIASES = {"ls": ("list",)}
_EXIT_CODES = "exit codes: 0 done, 1 failed (the reason is on stderr), 2 wrong usage, 130 interrupted"


class WrongUsage(SystemExit):
    """The command line was given in a wrong way. The usage stands on stderr already; the exit code is 2."""

    def __init__(self, message: str) -> None:
        super().__init__(WRONG_USAGE)
        self.message = message


class CommandParser(argparse.ArgumentParser):
    """argparse's, whose help keeps its lines, and whose errors can be told to programs.

    Attributes:
        other_form: reads arguments that have another form than the options say, like those of a named workflow; None
            for all others.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)
        self.other_form: Callable[[Sequence[str]], argparse.Namespace | None] | None = None

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's."""
        if self.other_form is not None and args is not None and (found := self.other_form(args)) is not None:
            return found, []
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401
        """As argparse's. Raises WrongUsage for what is not known."""
        found, further = self.parse_known_args(args, namespace)
        if further:
            self.refuse(further)
        return found

    def add_subparsers(self, **options: Any) -> argparse._SubParsersAction[Any]:  # noqa: ANN401
        """As argparse's; of commands and actions, each answers for the arguments behind it."""
        return super().add_subparsers(parser_class=_InnerParser, **options)

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and raise WrongUsage."""
        self.print_usage(sys.stderr)
        print(f"{self.prog}: error: {message}", file=sys.stderr)
        raise WrongUsage(message)

    def refuse(self, further: Sequence[str]) -> NoReturn:
        """Raise WrongUsage for arguments that nothing takes, with the option that was probably meant."""
        option = next((word.partition("=")[0] for word in further if word.startswith("-")), "")
        known = [name for action in self._actions for name in action.option_strings]
        self.error(f"unrecognized arguments: {' '.join(further)}{_meant(option, known)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401
        if action.choices is not None and value not in action.choices:
            listed = [str(one) for one in action.choices]
            meant = _meant(str(value), listed)
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{meant}; choose from {', '.join(listed)}")


class _InnerParser(CommandParser):
    """That of a command, or of an action: what it does not take, nothing takes, and its own usage says what it does."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's. Raises WrongUsage for what is not known."""
        found, further = super().parse_known_args(args, namespace)
        if further:
            self.refuse(further)
        return found, []


def add_command(
    commands: argparse._SubParsersAction[Any],
    name: str,
    *,
    summary: str,
    examples: Sequence[str],
    description: str = "",
    notes: str = "",
    prints_data: bool = True,
    exit_codes: str = _EXIT_CODES,
) -> argparse.ArgumentParser:
    """Add a command, or an action of one (`keys ls`). Its help ends with examples, notes and exit codes.

    `ls` is the word for every list; `list` is taken for it everywhere.

    Args:
        summary: one line for the list of commands, which begins with a small letter.
        examples: whole command lines, one each.
        description: the first sentence of its own help; without one, the summary.
        notes: paragraphs between examples and exit codes.
        prints_data: whether it has `--json`. It has not where it prints no data of its own: `completion`, and a
            command whose actions have it.
        exit_codes: of a command that has further ones.
    """
    shown = "\n".join(["examples:" if len(examples) > 1 else "example:", *(f"  {line}" for line in examples)])
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description or f"{summary[0].upper()}{summary[1:]}.",
        epilog="\n\n".join(filter(None, [shown, notes.strip(), exit_codes])),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        aliases=_ALIASES.get(name, ()),
    )
    if name in _ALIASES:
        parser.set_defaults(action=name)
    if prints_data:
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def print_json(document: object) -> None:
    """Print one JSON document to stdout. Letters beyond ASCII are escaped, so that every terminal takes them."""
    print(json.dumps(document, indent=2), flush=True)


def say(text: str) -> None:
    """Print lines for people, to stderr, without what a terminal obeys: names and reasons may be anybody's."""
    print("\n".join(map(one_line, text.split("\n"))), file=sys.stderr, flush=True)


def print_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, folds: Collection[str] = (), right: Collection[str] = ()
) -> None:
    """Print a table to stdout. No cell is ever shortened.

    Where it is wider than the terminal, the columns in `folds` go on in the next line; where that does not suffice,
    every row becomes a list of `title  value`. A program that reads it (no terminal) gets each row in one line.

    Args:
        right: the columns whose cells stand at the right, e.g. numbers.
    """
    print("\n".join(table_lines(titles, rows, width=_width(), folds=folds, right=right)), flush=True)


def table_lines(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None,
    folds: Collection[str] = (),
    right: Collection[str] = (),
) -> list[str]:
    """The lines of that table. `width` is the terminal's, in letters; None if there is no end."""
    from rich.cells import cell_len

    table = [[one_line(cell) for cell in row] for row in [titles, *rows]]
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    left_over = None if width is None else width - sum(widths) - _GAP * (len(widths) - 1)
    if left_over is not None and left_over < 0:
        narrowed = _narrowed(titles, widths, -left_over, folds)
        if narrowed is None:
            return _as_lists(table)
        widths = narrowed
    return [line for row in table for line in _row_lines(row, widths, [title in right for title in titles])]


def one_line(text: str) -> str:
    """A text without what would move the cursor or change the terminal: control characters are escaped."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def time_in_words(seconds: float) -> str:
    """A duration: "9 s", "2:31", "1:02:03"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size_in_words(size_bytes: float) -> str:
    """1234567 -> "1.2 MB"."""
    units = ["B", "kB", "MB", "GB"]
    while size_bytes >= 999.95 and len(units) > 1:
        size_bytes /= 1000
        del units[0]
    return f"{size_bytes:.0f} B" if units[0] == "B" else f"{size_bytes:.1f} {units[0]}"


def counted(count: int, what: str) -> str:
    """1, "line" -> "1 line"; 1200, "line" -> "1,200 lines"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def seconds(text: str) -> float:
    """A number of seconds above 0, as the `type` of an option."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0, e.g. 90 or 0.5")
    return value


def label(text: str) -> tuple[str, str]:
    """A label of a job, NAME=VALUE, as the `type` of an option."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE, e.g. campaign=autumn")
    return name, value


def add_labels(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add `--label NAME=VALUE`, which may be given several times: `labels` of the options is pairs of texts."""
    parser.add_argument(
        "--label", action="append", default=[], dest="labels", type=label, metavar="NAME=VALUE", help=meaning
    )


def whole_number(text: str) -> int:
    """A whole number above 0, as the `type` of an option."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def version_number(text: str) -> int:
    """The number of a version of a workflow, as the `type` of an option."""
    plain = text.removeprefix("v")
    if not (plain.isascii() and plain.isdigit() and len(plain) <= 6):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of a version, e.g. 2")
    return int(plain)


def report_error(error: ComfyError, *, as_json: bool) -> int:
    """Say what has failed. Returns the exit code."""
    from comfy_serverless.errors import Canceled

    report(error.code, error.message, error.details, as_json=as_json)
    return INTERRUPTED if isinstance(error, Canceled) else FAILED


def report(code: str, message: str, details: Mapping[str, Any] | None = None, *, as_json: bool) -> None:
    """Say what has failed: a line on stderr and, where JSON was asked for, an error on stdout."""
    bold_red, plain = ("\x1b[1;31m", "\x1b[0m") if _has_colors() else ("", "")
    say(f"{bold_red}{code}{plain}: {message}")
    if as_json:
        print_error(code, message, details)


def print_error(code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
    """Print an error as programs read it, to stdout."""
    print_json({"error": {"code": code, "message": message, "details": dict(details or {})}})


class StdoutLost(OSError):
    """What was printed could not be written to stdout."""


class _Stdout(io.TextIOWrapper):
    """Stdout, whose failures are told from those of all other files and sockets."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise StdoutLost(*error.args) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise StdoutLost(*error.args) from error


def ready_streams() -> None:
    """Make stdout and stderr take everything that is printed, whatever the terminal's letters, and closed ones too.

    A closed stdin is an empty one.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed (`>&-`): else the next file that is opened would take its number, and be printed into
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if hasattr(sys.stderr, "reconfigure"):
        sys.stderr.reconfigure(errors="backslashreplace")
    if sys.stdout is None or sys.stdout is sys.__stdout__:  # a test has put another there
        encoding, is_terminal = (sys.stdout.encoding, sys.stdout.isatty()) if sys.stdout else ("utf-8", False)
        binary = open(1, "wb", closefd=False)  # noqa: SIM115
        sys.stdout = _Stdout(binary, encoding=encoding, errors="backslashreplace", line_buffering=is_terminal)


def lose_stdout(error: StdoutLost) -> int:
    """Print nothing more to stdout. Returns the exit code.

    A reader that has gone (`| head -1`) is no failure that anybody wants to read about; a full disk is.
    """
    # What is still in the buffer is not written at Python's own end either.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if isinstance(error.__cause__, BrokenPipeError):
        return READER_GONE
    say(f"what this command prints could not be written: {error.strerror}")
    return FAILED


def _meant(name: str, known: Sequence[str]) -> str:
    """` (did you mean …?)`, or nothing if none comes near."""
    from comfy_serverless.graph.near import Guesses

    near = Guesses().near(name, known) if name else []
    return f" (did you mean {near[0]}?)" if near else ""


def _width() -> int | None:
    """How wide a table may be: COLUMNS, else the terminal's width; no end where nobody looks."""
    if os.environ.get("COLUMNS", "").isdecimal():
        return max(1, int(os.environ["COLUMNS"]))
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _narrowed(titles: Sequence[str], widths: Sequence[int], missing: int, folds: Collection[str]) -> list[int] | None:
    """The widths when columns in `folds` have given what is missing, the widest first; None if they cannot."""
    narrowed = list(widths)
    floors = [
        max(_FOLDED_WIDTH, len(title)) if title in folds else width for title, width in zip(titles, widths, strict=True)
    ]
    for _ in range(missing):
        spare = [width - floor for width, floor in zip(narrowed, floors, strict=True)]
        widest = max(range(len(spare)), key=lambda place: (spare[place] > 0, narrowed[place]))
        if spare[widest] <= 0:
            return None
        narrowed[widest] -= 1
    return narrowed


def _row_lines(row: Sequence[str], widths: Sequence[int], at_right: Sequence[bool]) -> list[str]:
    from rich.cells import cell_len, chop_cells

    # What fits is not chopped: rich would lose a letter that has no width of its own, like the tone of an emoji.
    pieces = [
        [cell] if cell_len(cell) <= width else chop_cells(cell, width) for cell, width in zip(row, widths, strict=True)
    ]
    lines = []
    for level in range(max(map(len, pieces))):
        cells = []
        for column, width, right in zip(pieces, widths, at_right, strict=True):
            cell = column[level] if level < len(column) else ""
            blanks = " " * (width - cell_len(cell))
            cells.append(blanks + cell if right else cell + blanks)
        lines.append((" " * _GAP).join(cells).rstrip())
    return lines


def _as_lists(table: Sequence[Sequence[str]]) -> list[str]:
    titles, *rows = table
    longest = max(map(len, titles))
    lists = [[f"{title:<{longest}}  {cell}".rstrip() for title, cell in zip(titles, row, strict=True)] for row in rows]
    return [line for number, lines in enumerate(lists) for line in ([""] if number else []) + lines]


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def _has_colors() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
