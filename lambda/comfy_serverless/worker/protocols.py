"""The protocols a worker needs: an engine that runs workflows, an observer, and fetchers of inputs and models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from comfy_serverless.connector.facts import Timings
    from comfy_serverless.connector.outputs import Output
    from comfy_serverless.connector.progress import Progress
    from comfy_serverless.errors import ComfyError
    from comfy_serverless.jobs.document import Output as DeliveredOutput
    from comfy_serverless.jobs.request import ModelRequest


class Execution(Protocol):
    """The result of a run: see `comfy_serverless.Execution`."""

    @property
    def outputs(self) -> tuple[Output, ...]: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def timings(self) -> Timings: ...


class Engine(Protocol):
    """An engine that runs workflows: see `comfy_serverless.ComfyConnector`."""

    @property
    def engine(self) -> str: ...
    @property
    def starts(self) -> int: ...

    def run(
        self,
        workflow: Mapping[str, Any],
        *,
        deadline_s: float | None = None,
        execution_s: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_output: Callable[[Output], None] | None = None,
        on_log: Callable[[Sequence[str]], None] | None = None,
        prompt_id: str | None = None,
        extra_data: Mapping[str, Any] | None = None,
        apart_as: str | None = None,
        recalls_as: str = "",
    ) -> Execution: ...
    def object_info_now(self) -> Mapping[str, Any]: ...
    def file_names(self) -> frozenset[str]: ...
    def may_overlap(self, workflow: Mapping[str, Any]) -> bool: ...
    def hold_folders(self, check: Callable[[], None], *, owner: str | None = None) -> AbstractContextManager[None]: ...
    def cancel(self, prompt_id: str) -> bool: ...
    def discard(self, prompt_id: str, *, apart_as: str | None = None) -> None: ...
    def kept_bytes(self, apart_as: str) -> int: ...
    def discard_kept(self, apart_as: str) -> None: ...


class Observer(Protocol):
    """Follows a job while it runs, and never blocks: see `worker.journal.Reporter`."""

    def see_begin(self, stop: Callable[[ComfyError], bool]) -> None: ...
    def see_progress(self, progress: Progress) -> None: ...
    def see_output(self, output: DeliveredOutput) -> None: ...
    def see_all_delivered(self) -> None: ...


class NobodyWatches(Observer):
    """Ignores all that it sees, where a job has no observer."""


class Shown(Protocol):
    """What a job has brought for ComfyUI: prepared outside the job's turn, in ComfyUI's sight only within it."""

    def show(self, deadline: float) -> None:
        """Put it where ComfyUI finds it: in the job's turn, just before the submit; quick. Called at most once.

        Raises ComfyError if that cannot be done until the deadline, on the monotonic clock: nothing is shown then.
        """

    def release(self) -> None:
        """Take it out of ComfyUI's sight, and let it go: right after the run, or if there is none.

        What another job has brought too stays. Idempotent, also after a failed `show`. Never raises.
        """


class ShownModels(Shown, Protocol):
    """Models that a job has brought."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the caller is told of them."""


class NothingShown:
    """Shows nothing, where a job has brought nothing. `ShownModels`."""

    warnings: tuple[str, ...] = ()

    def show(self, deadline: float) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""


class PreparedGraph(Shown, Protocol):
    """A graph whose inputs are ready to be shown."""

    @property
    def graph(self) -> dict[str, Any]: ...


class Inputs(Protocol):
    """Fetches inputs: see `worker.inputs.fetcher.InputFetcher`."""

    def prepare(
        self,
        graph: Mapping[str, Any],
        inputs: Mapping[str, str | list[str]],
        *,
        job_id: str,
        owner: str,
        deadline: float,
    ) -> PreparedGraph: ...


class Models(Protocol):
    """Fetches models: see `worker.model_store.ModelStore`."""

    def hold(self, models: Sequence[ModelRequest], *, job_id: str, deadline: float, owner: str = "") -> ShownModels: ...
