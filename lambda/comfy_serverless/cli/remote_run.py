"""Runs a workflow on the API that COMFY_BASE_URL names, for `comfy-serverless run --remote`.

file ──► graph ──► files are uploaded ──► job ──► followed to its end ──► outputs downloaded
  └─► of the editor: the API says what         └──► Ctrl-C asks the API to cancel it
      it becomes, if options mean inputs of it
"""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_serverless.cli import remote
from comfy_serverless.cli.assignments import put
from comfy_serverless.cli.converting import converted, supplied_by
from comfy_serverless.cli.documents import Document, read_document
from comfy_serverless.cli.fetching import Fetched, check_fetched, fetch_all, print_fetched
from comfy_serverless.cli.following import failure_of, follow
from comfy_serverless.cli.habits import one_line, print_json, say
from comfy_serverless.cli.progress_line import ProgressLine
from comfy_serverless.cli.wishes import Files, Wishes, check_files, check_folder, origin, wishes_of
from comfy_serverless.errors import EngineUnavailable, InvalidRequest, NotFound, UpstreamError
from comfy_serverless.graph.file_inputs import ASSET_TYPE
from comfy_serverless.graph.lookup import NodeLookup
from comfy_serverless.graph.typed import Untyped, from_json
from comfy_serverless.graph.workflow import copy_graph
from comfy_serverless.worker.inputs.plan import plan_inputs, with_mask_inputs

if TYPE_CHECKING:
    from comfy_serverless.worker.inputs.plan import Origin

#: A job that was just sent may not be known yet when it is to be canceled.
_CANCEL_AGAIN_S = (0.5, 1.0, 2.0)
#: What a request may have beside the workflow, and the API takes from here.
_SENT = ("models", "metadata")


def run(options: argparse.Namespace) -> int:
    """Run the workflow and save its outputs, also those made before a failure. Returns the exit code."""
    api = remote.Api.from_environment()
    document = read_document(options.workflow, elsewhere=True)
    kind = _named if document.named else _of_editor if document.editors else _of_graph
    wishes, fields = kind(api, document, options)
    request = _request(document, wishes, options) | fields
    job = _run_job(api, request)
    return finish(api, job, wishes.notes, options=options)


def finish(api: remote.Api, job: Mapping[str, Any], notes: Sequence[str], *, options: argparse.Namespace) -> int:
    """Save what an ended job has made, and say it. Returns the exit code; raises what it has failed with."""
    fetched = fetch_all(api, remote.outputs(api, job), options.out)
    failure = failure_of(job)
    if failure is not None:
        _tell_kept(fetched)
        raise failure
    _report(job, fetched, notes, engine=f"{job.get('engine') or 'ComfyUI'} at {api.shown}", options=options)
    check_fetched(fetched, options.out)
    return 0


def _of_graph(api: remote.Api, document: Document, options: argparse.Namespace) -> tuple[Wishes, dict[str, Any]]:
    """What is asked for of a graph, and what the request has for it: the graph with everything in it."""
    wishes = wishes_of(document, options.assignments)
    graph = _checked(wishes, options)
    given, addresses = _uploaded(api, graph, wishes.files)
    return wishes, {"workflow": _with(graph, given), "inputs": addresses}


def _of_editor(api: remote.Api, document: Document, options: argparse.Namespace) -> tuple[Wishes, dict[str, Any]]:
    """The same of what the editor saved. It is sent as it is: the API, or a worker, converts it.

    What the options mean is found in what it becomes.
    """
    if not options.assignments:
        check_folder(options.out)
        wishes = Wishes({}, (), {})
        for warning in document.warnings:
            wishes.note(warning)
        return wishes, {
            "workflow": document.editors,
            "set": dict(document.values),
            "inputs": dict(document.inputs),
        }
    try:
        conversion = remote.convert(api, document.editors, supplied=supplied_by(document, options.assignments))
    except EngineUnavailable:
        return _unconverted(api, document, options)
    readable = converted(document, replace(conversion, warnings=()))  # the job has the warnings
    wishes = wishes_of(readable, options.assignments)
    graph = _checked(wishes, options)
    given, addresses = _uploaded(api, graph, wishes.files)
    if any(name not in graph[node_id]["inputs"] for node_id, name in given):  # a mask, which no `set` can give
        return wishes, {"workflow": _with(graph, given), "inputs": addresses, "extra_data": dict(readable.extra_data)}
    targets = [target for one in wishes.values for target in one.targets]
    given = {(node_id, name): graph[node_id]["inputs"][name] for node_id, name in targets} | given
    values = {f"{node_id}.{name}": value for (node_id, name), value in given.items()}
    return wishes, {"workflow": document.editors, "set": {**document.values, **values}, "inputs": addresses}


