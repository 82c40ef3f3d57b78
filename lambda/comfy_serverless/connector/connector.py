"""`ComfyConnector`: one warm ComfyUI, driven from Python.

The methods of the original ComfyConnector are kept name for name: a program written for it runs unchanged.
`run`, `cancel`, `upload_file` and `wait_ready` are new. Where the original was wrong, the docstring says so.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from comfy_serverless.connector.client import RequestFailed
from comfy_serverless.connector.engine import Engine
from comfy_serverless.connector.engine_given import EngineGiven
from comfy_serverless.connector.events import NoWebsocket
from comfy_serverless.connector.in_thread import InThread
from comfy_serverless.connector.outputs import Output
from comfy_serverless.connector.own_folder import may_overlap
from comfy_serverless.connector.ports import find_available_port
from comfy_serverless.connector.progress import Progress
from comfy_serverless.connector.refusals import refusal
from comfy_serverless.connector.run import (
    Execution,
    WorkflowRun,
    checked_prompt_id,
    deadline_in,
    left_until,
)
from comfy_serverless.connector.submitted import converted_to_submit, graph_to_submit, with_hint
from comfy_serverless.connector.unusable import submit_failure, unavailable
from comfy_serverless.connector.upkeep import Condition, Upkeep
from comfy_serverless.errors import EngineUnavailable, InvalidRequest, UiFormatWorkflow
from comfy_serverless.graph import workflow as workflow_module
from comfy_serverless.graph.editor_format import Readable, check_editor_format, in_api_format, with_saved
from comfy_serverless.graph.wrappers import Unwrapped, is_of_editor, merged, unwrap
from comfy_serverless.json_text import finite
from comfy_serverless.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

    from comfy_serverless.graph.convert import Conversion

logger = logging.getLogger(__name__)


class ComfyConnector(EngineGiven):
    """The connector. `ComfyConnector()` is the same instance everywhere in a process, until `kill_api()`.

    Args:
        settings: used instead of the environment. Only the call that creates the instance may pass them.
        wait: whether to wait until ComfyUI answers. With False the call starts it and returns at once.

    Raises:
        EngineUnavailable: ComfyUI did not start; the message has its exit code and the end of its log.
    """

    _instance: ClassVar[ComfyConnector | None] = None
    _creation: ClassVar[threading.RLock] = threading.RLock()

    def __new__(cls, *, settings: Settings | None = None, wait: bool = True) -> ComfyConnector:  # noqa: ARG004
        with cls._creation:
            if cls._instance is None:
                instance = super().__new__(cls)
                instance._settings = settings or Settings.from_environment()
                instance._engine = Engine(instance._settings)
                instance._upkeep = Upkeep(instance._engine, instance._settings)
                # A signal handler may call `cancel` while its own thread registers a run.
                instance._lock = threading.RLock()
                instance._runs = {}
                # Last: a failed start must leave nothing behind.
                cls._instance = instance
            return cls._instance

    def __init__(self, *, settings: Settings | None = None, wait: bool = True) -> None:  # noqa: ARG002
        self._settings: Settings
        self._upkeep: Upkeep
        self._lock: threading.RLock
        self._runs: dict[str, WorkflowRun]
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.kill_api()
                raise

    # The engine's life.

    @property
    def condition(self) -> Condition:
        """How ComfyUI has been: its starts, and the memory it held between two runs."""
        return self._upkeep.condition

    def find_available_port(self) -> int:
        """The first free port at or above INITIAL_PORT."""
        return find_available_port(self._settings.api_url, self._settings.initial_port)

    def start_api(self) -> None:
        """Start ComfyUI if it does not run, and wait until it answers.

        Raises:
            EngineUnavailable: it did not start.
        """
        self.wait_ready()

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Wait until ComfyUI answers; start it again if it has died.

        Args:
            timeout_s: longest wait in seconds; the start's own limit
                (MAX_COMFY_START_ATTEMPTS x COMFY_START_ATTEMPTS_SLEEP) also applies.

        Raises:
            EngineUnavailable: it exited, or did not answer within the start's limit.
            DeadlineExceeded: `timeout_s` passed while it was still starting.
            ComfyError: the workflow in TEST_PAYLOAD did not run.
        """
        self._wait_ready(timeout_s)

    def _wait_ready(self, timeout_s: float | None, canceled: threading.Event | None = None) -> None:
        deadline = deadline_in(timeout_s)
        freshly_started = self._engine.wait_ready(timeout_s, canceled)
        if freshly_started and self._settings.test_payload is not None:
            self.run(self.load_payload(self._settings.test_payload), deadline_s=left_until(deadline))

    def rest(self) -> None:
        """Get ready for a snapshot of this machine: ComfyUI answers, and there is no connection to it.

        Raises:
            ComfyError: as `wait_ready`.
        """
        self.wait_ready()
        self._engine.disconnect()

    def wake(self) -> None:
        """Go on after a restore. A ComfyUI that does not answer any more is started anew, without waiting for it."""
        if self._engine.process is not None and not self._engine.is_answering():
            logger.warning("ComfyUI has not outlived the snapshot: it is started anew")
            self._engine.replace(self.starts)

    def kill_api(self) -> None:
        """Stop ComfyUI and everything it started, close the websocket, and forget this instance."""
        with ComfyConnector._creation:
            if type(self)._instance is self:
                type(self)._instance = None
        self._engine.close()

    def close(self) -> None:
        """Do the same as `kill_api`."""
        self.kill_api()

    # Running workflows.

    def run(
        self,
        workflow: Mapping[str, Any] | str,
        *,
        inputs: Mapping[str, Any] | None = None,
        deadline_s: float | None = None,
        execution_s: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_output: Callable[[Output], None] | None = None,
        on_log: Callable[[Sequence[str]], None] | None = None,
        prompt_id: str | None = None,
        extra_data: Mapping[str, Any] | None = None,
        apart_as: str | None = None,
        recalls_as: str = "",
    ) -> Execution:
        """Run a workflow to its end. Blocks; several threads may call it.

        `%date:yyyy-MM-dd%` and `%KSampler.seed%` in the `filename_prefix` of ComfyUI's savers are filled in, as the
        editor does. A workflow during which ComfyUI crashed or ran out of memory is run once more. Its outputs are what
        its nodes showed and the files that it has made; a file that a node names and has not made is a warning.

        Args:
            workflow: as the editor saves it, which is converted and goes along, so that pictures can be opened in the
                editor again (its dynamic prompts are rolled anew for each `prompt_id`); or in API format. In any
                wrapper (`graph.wrappers`). Or the name of a file in WORKFLOWS_DIR, or in `workflows/`: `"poster"`.
            inputs: of a workflow that is named, values by the names of its inputs: `{"prompt": "a fox"}`; a file by
                its path. ComfyUI must answer then; the time that it takes to start is not of `deadline_s`.
            deadline_s: seconds it may take altogether; then it is interrupted.
            execution_s: seconds it may execute, not counting the wait for other workflows.
            on_progress: called in this thread with every new snapshot.
            on_output: called in this thread as soon as an output exists. A repeated run calls it again: only the
                outputs of the `Execution` count.
            on_log: called in this thread at the end, with the last lines that ComfyUI wrote during the run; none of a
                ComfyUI elsewhere.
            prompt_id: a lower-case UUID of your own, for `cancel`.
            extra_data: passed on to ComfyUI, e.g. `{"extra_pnginfo": {…}}`.
            apart_as: a name, for a run that shares ComfyUI with strangers: its savers write into a folder of that
                name, its files leave ComfyUI's folders with its end and are kept until `discard`, and what a node
                recalls of an earlier run under another name does not count.
            recalls_as: a name, for a run that is apart: what nodes have read for runs of another such name, from
                folders, services or embeddings, is read anew.

        Raises:
            ComfyError: one of `comfy_serverless.errors`; its `.outputs` has what was made before the failure.
        """
        run = self._new_run(
            self._named(workflow, inputs),
            prompt_id=prompt_id,
            deadline_s=deadline_s,
            execution_s=execution_s,
            on_progress=on_progress,
            on_output=on_output,
            on_log=on_log,
            extra_data=extra_data,
            apart_as=apart_as,
            recalls_as=recalls_as,
        )
        return self._execute(run)

    def _named(self, workflow: Mapping[str, Any] | str, inputs: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """The workflow that a name means on this machine, with its inputs; or the workflow itself."""
        if not isinstance(workflow, str):
            if inputs:
                raise InvalidRequest("`inputs` are for a workflow that is named: put the values into this one itself.")
            return workflow
        from comfy_serverless import workflow_here  # it knows what names are; nothing here does

        self.wait_ready()
        found: Mapping[str, Any] = workflow_here(
            workflow, inputs or {}, connector=self, folder=self._settings.workflows_dir
        )
        return found

    async def arun(
        self,
        workflow: Mapping[str, Any] | str,
        *,
        inputs: Mapping[str, Any] | None = None,
        deadline_s: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_output: Callable[[Output], None] | None = None,
        prompt_id: str | None = None,
        extra_data: Mapping[str, Any] | None = None,
    ) -> Execution:
        """Run a workflow as `run` does, while the event loop goes on; callbacks are called in the loop's thread.

        A task that is canceled, also by a timeout, cancels the run, and ends when ComfyUI has confirmed that, or after
        a few seconds. An exception of a callback cancels the run, too, and is raised here.

        Raises:
            ComfyError: as `run`.
        """
        async with InThread() as thread:
            run = self._new_run(
                await asyncio.to_thread(self._named, workflow, inputs),
                prompt_id=prompt_id,
                deadline_s=deadline_s,
                on_progress=thread.called_in_loop(on_progress),
                on_output=thread.called_in_loop(on_output),
                extra_data=extra_data,
            )
            return await thread.result_of(lambda: self._execute(run), cancel=run.cancel)

    def _new_run(
        self,
        workflow: Mapping[str, Any],
        *,
        prompt_id: str | None,
        deadline_s: float | None,
        extra_data: Mapping[str, Any] | None,
        **arguments: Any,  # noqa: ANN401  (those of `WorkflowRun`)
    ) -> WorkflowRun:
        found = unwrap(workflow) or Unwrapped(workflow)
        run_id = checked_prompt_id(prompt_id)
        graph: dict[str, Any] = {}
        notes: tuple[str, ...] = ()
        beside, convert = found.extra_data, None
        if is_of_editor(found.workflow):
            check_editor_format(found.workflow)
            beside, now = with_saved(found), datetime.now().astimezone()
            convert = lambda: converted_to_submit(self._in_api_format(found, seed=run_id, now=now), now=now)  # noqa: E731
        else:
            graph, notes = graph_to_submit(found.workflow)
        return WorkflowRun(
            graph,
            engine=self._engine,
            run_id=run_id,
            deadline=deadline_in(deadline_s),
            stall_s=self._settings.stall_s,
            extra_data=finite(merged(extra_data or {}, beside)),
            notes=(*found.left_out(), *notes),
            convert=convert,
            **arguments,
        )

    def _execute(self, run: WorkflowRun) -> Execution:
        with self._lock:
            if run.run_id in self._runs:
                raise InvalidRequest(f"prompt {run.run_id} is running already")
            self._runs[run.run_id] = run
        try:
            run.make_graph(self._wait_ready)
            with self._upkeep.run(run.graph):
                return run.execute(wait_ready=self._wait_ready)
        finally:
            with self._lock:
                self._runs.pop(run.run_id, None)

    def cancel(self, prompt_id: str) -> bool:
        """Ask a run of this connector to end; its `run` raises `Canceled` once ComfyUI has confirmed.

        Returns:
            False if nothing runs under that id (any more).
        """
        with self._lock:
            run = self._runs.get(prompt_id)
        if run is None:
            return False
        run.cancel()
        return True

    def may_overlap(self, workflow: Mapping[str, Any]) -> bool:
        """Whether another job of the same owner may wait in ComfyUI's queue while this graph runs.

        False as long as ComfyUI has not declared all its classes, which it is asked for when they first run, and where
        a moment is wanted in which nothing runs.
        """
        return may_overlap(workflow, self._engine.known_declared()) and not self._upkeep.wants_a_moment()

    def generate_images(
        self, payload: Mapping[str, Any] | str, *, inputs: Mapping[str, Any] | None = None
    ) -> list[Image.Image]:
        """Run a workflow, given as to `run`, and return all its images, previews included, in the order of its nodes.

        The original printed a failure and returned None; this method raises it.

        Raises:
            ComfyError: the workflow was refused, or failed.
        """
        return self.run(payload, inputs=inputs).images

    def convert(
        self, workflow: Mapping[str, Any], *, supplied: Mapping[str, Any] | None = None, seed: str | None = None
    ) -> Conversion:
        """The graph (API format) of a workflow that the editor saved, to be edited, by what ComfyUI declares.

        `run({"prompt": graph, "workflow": workflow})` runs it so that its pictures can be opened in the editor again.

        Args:
            workflow: in any wrapper. One in API format is returned as it is.
            supplied: values for what only a browser knows, e.g. `{"4.image": "photo.png"}` for a WebcamCapture.
            seed: what dynamic prompts are rolled from; None takes the first alternative of each.

        Raises:
            UiFormatWorkflow: it cannot be converted; every reason is in `details["reasons"]`.
            EngineUnavailable: ComfyUI did not start, or cannot be asked.
        """
        from comfy_serverless.graph.convert import Conversion

        found = unwrap(workflow) or Unwrapped(workflow)
        if not is_of_editor(found.workflow):
            return Conversion(workflow_module.check_format(found.workflow), ())
        self.wait_ready()
        readable = self._in_api_format(found, supplied=supplied, seed=seed, now=datetime.now().astimezone())
        return Conversion(dict(readable.found.workflow), readable.warnings)

    def _in_api_format(
        self, found: Unwrapped, *, seed: str | None, now: datetime, supplied: Mapping[str, Any] | None = None
    ) -> Readable:
        """The workflow by what the engine declares, which answers. Raises as `in_api_format`."""
        try:
            return in_api_format(found, self.object_info(), supplied=supplied, seed=seed, now=now)
        except UiFormatWorkflow as error:
            raise with_hint(error, is_embedded=self._engine.is_embedded) from None

    def queue_prompt(self, prompt: Mapping[str, Any]) -> dict[str, Any]:
        """Queue a workflow without waiting: `{"prompt_id": …, "number": …, "node_errors": …}`.

        Raises:
            UiFormatWorkflow: the editor saved it, and it cannot be converted.
            InvalidWorkflow: ComfyUI refuses it; the message has every error of every node.
            EngineUnavailable: ComfyUI gives no usable answer; the workflow may be queued all the same.
        """
        self.wait_ready()
        found = Unwrapped(prompt)
        if is_of_editor(prompt):
            found = self._in_api_format(found, seed=str(uuid.uuid4()), now=datetime.now().astimezone()).found
        self._engine.silent_classes.doubt(found.workflow)
        try:
            answer = self._engine.client.submit(
                found.workflow, client_id=self._engine.events.connect(), extra_data=finite(found.extra_data)
            )
        except RequestFailed as failure:
            server = self._engine.server
            raise submit_failure(failure, server) or unavailable(failure, server) from failure
        except NoWebsocket as error:
            raise EngineUnavailable(str(error)) from error
        if not answer.accepted:
            raise refusal(answer.error, answer.node_errors)
        return {"prompt_id": answer.prompt_id, "number": answer.number, "node_errors": dict(answer.node_errors)}

    # Reading and editing workflows, as in the original.

    load_payload = staticmethod(workflow_module.load_payload)
    find_output_node = staticmethod(workflow_module.find_output_node)
    replace_key_value = staticmethod(workflow_module.replace_key_value)
