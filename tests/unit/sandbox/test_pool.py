"""No child of a sandbox gets files of two owners, and whoever comes next finds one."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.sandbox import pool
from comfy_serverless.sandbox.process import Child, ChildGone
from comfy_serverless.sandbox.refused import Refused
from comfy_serverless.sandbox.sandbox import Sandbox
from tests.patience import PATIENCE_S, wait_until
from tests.unit.embedded_files import WITH_BOTH
from tests.unit.picture_files import picture
from tests.unit.sandbox.children import idle

MODEL = b"\x02\x00\x00\x00\x00\x00\x00\x00{}"


class Asked:
    """A sandbox, and which of its processes got whose files: noted where a task is handed over."""

    def __init__(self, folder: Path, sandbox: Sandbox, given: list[tuple[int, str]]) -> None:
        self.sandbox, self._given = sandbox, given
        self.picture, self.model, self.made = folder / "a.png", folder / "a.safetensors", folder / "made"
        self.picture.write_bytes(picture("PNG"))
        self.model.write_bytes(MODEL)
        self._turns = map(str, itertools.count())

    def image(self, owner: str) -> int:
        """Have a picture of an owner checked; return the process that did."""
        self._check("image", owner)
        return self._given[-1][0]

    def every_check(self, owner: str) -> set[int]:
        """Have one file of an owner go through each check; return the processes that had them."""
        begun = len(self._given)
        for what in ("image", "mask", "thumbnail", "embedded"):
            self._check(what, owner)
        assert [check for _, check in self._given[begun:]] == ["image", "mask", "thumbnail", "embedded"]
        return {pid for pid, _ in self._given[begun:]}

    def model_header(self) -> int:
        with self.model.open("rb") as file:
            self.sandbox.check_model_header(file.fileno(), deadline=self._until(), turn=next(self._turns))
        return self._given[-1][0]

    def _check(self, what: str, owner: str) -> None:
        whose: dict[str, Any] = {"deadline": self._until(), "turn": next(self._turns), "owner": owner}
        if what == "image":
            self.sandbox.check_image(self.picture, max_pixels=10_000, **whose)
        elif what == "mask":
            self.sandbox.combine_mask(self.picture, self.picture, self.made, **whose)
        else:
            path = self.picture
            if what == "embedded":
                path = self.made
                path.write_bytes(WITH_BOTH["png tEXt"])
            with path.open("rb") as file:
                if what == "thumbnail":
                    self.sandbox.make_thumbnail(file.fileno(), is_video=False, **whose)
                else:
                    size = path.stat().st_size
                    self.sandbox.read_embedded(file.fileno(), size=size, known=[(0, size)], **whose)

    @staticmethod
    def _until() -> float:
        return time.monotonic() + PATIENCE_S


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    given: list[tuple[int, str]] = []
    ask = Child.ask

    def noted(child: Child, task: Any, *arguments: Any, **options: Any) -> Any:
        given.append((child.pid, task["check"]))
        return ask(child, task, *arguments, **options)

    monkeypatch.setattr(Child, "ask", noted)
    with closing(Sandbox()) as sandbox:
        yield Asked(tmp_path, sandbox, given)


def unused(sandbox: Sandbox) -> list[int]:
    return [pid for pid, owner in idle(sandbox).items() if owner is None]


def test_no_child_gets_files_of_two_owners_whatever_is_done_with_them(asked: Asked) -> None:
    had: dict[str, set[int]] = {}
    for owner in ("a", "b", "a", "", "c", "b", "d", "a", ""):
        had.setdefault(owner, set()).update(asked.every_check(owner))
    for one, other in itertools.combinations(had.values(), 2):
        assert one.isdisjoint(other)


def test_the_same_owner_keeps_its_child_also_after_another(asked: Asked) -> None:
    (first,) = asked.every_check("a")
    assert asked.image("b") != first
    assert asked.image("a") == first
    assert asked.every_check("a") == {first}


def test_a_model_which_is_checked_for_all_has_a_child_that_had_nothing_and_ends(asked: Asked) -> None:
    first = asked.image("a")
    of_model, of_other = asked.model_header(), asked.model_header()
    assert len({first, of_model, of_other}) == 3
    assert idle(asked.sandbox) == {first: "a"}


def test_one_owner_alone_has_one_process(asked: Asked) -> None:
    asked.sandbox.warm(owner="a")
    pid = asked.image("a")
    asked.sandbox.warm(owner="a")
    assert [asked.image("a") for _ in range(3)] == [pid] * 3
    assert idle(asked.sandbox) == {pid: "a"}


def test_from_the_second_owner_on_whoever_is_new_finds_a_child_that_has_started(asked: Asked) -> None:
    asked.image("a")
    asked.image("b")
    for owner in "cdef":
        (ready,) = unused(asked.sandbox)
        assert asked.image(owner) == ready


def test_an_owner_that_is_expected_finds_a_child_and_takes_nobodys(asked: Asked) -> None:
    first = asked.image("a")
    asked.sandbox.warm(owner="b")
    (ready,) = unused(asked.sandbox)
    asked.sandbox.warm(owner="c")
    assert unused(asked.sandbox) == [ready], "one is enough"
    assert asked.image("b") == ready != first


def test_there_are_never_more_than_so_many_and_who_was_idle_longest_ends_first(asked: Asked) -> None:
    for owner in "abcdb":
        asked.image(owner)
        assert len(idle(asked.sandbox)) <= pool.MOST + 1
    assert set(idle(asked.sandbox).values()) == {None, "b", "c", "d"}
    asked.image("e")
    assert set(idle(asked.sandbox).values()) == {None, "b", "d", "e"}


def test_those_at_work_count_and_are_nobody_elses_meanwhile(asked: Asked) -> None:
    children = asked.sandbox._pool
    for owner in "abc":
        asked.image(owner)
    with ExitStack() as at_work:
        pids = [at_work.enter_context(children.lent(owner)).pid for owner in ("d", "d", "c")]
        assert len(set(pids)) == 3
        assert set(idle(asked.sandbox)) == set(unused(asked.sandbox)), "those of a and b made room"
        asked.sandbox.warm(owner="d")
    assert set(idle(asked.sandbox)) - set(unused(asked.sandbox)) == set(pids)
    assert len(idle(asked.sandbox)) <= pool.MOST + 1


def test_a_child_that_has_ended_is_replaced_by_one_that_had_no_file(asked: Asked) -> None:
    others, gone = asked.image("a"), asked.image("b")
    os.kill(gone, signal.SIGKILL)
    assert asked.image("b") not in {others, gone}
    assert len(unused(asked.sandbox)) == 1


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


def test_a_child_that_is_frozen_while_it_starts_works_after_the_thaw(asked: Asked) -> None:
    asked.image("a")
    asked.sandbox.warm(owner="b")
    (ready,) = unused(asked.sandbox)
    with ThreadPoolExecutor() as threads, _stopped(ready):
        checked = threads.submit(asked.image, "b")
        assert wait_until(lambda: ready not in idle(asked.sandbox))
        os.kill(ready, signal.SIGCONT)
        assert checked.result(PATIENCE_S) == ready


def test_all_may_have_ended_in_a_freeze_though_they_seem_to_live(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    asked.image("a")
    asked.image("b")
    before = set(idle(asked.sandbox))
    assert len(before) == 3
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    monkeypatch.setattr(Child, "is_alive", property(lambda _: True))
    assert asked.image("b") not in before


def test_closing_ends_all_and_none_is_started_afterwards(asked: Asked) -> None:
    asked.image("a")
    with asked.sandbox._pool.lent("b") as at_work:
        asked.sandbox.close()
        assert idle(asked.sandbox) == {}
    asked.sandbox.warm(owner="c")
    assert idle(asked.sandbox) == {}
    assert not at_work.is_alive


def test_a_spare_that_cannot_be_started_is_no_fault_of_the_file(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    asked.image("a")
    asked.sandbox.warm(owner="b")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    asked.image("b")
    assert unused(asked.sandbox) == []
    with pytest.raises(Refused, match="no process can be started"):
        asked.image("c")
    assert asked.sandbox._pool._busy == []


def test_what_fails_in_the_block_ends_the_child_and_leaves_the_room(asked: Asked) -> None:
    children = asked.sandbox._pool

    with pytest.raises(ChildGone), children.lent("a") as child:
        raise ChildGone
    assert not child.is_alive
    assert (children._busy, idle(asked.sandbox)) == ([], {})
