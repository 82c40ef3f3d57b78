"""Starts ComfyUI once, and fails if a pack does not import. The build of the image runs it.

    python -m comfy_serverless.connector.import_check [pack,pack | *]

The argument names packs that may fail, because they need a GPU at import, say. ComfyUI is started as it is on a worker:
by API_COMMAND_LINE, and where we are root as a user that cannot write into its folder.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence

from comfy_serverless.connector.confinement import confining_prefix, engine_environment, engine_user
from comfy_serverless.connector.import_report import ImportReport, NotImported
from comfy_serverless.connector.refusals import describe_exit
from comfy_serverless.settings import Settings

_EVERY = "*"
_TIMEOUT_S = 900
_LINES_SHOWN = 60
_WHAT_TO_DO = (
    "Add what is missing to requirements/comfyui.in (then `make lock`) or to requirements/apt.txt, remove the pack, or "
    "let it fail: --build-arg ALLOW_IMPORT_FAILURES=name,name"
)


def main(arguments: Sequence[str]) -> str | None:
    """Say which packs did not import, with the end of what ComfyUI wrote; nothing if all did.

    Raises:
        InvalidSetting: nothing says how to start ComfyUI.
    """
    (command,) = Settings.from_environment().require("api_command_line")
    allowed = {name.strip() for name in " ".join(arguments).split(",")} - {""}
    code, output = _run(shlex.split(command))
    report = ImportReport()
    for line in output.splitlines():
        report.see(line)
    problems = [f"  {lost}" for lost in refused(report.not_imported, allowed)]
    if code:
        problems.append(f"  ComfyUI itself: {describe_exit(code)}")
    if not problems:
        return None
    return "\n".join([*output.splitlines()[-_LINES_SHOWN:], "", "These did not import:", *problems, _WHAT_TO_DO])


def refused(lost: Iterable[NotImported], allowed: set[str]) -> list[NotImported]:
    """Those packs that may not fail."""
    return [] if _EVERY in allowed else [pack for pack in lost if pack.pack not in allowed]


def _run(command: Sequence[str]) -> tuple[int, str]:
    """Start ComfyUI for as long as it needs to import everything. Returns its exit code, and what it wrote."""
    user = engine_user()
    environment = {**engine_environment(os.environ), **(user.environment if user else {})}
    if user is not None:
        user.make_home()
    done = subprocess.run(
        [*confining_prefix(user), *command, "--quick-test-for-ci"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", errors="replace")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