def _unconverted(api: remote.Api, document: Document, options: argparse.Namespace) -> tuple[Wishes, dict[str, Any]]:
    """The same as long as no worker has told which nodes it has: what the options mean, a worker finds.

    Raises EngineUnavailable for a `--set`: what its text means depends on what the input takes.
    """
    values, files = dict(document.values), dict(document.inputs)
    given: dict[str, list[Origin]] = {}
    for option, text in options.assignments:
        address, _, value = text.partition("=")
        if option == "--input":
            given.setdefault(address, []).append(origin(value))
        elif option == "--set-json":
            values[address] = _json_of(address, value)
        else:
            raise EngineUnavailable(
                f"--set {address}: no worker has told yet which nodes it has, so what this input takes is not known. "
                f"Give JSON, which needs no such knowledge (--set-json '{address}=20', or '{address}=\"a text\"'), or "
                "run a job first, of any workflow."
            )
    check_files(given)
    check_folder(options.out)
    uploaded, addresses = references(api, {**files, **given})
    wishes = Wishes({}, (), {})
    for note in (*document.warnings, "no worker has told yet which nodes it has: one checks the options when it runs"):
        wishes.note(note)
    return wishes, {"workflow": document.editors, "set": {**values, **uploaded}, "inputs": addresses}


def _json_of(address: str, text: str) -> Any:  # noqa: ANN401  (any JSON)
    try:
        return from_json(text)
    except Untyped as problem:
        raise InvalidRequest(f"--set-json {address} {problem}.") from problem


def _named(api: remote.Api, document: Document, options: argparse.Namespace) -> tuple[Wishes, dict[str, Any]]:  # noqa: ARG001
    """The same of a workflow that the API has and this machine has not: what the request says of it."""
    if options.assignments:
        option = options.assignments[0][0]
        raise InvalidRequest(
            f"{option}: which inputs the workflow {document.named[:200]!r} has, only the API knows: it is not on this "
            "machine. Write `set` and `inputs` into the request, or put the workflow into WORKFLOWS_DIR here."
        )
    check_folder(options.out)
    wishes = Wishes({}, (), {})
    for warning in document.warnings:
        wishes.note(warning)
    return wishes, {"workflow": document.named, "set": dict(document.values), "inputs": dict(document.inputs)}


def _checked(wishes: Wishes, options: argparse.Namespace) -> dict[str, Any]:
    """The graph with what is set in it. Raises for what does not fit, before a file is sent."""
    graph = put(wishes.graph, wishes.values, {})
    check_files(wishes.files)
    plan_inputs(graph, wishes.files)
    check_folder(options.out)
    return graph


def _request(document: Document, wishes: Wishes, options: argparse.Namespace) -> dict[str, Any]:
    """The job request, without its workflow and inputs. Its id is ours: so it can be canceled before it is answered."""
    left_out = [name for name in document.left_out if name not in (*_SENT, "job_id")]
    if left_out:
        wishes.note(f"the request's {', '.join(left_out)} mean nothing for a run from here")
    request = {name: document.beside[name] for name in _SENT if name in document.beside}
    request["job_id"] = document.beside.get("job_id") or f"run-{uuid.uuid4().hex}"
    if labels := dict(options.labels):
        request["metadata"] = {**request.get("metadata", {}), **labels}
    if document.extra_data:
        request["extra_data"] = dict(document.extra_data)
    deadline_s = document.deadline_s if options.deadline is None else options.deadline
    if deadline_s is not None:
        request["deadline_s"] = deadline_s
    return request


def _uploaded(
    api: remote.Api, graph: Mapping[str, Any], files: Files
) -> tuple[dict[tuple[str, str], Any], dict[str, Any]]:
    """References to the files, which are uploaded, by node id and input; and the inputs that are addresses."""
    lookup = NodeLookup(with_mask_inputs(graph))
    given, addresses = references(api, files)
    return {target: value for address, value in given.items() for target in lookup.resolve(address)[1]}, addresses


