"""The bar that shows how many bytes of a file have been read or sent: on stderr, in a terminal, and gone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Is shown what goes on with how many bytes of how many; None if that is not known.
Show = Callable[[str, int, "int | None"], None]


@contextmanager
def byte_bar() -> Iterator[Show]:
    """A bar, and what moves it. Where stderr is no terminal it shows nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=None)

        def show(what: str, done: int, total: int | None) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show
