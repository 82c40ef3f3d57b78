"""How a batch goes, in one line: `212/500  3 failed  1.9/s  ETA 2:31`. No IO."""

from __future__ import annotations

from comfy_serverless.batches.progress import BatchProgress
from comfy_serverless.cli.habits import time_in_words

_GAP = "  "
_STANDING = frozenset({"paused", "canceled"})


def progress_line(progress: BatchProgress, *, width: int = 200) -> str:
    """What `--watch` says. What does not fit into so many characters is left out, the last first."""
    about = "" if progress.is_read else "~"
    parts = [f"{progress.ended:,}/{about}{progress.lines_total:,}"]
    if failed := failed_lines(progress):
        parts.append(f"{failed:,} failed")
    if progress.status in _STANDING:
        parts.append(progress.status)
    else:
        if progress.per_second:
            parts.append(rate_text(progress.per_second))
        if progress.left_s is not None and progress.ended < progress.lines_total:
            parts.append(f"ETA {time_in_words(progress.left_s)}")
    while len(parts) > 1 and len(_GAP.join(parts)) > width:
        parts.pop()
    return _GAP.join(parts)


def failed_lines(progress: BatchProgress) -> int:
    """How many lines have ended without a result, canceled ones not counted."""
    return progress.failed + progress.expired + progress.bad


def rate_text(per_second: float) -> str:
    """1.94 -> `1.9/s`, 0.2 -> `12/min`, 0.002 -> `7/h`."""
    if per_second >= 0.95:
        return f"{per_second:,.1f}/s"
    if per_second * 60 >= 1:
        return f"{per_second * 60:.0f}/min"
    return f"{per_second * 3600:.0f}/h" if per_second * 3600 >= 1 else f"{per_second * 86400:.0f}/d"
