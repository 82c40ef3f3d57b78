"""The API over HTTP, as the commands use it: one function for each operation, by the contract and with our additions.

`remote_api` is the way there; links to files are asked without the key. What answers mean as errors is in
`remote_answers`. It knows no AWS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin
from uuid import uuid4

import requests

from comfy_serverless.cli.habits import one_line, say
from comfy_serverless.cli.remote_answers import Document, object_in, reason_of
from comfy_serverless.cli.remote_answers import error_of as error_of  # of jobs, too: the commands tell it
from comfy_serverless.cli.remote_api import Api as Api
from comfy_serverless.errors import InvalidRequest, NotFound, UiFormatWorkflow, UpstreamError
from comfy_serverless.redaction import redact_url

if TYPE_CHECKING:
    from comfy_serverless.graph.convert import Conversion

#: The pauses before a request is sent again, in seconds, and how long all of them may take together.
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
PATIENCE_S = 150.0
#: Without any connection it is given up sooner: mostly the address is wrong.
_UNREACHED_PAUSES = 3
#: A wait from here on is said.
_LONG_WAIT_S = 5.0
_TRANSIENT = frozenset({429, 502, 503, 504})
#: Without these fields an answer is none of the API's.
_JOB, _TARGET = ("id", "status"), ("id", "method", "url", "headers")


def submit(api: Api, request: Mapping[str, Any]) -> Document:
    """Submit a job request with a `job_id`, and do not wait for its end. Sent twice, it is the same job."""
    return ask(api, "POST", "/generate", _JOB, json={**request, "wait_s": 0})


def convert(
    api: Api, workflow: Mapping[str, Any], *, supplied: Mapping[str, Any] | None = None, seed: str | None = None
) -> Conversion:
    """What the editor saved, converted by what the API's workers declare. Arguments, and errors, as of `graph.convert`.

    Raises EngineUnavailable if no worker has told yet what it has.
    """
    try:
        return _convert(api, workflow, {}, seed)
    except UiFormatWorkflow as error:
        if not (needed := _needed(error, supplied or {})):
            raise
        return _convert(api, workflow, needed, seed)


def _convert(api: Api, workflow: Mapping[str, Any], values: Mapping[str, Any], seed: str | None) -> Conversion:
    from comfy_serverless.graph.convert import Conversion  # what commands seldom need takes a while to load

    fields = {"workflow": workflow, "set": dict(values), "seed": seed}
    body = {name: value for name, value in fields.items() if value}
    # That no worker has told anything does not pass while this waits.
    transient = _TRANSIENT - {HTTPStatus.SERVICE_UNAVAILABLE}
    needs = ("workflow", "warnings")
    document = ask(api, "POST", "/api/v2/workflows/convert", needs, transient=transient, json=body)
    return Conversion(dict(document["workflow"]), tuple(map(str, document["warnings"])))


def _needed(error: UiFormatWorkflow, supplied: Mapping[str, Any]) -> dict[str, Any]:
    """What of it the file cannot have, and its conversion has asked for; the API would put the rest into the graph."""
    needed: dict[str, Any] = {}
    for reason in error.details.get("reasons") or ():
        node_id, class_type, name = (reason.get(part) for part in ("node_id", "class_type", "input"))
        address = next((one for one in (f"{node_id}.{name}", f"{class_type}.{name}") if one in supplied), None)
        if address is not None:
            needed[f"{node_id}.{name}"] = supplied[address]
    return needed


def needs(api: Api, request: Mapping[str, Any]) -> Document:
    """What a workflow needs, by what the API's workers have."""
    return ask(api, "POST", "/api/v2/workflows/needs", ("models", "nodes", "missing"), json=dict(request))


def job(api: Api, job_id: str) -> Document:
    """A job, with its progress and outputs."""
    return ask(api, "GET", f"/api/v2/jobs/{quote(job_id, safe='')}", _JOB)


