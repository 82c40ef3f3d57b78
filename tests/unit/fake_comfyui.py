"""A program that stands for ComfyUI in the check of an image: it writes, declares, ends or hangs as a test says."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PROGRAM = '''
import http.server, json, os, sys, time
folder = {folder!r}
script = json.load(open(os.path.join(folder, "script.json")))
arguments = sys.argv[1:]
with open(os.path.join(folder, "starts"), "a") as starts:
    starts.write(json.dumps({{"arguments": arguments, "environment": dict(os.environ)}}) + "\\n")
print(script["says"], flush=True)
alone = arguments[arguments.index("--whitelist-custom-nodes") + 1] if "--whitelist-custom-nodes" in arguments else ""
runs = [alone] if "--disable-all-custom-nodes" in arguments else script["ends"]
if set(runs) & set(script["ends"]):
    sys.exit(script["code"])
if script["hangs"]:
    time.sleep(600)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        stats = {{"comfyui_version": "0.33.0", "argv": ["main.py", "--base-directory", folder]}}
        answers = {{"/system_stats": {{"system": stats}}, "/object_info": script["object_info"]}}
        content = json.dumps(answers[self.path]).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)
    def log_message(self, *arguments):
        pass
port = int(arguments[arguments.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
'''  # fmt: skip


class FakeComfyUI:
    """It, in a folder; `command` starts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "program.py").write_text(_PROGRAM.format(folder=str(folder)), encoding="utf-8")
        self.command = [sys.executable, str(folder / "program.py")]
        self.says()

    def says(
        self,
        text: str = "",
        *,
        object_info: Mapping[str, Any] | None = None,
        ends: tuple[str, ...] = (),
        code: int = 1,
        hangs: bool = False,
    ) -> None:
        """What it does when it is started next.

        Args:
            ends: packs that end it, with `code`.
            hangs: whether it never answers.
        """
        script = {"says": text, "object_info": object_info or {}, "ends": ends, "code": code, "hangs": hangs}
        (self.folder / "script.json").write_text(json.dumps(script), encoding="utf-8")

    @property
    def starts(self) -> list[dict[str, Any]]:
        """The arguments and the environment of each start."""
        path = self.folder / "starts"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
