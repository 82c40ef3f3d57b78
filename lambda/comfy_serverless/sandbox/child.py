"""The process that runs checks. It gets tasks with open files over a socket, its standard input, and answers each.

A task is a line of JSON, `{"check": …, arguments}`, and comes with its files' descriptors; so does an answer:
`{"result": …}`, `{"refused": reason, "of_mask": …}`, `{"errno": …}` for a file that cannot be written, or `{"bug":
traceback}`; with `"lacking": {"calls": errno, "files": errno}` where the kernel does not confine the process so (see
`calls` and `files`).

It ends when the other end of the socket is closed, which happens with the program that started it: between tasks it
reads the end, and amid a task the kernel sends SIGIO. It also ends after a while with nothing to do.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import io
import json
import os
import resource
import select
import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from comfy_serverless.sandbox.calls import give_up_calls
from comfy_serverless.sandbox.files import give_up_files
from comfy_serverless.sandbox.limits import Budget, set_soft
from comfy_serverless.sandbox.refused import MaskRefused, Refused
from comfy_serverless.sandbox.rights import give_up_rights

_IDLE_S = 120.0
_LONGEST_TASK_BYTES = 1 << 16
_MOST_FILES = 3
_MUCH_BYTES = 1 << 20
_DESCRIPTORS = 32
#: For a workflow in a file: Python's objects for the longest text, or for a model's header, and the time to make them.
_EMBEDDED_BYTES = 480 << 20
_EMBEDDED_CPU_S = 7.0

#: A check: it is given what it may take, the files, and the task.
Check = Callable[[Budget, list[BinaryIO], dict[str, Any]], object]


def _image(budget: Budget, files: list[BinaryIO], task: dict[str, Any]) -> object:
    from comfy_serverless.sandbox.images import check_image

    return check_image(files[0], budget=budget, max_pixels=task["max_pixels"])


def _mask(budget: Budget, files: list[BinaryIO], _task: dict[str, Any]) -> None:
    from comfy_serverless.sandbox.masks import combine

    image, mask, target = files
    combine(image, mask, target, budget=budget)


def _model_header(budget: Budget, files: list[BinaryIO], _task: dict[str, Any]) -> None:
    from comfy_serverless.sandbox.model_headers import check_model_header

    check_model_header(files[0], budget=budget)


def _thumbnail(budget: Budget, files: list[BinaryIO], task: dict[str, Any]) -> object:
    from comfy_serverless.sandbox.thumbnails import thumbnail

    return thumbnail(files[0], budget=budget, is_video=task["is_video"])


def _embedded(budget: Budget, files: list[BinaryIO], task: dict[str, Any]) -> object:
    from comfy_serverless.sandbox.embedded import Missing, read_embedded
    from comfy_serverless.sandbox.embedded.window import Window

    budget.allow(memory_bytes=_EMBEDDED_BYTES, cpu_s=_EMBEDDED_CPU_S)
    window = Window.of_file(files[0].fileno(), size=task["size"], known=[tuple(known) for known in task["known"]])
    try:
        return read_embedded(window)
    except Missing as missing:
        return {"missing": [missing.offset, missing.size]}


#: To add a check is to add its entry, and a method of `Sandbox`.
CHECKS: dict[str, Check] = {
    "image": _image,
    "mask": _mask,
    "model_header": _model_header,
    "embedded": _embedded,
    "thumbnail": _thumbnail,
}


def main() -> None:
    """Run checks until the socket ends, or nothing has come for a while."""
    lacking = confine()
    with socket.socket(fileno=0) as tasks:
        readable = select.poll()
        readable.register(tasks, select.POLLIN)
        if not readable.poll(0):  # nobody waits yet
            _load_decoders()
        while readable.poll(1000 * _IDLE_S):
            message, descriptors, _, _ = socket.recv_fds(tasks, _LONGEST_TASK_BYTES, _MOST_FILES)
            if not message:
                return
            task = json.loads(message)
            if task["check"] != "embedded":  # before its limits hold
                _load_decoders()
            if task.get("is_video"):
                _load_decoder_of_videos()
            answer = _answer(task, descriptors)
            if lacking:
                answer["lacking"] = lacking
            tasks.sendall(json.dumps(answer).encode() + b"\n")


def _load_decoders() -> None:
    if importlib.util.find_spec("PIL") is not None:  # the API's image has none, and looks at no image
        from comfy_serverless.sandbox import images  # noqa: F401


def _load_decoder_of_videos() -> None:
    with contextlib.suppress(ImportError):  # where it is not, videos wait
        import av  # noqa: F401


def confine() -> dict[str, int]:
    """Give up what no check needs: more files, threads and processes, files of any size, root's rights, the network.

    Returns:
        What the kernel does not refuse, "calls" or "files", each with why: an error's number.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    give_up_rights()
    set_soft(resource.RLIMIT_FSIZE, 0)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())  # for `_only_while_heard`: nobody else may be named afterwards
    Budget().end()  # opens what it reads, while it may
    lacking = {"files": give_up_files(), "calls": give_up_calls()}
    return {what: why for what, why in lacking.items() if why is not None}


def _answer(task: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
    budget = Budget()
    try:
        with contextlib.ExitStack() as closing, _only_while_heard():
            files = [closing.enter_context(_opened(descriptor)) for descriptor in descriptors]
            return {"result": CHECKS[task["check"]](budget, files, task)}
    except Refused as refused:
        return {"refused": str(refused), "of_mask": isinstance(refused, MaskRefused)}
    except MemoryError:
        return {"refused": budget.memory_refusal(), "of_mask": False}
    except OSError as error:
        return {"errno": error.errno} if error.errno else {"bug": traceback.format_exc()}
    except Exception:  # noqa: BLE001  (the other side raises it)
        return {"bug": traceback.format_exc()}
    finally:
        budget.end()


class _Reader(io.BufferedReader):
    """An open file. Of more than it has, no more is read: Python would take the memory for all that is asked for.

    A damaged length, which its decoder would overlook, must not become a lack of memory.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """As every reader."""
        if size is not None and size > _MUCH_BYTES:
            size = min(size, max(0, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


def _opened(descriptor: int) -> BinaryIO:
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
        return os.fdopen(descriptor, "wb")
    return _Reader(io.FileIO(descriptor, "rb"))


@contextlib.contextmanager
def _only_while_heard() -> Iterator[None]:
    """Let the kernel end this process (SIGIO) if the other end of the socket is closed: nobody waits for an answer."""
    flags = fcntl.fcntl(0, fcntl.F_GETFL)
    fcntl.fcntl(0, fcntl.F_SETFL, flags | os.O_ASYNC)
    closed = select.poll()
    closed.register(0, select.POLLHUP | select.POLLRDHUP)
    if closed.poll(0):  # before the signal was asked for
        raise SystemExit
    try:
        yield
    finally:
        fcntl.fcntl(0, fcntl.F_SETFL, flags)