def references(api: remote.Api, files: Files) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands for the files, which are uploaded, by the address of the input; and the inputs that are addresses."""
    given: dict[str, Any] = {}
    addresses: dict[str, Any] = {}
    references: dict[Path, dict[str, Any]] = {}
    with ProgressLine("uploading") as line:
        for address, one in files.items():
            origins = [one] if isinstance(one, str | Path) else list(one)
            if not any(isinstance(origin, Path) for origin in origins):
                addresses[address] = origins[0] if len(origins) == 1 else origins
                continue
            if not all(isinstance(origin, Path) for origin in origins):
                raise InvalidRequest(f"{address} has files and addresses: give all as the one or all as the other.")
            value = [_reference(api, Path(origin), references, line) for origin in origins]
            given[address] = value[0] if len(value) == 1 else value
    return given, addresses


def _with(graph: Mapping[str, Any], given: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """The graph with these values in it."""
    filled = copy_graph(graph)
    for (node_id, name), value in given.items():
        filled[node_id]["inputs"][name] = value
    return filled


def _reference(api: remote.Api, path: Path, known: dict[Path, dict[str, Any]], line: ProgressLine) -> dict[str, Any]:
    """What stands for a file in a workflow; it is uploaded once."""
    from comfy_serverless.cli.uploading import upload_file

    if path not in known:
        show = lambda what, done, total: line.show(done / total, f"{what} {path.name}")  # noqa: E731
        asset = upload_file(api, path, show=show).asset
        known[path] = {"__type": ASSET_TYPE, "info": {"id": asset["id"]}}
    return known[path]


def _run_job(api: remote.Api, request: Mapping[str, Any]) -> dict[str, Any]:
    return followed(api, lambda: remote.submit(api, request), job_id=str(request["job_id"]))


def followed(api: remote.Api, submit: Callable[[], Mapping[str, Any]], *, job_id: str = "") -> dict[str, Any]:
    """Submit a job and follow it to its end. Ctrl-C asks the API to cancel it; a second one leaves it to itself.

    Args:
        submit: submits it; called again, it is the same job.
        job_id: its id; "" if only the answer says it.
    """
    with ProgressLine("sending") as line:
        try:
            job_id = str(submit()["id"])
            say(f"job {job_id}")
            return follow(api, job_id, line.show)
        except KeyboardInterrupt:
            line.show(0.0, "canceling")
            job_id = job_id or str(submit()["id"])
            _cancel(api, job_id)
            return follow(api, job_id, line.show)


def _cancel(api: remote.Api, job_id: str) -> None:
    """Ask for the end of a job. If the API does not know it, it was not taken: KeyboardInterrupt goes on."""
    for pause_s in (*_CANCEL_AGAIN_S, None):
        try:
            remote.cancel(api, job_id)
        except NotFound:
            if pause_s is None:
                raise KeyboardInterrupt from None
            remote.pause(pause_s)
        except UpstreamError as error:
            raise UpstreamError(
                f"{error.message}. The job may still run: `comfy-serverless jobs cancel {job_id}` ends it."
            ) from error
        else:
            return


def _tell_kept(fetched: Sequence[Fetched]) -> None:
    for one in fetched:
        if one.path is None:
            say(one_line(f"not saved: {one.output.get('name')}: {one.problem}"))
        else:
            say(one_line(f"made before the failure: {one.path}"))


def _report(
    job: Mapping[str, Any],
    fetched: Sequence[Fetched],
    notes: Sequence[str],
    *,
    engine: str,
    options: argparse.Namespace,
) -> None:
    """Say what was made, as a run here does. As JSON only if all of it was saved: else an error is."""
    is_whole = all(one.path is not None for one in fetched)
    warnings, seeds, total_ms = list(job.get("warnings") or ()), dict(job.get("seeds") or {}), total_ms_of(job)
    if options.json:
        if is_whole:
            print_json(
                {
                    "prompt_id": None,
                    "job_id": job["id"],
                    "engine": engine,
                    "outputs": [one.to_json() for one in fetched],
                    "warnings": [*notes, *warnings],
                    "seeds": seeds,
                    "total_ms": total_ms,
                }
            )
        return
    print_fetched(fetched)
    for warning in warnings:
        print(one_line(f"warning: {warning}"))
    for address, seed in seeds.items():
        print(f"{one_line(address)} = {seed} (drawn)")
    count = sum(one.path is not None for one in fetched)
    took = "" if total_ms is None else f" in {total_ms / 1000:.2f} s"
    print(f"{count} output{'' if count == 1 else 's'}{took} by {one_line(engine)}", flush=True)


def total_ms_of(job: Mapping[str, Any]) -> float | None:
    """How long a job took from its submission to its end; None if it does not say."""
    try:
        ends = [datetime.fromisoformat(str(job[name])) for name in ("created_at", "completed_at")]
    except (KeyError, ValueError):
        return None
    return round((ends[1] - ends[0]).total_seconds() * 1000, 3)
