"""``python -m comfy_lite``: start the engine, and stop it as ComfyUI stops.

SIGTERM ends the process at once, without closing anything. SIGINT ends it with status 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from aiohttp import web

from comfy_lite import __version__
from comfy_lite.execution import Executor
from comfy_lite.faults import Faults
from comfy_lite.node import NodeType
from comfy_lite.nodes.renewed import nodes_of
from comfy_lite.object_info import features_of
from comfy_lite.options import Options, parse
from comfy_lite.prompt_queue import PromptQueue
from comfy_lite.run import Engine, Interrupts
from comfy_lite.server import Server
from comfy_lite.sockets import SocketHub

logger = logging.getLogger("comfy_lite")

_IDLE_WAIT_S = 1000.0
#: ComfyUI refuses chains of about 980 nodes, at Python's limit of 1000 frames. Ours need three frames for each node.
_DEEPEST_RECURSION = 3000


def main(arguments: Sequence[str] | None = None, *, nodes: Mapping[str, NodeType] | None = None) -> int:
    """Run the engine until a signal ends it. Returns the exit status. `nodes` adds to the built-in ones."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=options.log_level, format="%(message)s", stream=sys.stdout if options.log_stdout else sys.stderr
    )
    sys.setrecursionlimit(_DEEPEST_RECURSION)
    time.sleep(options.start_delay_s)
    try:
        asyncio.run(_serve(options, _offered({**nodes_of(options.release), **(nodes or {})}, options)))
    except KeyboardInterrupt:
        logger.info("\nStopped server")
        shutil.rmtree(options.directories.temp, ignore_errors=True)
    except OSError as error:
        logger.error("cannot start: %s", error)  # noqa: TRY400 - a port in use needs no traceback
        return 1
    return 0


def _offered(nodes: Mapping[str, NodeType], options: Options) -> Mapping[str, NodeType]:
    if options.custom_nodes:
        return nodes
    return {name: node for name, node in nodes.items() if not node.python_module.startswith("custom_nodes")}


async def _serve(options: Options, nodes: Mapping[str, NodeType]) -> None:
    features = features_of(options.release, options.max_upload_bytes)
    queue = PromptQueue(on_change=lambda: hub.send("status", {"status": queue.status()}, None))
    hub = SocketHub(features=features, queue_status=queue.status)
    interrupts, faults = Interrupts(), Faults(hub)
    server = Server(
        nodes=nodes,
        directories=options.directories,
        queue=queue,
        hub=hub,
        interrupts=interrupts,
        faults=faults,
        features=features,
        release=options.release,
    )
    app = server.application(max_upload_bytes=options.max_upload_bytes, with_fault_routes=options.enable_faults)
    engine = Engine(
        nodes=nodes,
        directories=options.directories,
        messages=hub,
        interrupts=interrupts,
        faults=faults,
        step_s=options.step_s,
        previews=options.previews,
        release=options.release,
    )
    await _listen(app, options)
    threading.Thread(target=_work, args=(queue, Executor(engine), hub), name="worker", daemon=True).start()
    await hub.deliver_forever()


async def _listen(app: web.Application, options: Options) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    logger.info("comfy_lite %s, speaking ComfyUI %s", __version__, options.release.version)
    logger.info("Starting server\n")
    # The folders come last: an engine that finds its port taken must not touch the files of the one that has it.
    sites = [web.TCPSite(runner, host, options.port) for host in options.listen]
    for site in sites:
        await site.start()
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(options.directories.temp)
    for folder in (options.directories.input, options.directories.output, options.directories.temp):
        folder.mkdir(parents=True, exist_ok=True)
    if options.print_server:
        for address in runner.addresses:
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            logger.info("To see the GUI go to: http://%s:%s", host, address[1])


def _work(queue: PromptQueue, executor: Executor, hub: SocketHub) -> None:
    """Run prompts one after the other (the worker thread). Only what ends ComfyUI's worker ends this one."""
    while True:
        taken = queue.get(timeout_s=_IDLE_WAIT_S)
        if taken is not None:
            ticket, item = taken
            started = time.perf_counter()
            outcome = executor.execute(item)
            queue.finish(ticket, outcome)
            _, prompt_id, _, extra_data, _ = item
            client_id = extra_data.get("client_id")
            if client_id is not None:
                hub.send("executing", {"node": None, "prompt_id": prompt_id}, client_id)
            logger.info("Prompt executed in %.2f seconds", time.perf_counter() - started)
        if queue.take_memory_request():
            executor.forget()


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # The worker thread may still be executing a node: leave without waiting for it.
    os._exit(status)
