"""When a prompt is asked about next: seldom while its events come, often once they cannot be relied on. No IO."""

from __future__ import annotations

#: Silence after which the history is asked although the socket seems to work, in seconds.
QUIET_S = 1.0
#: First and longest pause between questions when events cannot be relied on, in seconds.
POLL_MIN_S, POLL_MAX_S = 0.02, 1.0
#: The pause between questions about a prompt that was asked to stop, in seconds.
_STOPPING_S = 0.1


class Pace:
    """The time of the next question. All times are monotonic, in seconds.

    Attributes:
        ask_at: when it is due.
        is_polling: whether events are not relied on any more.
    """

    def __init__(self, now: float) -> None:
        self.ask_at = now + QUIET_S
        self.is_polling = False
        self._pause = POLL_MIN_S

    def is_due(self, now: float) -> bool:
        """Whether to ask now."""
        return now >= self.ask_at

    def heard(self, now: float) -> None:
        """An event has come: while they do, nobody has to ask."""
        if not self.is_polling:
            self.ask_at = now + QUIET_S

    def poll(self, now: float) -> None:
        """Rely on events no more."""
        self.is_polling = True
        self.ask_at = min(self.ask_at, now + self._pause)

    def ask_now(self, now: float) -> None:
        """Ask at once."""
        self.ask_at = now

    def ask_soon(self, now: float) -> None:
        """Ask once more: the answer was not certain."""
        self.ask_at = min(self.ask_at, now + POLL_MIN_S)

    def asked(self, now: float, *, is_stopping: bool) -> None:
        """A question was asked; the pauses before further ones grow."""
        if is_stopping:
            pause = _STOPPING_S
        elif not self.is_polling:
            pause = QUIET_S
        else:
            pause = self._pause = min(POLL_MAX_S, self._pause * 1.5)
        self.ask_at = now + pause
