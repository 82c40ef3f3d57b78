"""What an unusable answer says about the server, and what to do about it. No IO.

nothing at all      it does not run there, or a proxy or a name stands between
a redirect          COMFYUI_URL names another place than ComfyUI's own
401, 403, 407       somebody wants to know who asks
404, 405, 410       another path, or another program
413                 what was sent is too large: the request's fault, not the server's
other 4xx           the request's fault, if it brings something
5xx                 what stands before ComfyUI finds it not, or ComfyUI broke on the request
no JSON             a web page: another program, or somebody's login
"""

from __future__ import annotations

from urllib.parse import urlsplit

from comfy_serverless.connector.client import RequestFailed, excerpt
from comfy_serverless.connector.refusals import refusal
from comfy_serverless.connector.server import Server
from comfy_serverless.errors import ComfyError, EngineUnavailable, MissingAsset

_WHO_ASKS = "user and password in COMFYUI_URL (percent-encoded), COMFYUI_TOKEN or COMFYUI_HEADERS"
#: A server that is busy, or has lost what stands behind it: the same request may do later.
_PASSING = frozenset({408, 425, 429, 502, 503, 504})


def unavailable(failure: RequestFailed, server: Server) -> EngineUnavailable:
    """The failure of a job, or of a call, whose engine gives no usable answer."""
    return EngineUnavailable(why_not(failure, server))


def submit_failure(failure: RequestFailed, server: Server) -> ComfyError | None:
    """The failure of a `POST /prompt` that was answered by neither 200 nor ComfyUI's own 400.

    Returns:
        None if undecided: the prompt must be looked for, and sent again if it is not there.
    """
    status = failure.status
    if status is None or status < 300:
        # The prompt may have been queued all the same.
        return None
    if status < 400 or status in (401, 403, 404, 405, 407, 410):
        return unavailable(failure, server)
    if status in (408, 425, 429) or status > 500:
        # A proxy in front of ComfyUI, or one of its limits: ComfyUI has not seen the workflow.
        return None
    # 413, or the bare 500 for a body that ComfyUI cannot read: it could not read it the next time either.
    said = f"{status} {excerpt(failure.text)}".strip()
    return refusal({"message": "ComfyUI cannot read the workflow", "details": said}, {})


def upload_failure(failure: RequestFailed, server: Server, name: str) -> ComfyError:
    """The failure of an input that ComfyUI does not take; what is the input's own fault begins with its name."""
    status = failure.status or 0
    if status == 413:
        return MissingAsset(
            f"{name} is too large for the ComfyUI at {server}: it answers 413 ({excerpt(failure.text)}). Start ComfyUI "
            "with a higher --max-upload-size, and let what stands before it take more (nginx: client_max_body_size), "
            "or send a smaller file"
        )
    if status in (400, 411, 414, 415, 422, 431):
        return MissingAsset(f"{name} is refused by the ComfyUI at {server}: {status} {excerpt(failure.text)}".rstrip())
    return unavailable(failure, server)


def too_large_to_upload(name: str, size_bytes: int, limit_bytes: int, server: Server) -> MissingAsset:
    """The failure of an input that is not sent, because ComfyUI says how much it takes."""
    return MissingAsset(
        f"{name} has {size_bytes:,} bytes, and the ComfyUI at {server} takes at most {limit_bytes:,} in one upload. "
        "Start it with a higher --max-upload-size (in MB; 100 by default), or send a smaller file"
    )


def is_final(status: int) -> bool:
    """Whether a server that answers with this status would answer so again."""
    return status not in _PASSING


def why_not(failure: RequestFailed, server: Server) -> str:
    """Why a server cannot be used, and what to do."""
    status = failure.status
    if status is None:
        return f"no ComfyUI answers at {named(server)}: {failure.reason}{_way(server, failure.reason)}"
    said = f"{status} {excerpt(failure.text)}".strip()
    if status in (401, 403, 407):
        return f"the server at {named(server)} {_refuses(status, said, server)}"
    if 300 <= status < 400:
        return f"the server at {named(server)} {_redirects(failure, server)}"
    if status in (404, 405, 410):
        return (
            f"there is no ComfyUI at {named(server)}: the server says {said}. Check the path in COMFYUI_URL: it "
            "is what stands before /prompt"
        )
    if status in _PASSING:
        return (
            f"the server at {named(server)} has no ComfyUI behind it at the moment: {said}. Check that ComfyUI runs "
            "there, and send it again"
        )
    if status < 300:
        return f"what answers at {named(server)} is not a ComfyUI: {failure}"
    return f"the server at {named(server)} cannot do it: {said}"


def no_websocket(status: int | None, reason: str, server: Server) -> str:
    """Why the websocket beside a server that answers does not open, and what to do."""
    where = f"the websocket at {server.websocket_url.partition('?')[0]} does not open"
    if status in (401, 403):
        return f"{where}, although {server} answers: it {_refuses(status, reason, server)}"
    if status is None:
        return f"{where}: {reason}{_way(server, reason)}"
    return (
        f"{where}, although {server} answers: {reason}. What stands between must let websockets through: pass on the "
        "headers Upgrade and Connection for this path (nginx: proxy_http_version 1.1, proxy_set_header Upgrade)"
    )


def named(server: Server) -> str:
    """A server, with the setting that names it, if one does, and the proxy before it."""
    if not server.is_elsewhere:
        return str(server)
    return f"{server} (COMFYUI_URL{f', through the proxy {server.proxy}' if server.proxy is not None else ''})"


def _refuses(status: int, said: str, server: Server) -> str:
    if status == 407:
        return f"is behind a proxy that requires credentials: {said}. Give them in HTTP_PROXY or HTTPS_PROXY"
    has_said = any(name.lower() == "authorization" for name in server.headers)
    if status == 401:
        what = "does not take the credentials it was given" if has_said else "requires credentials"
    else:
        what = "does not let us in"
    return f"{what}: {said}. Give credentials as {_WHO_ASKS}"


def _redirects(failure: RequestFailed, server: Server) -> str:
    to = failure.leads_to
    start = f"sends us elsewhere: {failure.status}{f' to {to}' if to else ''}"
    is_secured = server.scheme == "http" and to.startswith("https://")
    if is_secured and urlsplit(to).hostname == server.host:
        return f"{start}. Write https:// in COMFYUI_URL"
    place = "https:// in COMFYUI_URL, and the host" if is_secured else "into COMFYUI_URL"
    return f"{start}. If that is a login, set {_WHO_ASKS}; else write {place} where ComfyUI itself answers"


def _way(server: Server, reason: str) -> str:
    """What to look at when there was no answer."""
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return ". Name the authority that has signed its certificate in SSL_CERT_FILE"
    if "WRONG_VERSION_NUMBER" in reason:
        return ". It speaks no TLS there: write http:// in COMFYUI_URL, or the port that speaks it"
    if server.proxy is not None:
        return f". If there is a direct way, name {server.host} in NO_PROXY"
    return ". Check that it runs and listens there" if server.is_elsewhere else ""
