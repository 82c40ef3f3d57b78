"""What ComfyUI writes during one run, from its first submit to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_serverless.connector.facts import EventSeen, FrameSeen
    from comfy_serverless.connector.process import ComfyProcess
    from comfy_serverless.connector.runner import Watcher


@dataclass(frozen=True, slots=True)
class RunLines:
    """Tells the process's output where a run begins and ends. Of an engine elsewhere (no process) there are no lines.

    Attributes:
        on_log: gets the last lines at the end; None if nobody wants them.
    """

    run_id: str
    on_log: Callable[[Sequence[str]], None] | None

    def begin(self, process: ComfyProcess | None, see: Watcher) -> Watcher:
        """Note that the run is about to be submitted. Returns the watcher that notes, too, when it executes."""
        if process is None:
            return see
        process.output.begin_run(self.run_id)
        has_begun = False

        def watch(fact: EventSeen | FrameSeen) -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                process.output.run_begun(self.run_id)
            see(fact)

        return watch

    def end(self, process: ComfyProcess | None, *, was_refused: bool) -> None:
        """Hand over what was written, and let go of it."""
        lines = () if process is None else process.output.end_run(self.run_id, was_refused=was_refused)
        if self.on_log is not None:
            self.on_log(lines)