def again(api: Api, job_id: str, *, seed: str) -> Document:
    """Run the request of a job again. Returns the new job; sent twice, it is one."""
    path = f"/api/v2/jobs/{quote(job_id, safe='')}/again"
    return ask(api, "POST", path, _JOB, json={"seed": seed}, headers={"Idempotency-Key": str(uuid4())})


def cancel(api: Api, job_id: str) -> Document:
    """Ask for the end of a job, and return it as it is now. An ended one stays as it is."""
    return ask(api, "POST", f"/api/v2/jobs/{quote(job_id, safe='')}/cancel", _JOB)


def jobs(
    api: Api,
    *,
    limit: int,
    cursor: str | None = None,
    status: str | None = None,
    labels: Mapping[str, str] | None = None,
    expand: str | None = None,
) -> Document:
    """A page of jobs, newest first, with the `next_cursor` of the following one.

    `expand` is what is told of each beyond its entry; an API that is older than that is asked without.
    """
    query = {"limit": limit, "cursor": cursor, "status": status, "expand": expand}
    query |= {f"metadata[{name}]": value for name, value in (labels or {}).items()}
    params = {name: value for name, value in query.items() if value}
    try:
        return ask(api, "GET", "/api/v2/jobs", ("jobs",), params=params)
    except InvalidRequest as refusal:
        if expand is None or "query.expand" not in refusal.message:
            raise
    return jobs(api, limit=limit, cursor=cursor, status=status, labels=labels)


def log_of(api: Api, job_id: str) -> Document:
    """What is kept of ComfyUI's lines during a job."""
    return ask(api, "GET", f"/api/v2/jobs/{quote(job_id, safe='')}/log", ("lines", "is_complete"))


def outputs(api: Api, found: Mapping[str, Any]) -> Iterator[Document]:
    """All outputs of a job: those that its document has, or page by page if it has not all."""
    listed = list(found.get("outputs") or ())
    if found.get("outputs_total") in (None, len(listed)):
        yield from listed
        return
    cursor: str | None = None
    while True:
        query = {"limit": 1000, **({"cursor": cursor} if cursor else {})}
        path = f"/api/v2/jobs/{quote(str(found['id']), safe='')}/outputs"
        page = ask(api, "GET", path, ("outputs",), params=query)
        yield from page["outputs"]
        cursor = page.get("next_cursor")
        if not cursor:
            return


def has_bytes(api: Api, digest: str, naming: Mapping[str, Any]) -> Document | None:
    """A record over bytes that the API has; None if it does not have them."""
    answer = _answer(api, "HEAD", f"/api/v2/assets/by-hash/{digest}")
    if answer.status_code == HTTPStatus.NOT_FOUND:
        return None
    if not answer.ok:
        raise api.refusal(answer)
    try:
        return ask(api, "POST", "/api/v2/assets/from-hash", ("id",), json={**naming, "hash": digest})
    except NotFound:
        return None  # deleted meanwhile


def begin_upload(api: Api, upload: Mapping[str, Any]) -> Document:
    """Announce a file. Returns where to put its bytes."""
    return ask(api, "POST", "/api/v2/uploads", _TARGET, json=dict(upload))


def put_bytes(api: Api, target: Mapping[str, Any], content: Callable[[], Any]) -> None:
    """Put the bytes of a file where `begin_upload` has said.

    Args:
        content: opens the file anew, for each attempt.
    """
    answer = _patiently(
        lambda: api.send(
            str(target["method"]), str(target["url"]), with_key=False, data=content(), headers=target["headers"]
        ),
        what="the store of uploads",
        transient=_TRANSIENT | {500},
    )
    if not answer.ok:
        raise UpstreamError(f"the file was refused with {answer.status_code}: {one_line(answer.text[:500])}")


def complete_upload(api: Api, target: Mapping[str, Any]) -> Document:
    """Let the API check the bytes and register them."""
    return ask(api, "POST", f"/api/v2/uploads/{quote(str(target['id']), safe='')}/complete", ("id",))


