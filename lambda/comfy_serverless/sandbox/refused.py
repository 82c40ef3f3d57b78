"""The reason why a file that somebody sent cannot be used: the answer of a check."""

from __future__ import annotations


class Refused(Exception):
    """The end of a sentence that begins with the file: what is wrong with it, the limit, and what to do.

    Attributes:
        transient: the same check may succeed when tried again: the fault is not the file's.
        timed_out: its time was over, perhaps through nobody's fault.
    """

    def __init__(self, reason: str, *, transient: bool = False, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.transient = transient
        self.timed_out = timed_out


class MaskRefused(Refused):
    """The mask cannot be used; its image can."""
