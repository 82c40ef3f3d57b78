"""The line that shows how far something is, while it lasts: on stderr, in a terminal, and gone afterwards."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from comfy_serverless.cli.habits import one_line, time_in_words

_WORDS_WIDTH = 32


class ProgressLine:
    """A bar with words before it, and the time gone and left behind it. Where stderr is no terminal it shows nothing.

    `with ProgressLine() as line: line.show(0.4, "KSampler 8/20", left_s=12.0)`
    """

    def __init__(self, words: str = "", *, width: int = _WORDS_WIDTH) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
        )
        self._width = width
        self._bar = Progress(*columns, console=Console(stderr=True, highlight=False), transient=True)
        self._task = self._bar.add_task(self._cut(words), total=1.0, left="")

    def __enter__(self) -> ProgressLine:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, fraction: float, words: str, *, left_s: float | None = None) -> None:
        """Show how far it is.

        Args:
            fraction: from 0 to 1.
            words: what goes on just now.
            left_s: the seconds until the end, as far as is known.
        """
        left = "" if left_s is None else f"{time_in_words(left_s)} left"
        self._bar.update(self._task, completed=fraction, description=self._cut(words), left=left)

    def _cut(self, words: str) -> str:
        return one_line(words)[: self._width]