def open_output(api: Api, output: Mapping[str, Any], *, start: int = 0) -> requests.Response:
    """The bytes of an output from a position on, as a stream: by its link or, if that does not work, by a fresh one."""
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}

    def ask(url: str) -> requests.Response:
        what = redact_url(url)
        send = lambda: api.send("GET", url, with_key=api.is_own(url), stream=True, headers=headers)  # noqa: E731
        return _patiently(send, what=what)

    wanted = HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK
    if link := output.get("url"):
        answer = ask(urljoin(api.base_url, str(link)))
        if answer.status_code == wanted:
            return answer
        answer.close()
    answer = ask(f"{api.base_url}/api/v2/assets/{quote(str(output['id']), safe='')}/content")
    if answer.is_redirect:
        answer.close()
        answer = ask(urljoin(api.base_url, answer.headers["location"]))
    if answer.status_code != wanted:
        raise api.refusal(answer)
    return answer


def ask(
    api: Api,
    method: str,
    path: str,
    needs: tuple[str, ...],
    *,
    transient: frozenset[int] = _TRANSIENT,
    **arguments: Any,  # noqa: ANN401
) -> Document:
    """The JSON object that an operation answers, with the fields in `needs`; {} if it answers nothing, and none is
    needed. Raises ComfyError for everything else.
    """
    answer = _answer(api, method, path, transient=transient, **arguments)
    if answer.status_code == HTTPStatus.NO_CONTENT and not needs:
        return {}
    document = object_in(answer.text) if answer.ok and not answer.is_redirect else None
    if document is None or not all(name in document for name in needs):
        raise api.refusal(answer)
    return document


def _answer(
    api: Api,
    method: str,
    path: str,
    *,
    transient: frozenset[int] = _TRANSIENT,
    **arguments: Any,  # noqa: ANN401
) -> requests.Response:
    send = lambda: api.send(method, api.base_url + path, with_key=True, **arguments)  # noqa: E731
    return _patiently(send, what=api.shown, transient=transient)


def _patiently(
    send: Callable[[], requests.Response], *, what: str, transient: frozenset[int] = _TRANSIENT
) -> requests.Response:
    """Send a request, again after a while if it was not its fault. Every one of ours may be sent twice.

    Returns:
        The first answer that is no transient one, or the last one.

    Raises:
        UpstreamError: there was no answer.
    """
    left_s, trouble = PATIENCE_S, None
    for number, pause_s in enumerate((*PAUSES_S, None)):
        answer, trouble = None, None
        try:
            answer = send()
        except requests.RequestException as error:
            trouble = error
        if answer is not None and (answer.status_code not in transient or _lasts(answer)):
            return answer
        asked_s = _retry_after_s(answer)
        wait_s = max(pause_s or 0.0, asked_s or 0.0)
        is_last = pause_s is None or wait_s > left_s or (trouble is not None and number >= _UNREACHED_PAUSES)
        if is_last and answer is not None:
            return answer
        if is_last:
            break
        if answer is not None:
            answer.close()
        if wait_s >= _LONG_WAIT_S:
            reason = "does not answer" if answer is None else f"answers {answer.status_code}"
            say(one_line(f"{what} {reason}: asked again in {wait_s:.0f} s"))
        pause(wait_s)
        left_s -= wait_s
    raise UpstreamError(f"{what} cannot be reached, or has broken off: {reason_of(trouble)}") from trouble


def _lasts(answer: requests.Response) -> bool:
    """Whether the API says that nobody has told yet which nodes there are: no waiting helps, but a job does."""
    told = (object_in(answer.text) or {}).get("error")
    return isinstance(told, dict) and told.get("code") == "engine_unavailable"


def pause(seconds: float) -> None:
    """Wait before something is asked again."""
    time.sleep(seconds)


def _retry_after_s(answer: requests.Response | None) -> float | None:
    text = "" if answer is None else answer.headers.get("retry-after", "")
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()) if text else None
    except (ValueError, TypeError):
        return None
