"""Which files a child can still reach that a file has taken over: it tries, with the kernel of this machine."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.sandbox import files
from comfy_serverless.sandbox.calls import _MACHINES
from comfy_serverless.sandbox.sandbox import Sandbox
from tests.unit.sandbox.attempts import ATTEMPTS

HOSTILE = """
    import ctypes, fcntl, json, os, resource, sys
    from pathlib import Path
    from comfy_serverless.sandbox.limits import set_soft
    folder, mine = Path(sys.argv[1]), Path(sys.argv[2])
    given, target = os.open(mine / "input", os.O_RDONLY), os.open(mine / "target", os.O_WRONLY)
    {before}
    from comfy_serverless.sandbox.child import confine
    lacking = confine()
    set_soft(resource.RLIMIT_FSIZE, 100)
    os.pread(given, 10, 0)
    os.write(target, b"made")
    import colorsys, PIL.BmpImagePlugin  # libraries that nobody has loaded yet
    attempt("a file", lambda: os.close(os.open(folder / "secret", os.O_RDONLY)))
    attempt("a folder", lambda: os.listdir(folder))
    attempt("what else is on the disk", lambda: os.listdir("/"))
    attempt("who is there", lambda: os.listdir("/proc"))
    attempt("our memory", lambda: os.close(os.open(f"/proc/{{os.getppid()}}/maps", os.O_RDONLY)))
    attempt("a device", lambda: os.close(os.open("/dev/zero", os.O_RDONLY)))
    attempt("what came, to write", lambda: os.close(os.open(f"/proc/self/fd/{{given}}", os.O_WRONLY)))
    attempt("writing", lambda: os.close(os.open(folder / "secret", os.O_WRONLY)))
    attempt("reading and writing", lambda: os.close(os.open(folder / "secret", os.O_RDWR)))
    attempt("emptying", lambda: os.close(os.open(folder / "secret", os.O_RDONLY | os.O_TRUNC)))
    attempt("cutting", lambda: os.truncate(folder / "secret", 0))
    attempt("a new file", lambda: os.close(os.open(folder / "new", os.O_RDONLY | os.O_CREAT)))
    attempt("a new folder", lambda: os.mkdir(folder / "new"))
    attempt("a pipe", lambda: os.mkfifo(folder / "new"))
    attempt("a link", lambda: os.symlink("secret", folder / "new"))
    attempt("a hard link", lambda: os.link(folder / "secret", folder / "new"))
    attempt("another name", lambda: os.rename(folder / "secret", folder / "new"))
    attempt("another content", lambda: os.replace(folder / "other", folder / "secret"))
    attempt("deleting", lambda: os.unlink(folder / "secret"))
    attempt("deleting a folder", lambda: os.rmdir(folder / "empty"))
    attempt("a mode", lambda: os.chmod(folder / "secret", 0o777))
    attempt("a mode by descriptor", lambda: os.fchmod(given, 0o777))
    attempt("an owner", lambda: os.chown(folder / "secret", os.getuid(), os.getgid()))
    attempt("a time", lambda: os.utime(folder / "secret", (0, 0)))
    attempt("an attribute", lambda: os.setxattr(folder / "secret", "user.x", b"x"))
    attempt("another way to open", lambda: call(437, -100, str(folder / "secret").encode(), b"\\1" + bytes(23), 24))
    print(json.dumps([lacking, tried]))
"""
#: What `calls` refuses; the others of these attempts are refused by the rules for files alone.
CHANGES = {
    *("what came, to write", "writing", "reading and writing", "emptying", "cutting", "a new file", "a new folder"),
    *("a pipe", "a link", "a hard link", "another name", "another content", "deleting", "deleting a folder"),
    *("a mode", "a mode by descriptor", "an owner", "a time", "an attribute", "another way to open"),
}
CALL = """
    def call(*arguments):
        if ctypes.CDLL(None, use_errno=True).syscall(*arguments) < 0:
            raise OSError(ctypes.get_errno(), "")
"""


def has_rules() -> bool:
    return sys.platform.startswith("linux") and int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)) > 0


has_filters = pytest.mark.skipif(
    platform.machine() not in _MACHINES or "Seccomp:" not in Path("/proc/self/status").read_text(),
    reason="no filters on this machine",
)


def hostile(folder: Path, *, before: str = "") -> tuple[dict[str, int], dict[str, int]]:
    """What a child that is confined lacks and tries; `before` is a line that is run first."""
    theirs, mine = folder / "theirs", folder / "mine"
    (theirs / "empty").mkdir(parents=True)
    mine.mkdir()
    (theirs / "secret").write_text("secret")
    (theirs / "other").touch()
    (mine / "input").write_text("input")
    (mine / "target").touch()
    code = ATTEMPTS + textwrap.dedent(CALL) + textwrap.dedent(HOSTILE.format(before=before))
    done = subprocess.run(
        [sys.executable, "-c", code, str(theirs), str(mine)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "lambda"},
        check=True,
    )
    assert (mine / "target").read_text() == "made"
    assert {path.name: path.read_text() if path.is_file() else "" for path in theirs.iterdir()} == {
        "secret": "secret",
        "other": "",
        "empty": "",
    }
    lacking, tried = json.loads(done.stdout)
    return lacking, tried


@has_filters
@pytest.mark.skipif(not has_rules(), reason="the kernel of this machine has no Landlock")
def test_a_child_reaches_no_file_but_those_it_is_given_and_its_libraries(tmp_path: Path) -> None:
    lacking, tried = hostile(tmp_path)
    assert lacking == {}
    assert {name for name, code in tried.items() if code == errno.EPERM} == CHANGES
    assert {code for name, code in tried.items() if name not in CHANGES} == {errno.EACCES}


@has_filters
def test_without_rules_for_files_a_child_still_changes_none(tmp_path: Path) -> None:
    before = "import comfy_serverless.sandbox.files as files; files._CREATE_RULESET = 1 << 20"
    lacking, tried = hostile(tmp_path, before=before)
    assert lacking == {"files": errno.ENOSYS}
    assert {name for name, code in tried.items() if code == errno.EPERM} == CHANGES
    assert tried["a file"] == 0


def test_what_a_child_may_read_is_code_and_never_where_its_user_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path / 'lib'}::relative:/{'x' * 300}")  # the last cannot be
    (tmp_path / "lib").mkdir()
    (tmp_path / "relative").mkdir()
    places = files.readable()
    assert tmp_path / "lib" in places
    for folder in (Path.cwd(), Path.home(), Path("/"), Path("/tmp"), tmp_path / "relative"):
        assert not any(folder.is_relative_to(place) for place in places), folder
    assert any(Path(os.__file__).is_relative_to(place) for place in places)


def test_a_decoder_that_lies_in_the_libraries_of_another_python_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def started(command: Any, **_: Any) -> _Ended:
        asked.append(command)
        return _Ended()

    monkeypatch.setattr("comfy_serverless.sandbox.process.subprocess.Popen", started)
    sandbox = Sandbox(tmp_path)
    sandbox.warm(owner="")
    sandbox.close()
    ((*_, path),) = asked
    assert json.loads(path)[-1] == str(tmp_path), "the last: our own come first"


class _Ended:
    """A process that has ended."""

    def kill(self) -> None: ...
    def wait(self, _timeout: float) -> int:
        return 0
