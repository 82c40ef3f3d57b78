"""The HTTP interface: every route under its name and under ``/api``, with ComfyUI's statuses and bodies.

As in ComfyUI, an exception in a handler becomes a plain-text 500: nothing here turns odd bodies into polite errors.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from comfy_lite import __version__
from comfy_lite.faults import FaultPoint, Faults, add_fault_routes
from comfy_lite.files import FileRoutes
from comfy_lite.node import Directories, NodeType
from comfy_lite.object_info import describe, model_folder_names, model_folders, models_in, system_stats
from comfy_lite.prompt_queue import PromptQueue
from comfy_lite.releases import NEWEST, Release
from comfy_lite.run import Interrupts
from comfy_lite.sockets import SocketHub
from comfy_lite.validation import validate_prompt

logger = logging.getLogger("comfy_lite")

_PAGE = f"""<!doctype html><title>comfy_lite</title>
<h1>comfy_lite {__version__}</h1>
<p>This is the embedded engine of comfy-serverless. It speaks the HTTP and websocket interface of ComfyUI
{NEWEST.version} and runs its image nodes, but no models, and it has no editor. Send workflows to
<code>POST /prompt</code>; <a href="/object_info">/object_info</a> lists the nodes.</p>
"""
_NO_UUID = {
    "type": "invalid_prompt_id",
    "message": "prompt_id must be a valid UUID",
    "details": "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
    "omit it to let the server generate one",
    "extra_info": {},
}


class Server:
    """The routes for prompts and facts about the engine. Handlers run on the event loop and never wait for nodes."""

    def __init__(
        self,
        *,
        nodes: Mapping[str, NodeType],
        directories: Directories,
        queue: PromptQueue,
        hub: SocketHub,
        interrupts: Interrupts,
        faults: Faults,
        features: Mapping[str, Any],
        release: Release,
    ) -> None:
        self._nodes = nodes
        self._directories = directories
        self._queue = queue
        self._hub = hub
        self._interrupts = interrupts
        self._faults = faults
        self._features = features
        self._release = release
        self._number = 0

    def application(self, *, max_upload_bytes: float, with_fault_routes: bool) -> web.Application:
        """The aiohttp application with all routes."""
        app = web.Application(
            client_max_size=round(max_upload_bytes), middlewares=[self._same_site_only, self._slow_down]
        )
        files = FileRoutes(self._directories, guards_downloads=self._release.guards_downloads)
        for prefix in ("", "/api"):
            self._add_routes(app.router, prefix)
            files.add_to(app, prefix)
        if self._release.cancels_jobs:
            app.router.add_post("/api/jobs/cancel", self.cancel_jobs)
            app.router.add_post("/api/jobs/{prompt_id}/cancel", self.cancel_job)
        if with_fault_routes:
            add_fault_routes(app, self._faults)
        app.router.add_get("/", _page)
        app.router.add_get("/{path:.*}", _not_found)
        return app

    def _add_routes(self, router: web.UrlDispatcher, prefix: str) -> None:
        router.add_get(f"{prefix}/ws", self._hub.handle)
        router.add_get(f"{prefix}/prompt", self.get_prompt)
        router.add_post(f"{prefix}/prompt", self.post_prompt)
        router.add_get(f"{prefix}/queue", self.get_queue)
        router.add_post(f"{prefix}/queue", self.post_queue)
        router.add_get(f"{prefix}/history", self.get_history)
        router.add_get(f"{prefix}/history/{{prompt_id}}", self.get_history_of)
        router.add_post(f"{prefix}/history", self.post_history)
        router.add_post(f"{prefix}/interrupt", self.interrupt)
        router.add_post(f"{prefix}/free", self.free)
        router.add_get(f"{prefix}/object_info", self.object_info)
        router.add_get(f"{prefix}/object_info/{{class_type}}", self.object_info_of)
        router.add_get(f"{prefix}/system_stats", self.system_stats)
        router.add_get(f"{prefix}/features", self.features)
        router.add_get(f"{prefix}/models", self.models)
        router.add_get(f"{prefix}/models/{{folder}}", self.models_in)
        router.add_get(f"{prefix}/experiment/models", self.model_folders)
        router.add_get(f"{prefix}/embeddings", self.nothing)
        router.add_get(f"{prefix}/extensions", self.nothing)

    async def get_prompt(self, _: web.Request) -> web.Response:
        return web.json_response(self._queue.status())

    async def post_prompt(self, request: web.Request) -> web.Response:
        """Check a prompt and queue it: 200 with its id and number, or 400 with the reasons."""
        body = await request.json()
        self._faults.strike(FaultPoint.PROMPT)
        has_prompt = "prompt" in body  # a list or a text has none; null and numbers raise: 500
        number = self._next_number(body if isinstance(body, dict) else {})
        if not has_prompt:
            error = {"type": "no_prompt", "message": "No prompt provided", "details": "No prompt provided"}
            return _refusal({**error, "extra_info": {}}, {})
        prompt, targets = body["prompt"], body.get("partial_execution_targets")
        prompt_id = self._prompt_id(body)
        if prompt_id is None:
            return _refusal(_NO_UUID, {})
        extra_data = body.get("extra_data", {})
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        if self._release.dates_prompts:
            extra_data["create_time"] = int(time.time() * 1000)
        verdict = validate_prompt(
            prompt, nodes=self._nodes, directories=self._directories, targets=targets, release=self._release
        )
        if verdict.error is not None:
            logger.warning("prompt refused: %s", verdict.error)
            return _refusal(verdict.error, verdict.node_errors)
        self._queue.put((number, prompt_id, prompt, extra_data, verdict.outputs))
        logger.info("prompt %s queued", prompt_id)
        if late_s := self._faults.take_late_answer_s():
            await asyncio.sleep(late_s)
        answer = {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}
        return web.json_response(answer)

    def _prompt_id(self, body: Mapping[str, Any]) -> str | None:
        """The client's id, or a new one. None if this release cannot take the client's."""
        if not self._release.needs_uuids:
            return str(body.get("prompt_id", uuid.uuid4()))
        given = body.get("prompt_id")
        if given is None:
            return str(uuid.uuid4())
        try:
            return given if isinstance(given, str) and str(uuid.UUID(given)) == given else None
        except ValueError:
            return None

    async def cancel_job(self, request: web.Request) -> web.Response:
        """End a prompt, whether it runs or waits."""
        return web.json_response({"cancelled": self._cancel(request.match_info["prompt_id"])})

    async def cancel_jobs(self, request: web.Request) -> web.Response:
        """End several prompts: ``{"job_ids": [ids]}``."""
        ids = (await request.json()).get("job_ids")
        if not isinstance(ids, list):
            return web.json_response({"error": "job_ids must be a list"}, status=400)
        invalid = [one for one in ids if self._prompt_id({"prompt_id": one}) != one]
        if invalid:
            return web.json_response({"error": "job_ids contains invalid id(s)", "invalid_ids": invalid}, status=400)
        return web.json_response({"cancelled": any(list(map(self._cancel, ids)))})

    def _cancel(self, prompt_id: str) -> bool:
        if self._queue.delete(prompt_id):
            return True
        if not self._queue.is_running(prompt_id):
            return False
        self._interrupts.ask()
        return True

    def _next_number(self, body: Mapping[str, Any]) -> float:
        """The place in the queue: the client's number, else the next one, which `front` makes negative."""
        if "number" in body:
            return float(body["number"])
        number, self._number = self._number, self._number + 1
        return -number if body.get("front") else number

    async def get_queue(self, _: web.Request) -> web.Response:
        running, pending = self._queue.snapshot(with_keys=not self._release.hides_keys_in_the_queue)
        return web.json_response({"queue_running": running, "queue_pending": pending})

    async def post_queue(self, request: web.Request) -> web.Response:
        """Drop waiting prompts: ``{"clear": true}`` or ``{"delete": [ids]}``."""
        body = await request.json()
        if body.get("clear"):
            self._queue.clear()
        for prompt_id in body.get("delete", ()):
            self._queue.delete(prompt_id)
        return web.Response(status=200)

    async def get_history(self, request: web.Request) -> web.Response:
        query = request.rel_url.query
        max_items = int(query["max_items"]) if "max_items" in query else None
        return web.json_response(self._queue.history(max_items=max_items, offset=int(query.get("offset", -1))))

    async def get_history_of(self, request: web.Request) -> web.Response:
        return web.json_response(self._queue.history_of(request.match_info["prompt_id"]))

    async def post_history(self, request: web.Request) -> web.Response:
        """Forget ended prompts: ``{"clear": true}`` or ``{"delete": [ids]}``."""
        body = await request.json()
        if body.get("clear"):
            self._queue.clear_history()
        for prompt_id in body.get("delete", ()):
            self._queue.forget(prompt_id)
        return web.Response(status=200)

    async def interrupt(self, request: web.Request) -> web.Response:
        """Stop the running prompt, or only the one the body names. 200 whether or not anything is stopped."""
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = {}
        prompt_id = body.get("prompt_id")
        if not prompt_id or self._queue.is_running(prompt_id):
            self._interrupts.ask()
        return web.Response(status=200)

    async def free(self, request: web.Request) -> web.Response:
        """Drop the cache if `free_memory` is set. There are no models to unload."""
        body = await request.json()
        if body.get("free_memory", False):
            self._queue.ask_for_memory()
        return web.Response(status=200)

    async def object_info(self, _: web.Request) -> web.Response:
        return web.json_response({name: describe(node, self._directories) for name, node in self._nodes.items()})

    async def object_info_of(self, request: web.Request) -> web.Response:
        name = request.match_info["class_type"]
        known = {name: describe(self._nodes[name], self._directories)} if name in self._nodes else {}
        return web.json_response(known)

    async def system_stats(self, _: web.Request) -> web.Response:
        return web.json_response(system_stats(self._release))

    async def features(self, _: web.Request) -> web.Response:
        return web.json_response(self._features)

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response(model_folder_names(self._release))

    async def model_folders(self, _: web.Request) -> web.Response:
        return web.json_response(model_folders(self._directories, self._release))

    async def models_in(self, request: web.Request) -> web.Response:
        files = models_in(request.match_info["folder"], self._nodes, self._directories, self._release)
        return web.Response(status=404) if files is None else web.json_response(files)

    async def nothing(self, _: web.Request) -> web.Response:
        """Return an empty list: this engine has no embeddings and no extensions."""
        return web.json_response([])

    @web.middleware
    async def _same_site_only(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests of foreign web pages to a server on this machine; answer every preflight request."""
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin", "")
        if host and origin and _is_foreign(host.lower(), origin.lower()):
            logger.warning("host %s and origin %s do not match: refused with 403", host, origin)
            return web.Response(status=403)
        if self._release.refuses_other_sites and request.headers.get("Sec-Fetch-Site") == "cross-site":
            return web.Response(status=403)
        return web.Response() if request.method == "OPTIONS" else await handler(request)

    @web.middleware
    async def _slow_down(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._faults.answer_delay_s:
            await asyncio.sleep(self._faults.answer_delay_s)
        return await handler(request)


def _refusal(error: Mapping[str, Any], node_errors: Mapping[str, Any]) -> web.Response:
    return web.json_response({"error": error, "node_errors": node_errors}, status=400)


async def _page(_: web.Request) -> web.Response:
    return web.Response(text=_PAGE, content_type="text/html")


async def _not_found(request: web.Request) -> web.StreamResponse:
    """Refuse any other path, in the form of a static file server: ComfyUI serves its editor's files there."""
    if request.path.startswith("//"):
        raise web.HTTPNotFound
    return web.FileResponse(Path(__file__).with_name("no such file"))


def _is_foreign(host: str, origin: str) -> bool:
    """Whether a loopback host is addressed from another origin. Ports count only if both name one."""
    here, there = urlsplit(f"//{host}"), urlsplit(origin)
    if not there.netloc or not _is_loopback(here.hostname or ""):
        return False
    if here.port is None or there.port is None:
        return here.hostname != there.hostname
    return here.netloc != there.netloc


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
