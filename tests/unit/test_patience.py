"""The clock that bounds are measured by: it stands while the machine is starved, and never hides a stall."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import timings
from tests.contract.faults.rows import Row
from tests.contract.faults.world import World
from tests.patience import QuietClock, is_alive, slack, wait_until

TESTS = Path(__file__).parents[1]
#: Packs of nodes, as their authors wrote them: no tests.
KIT = TESTS / "environments" / "kit"
needs_schedstat = pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="only Linux says who waits")  # noqa: PTH110


class Machine:
    """A wall clock and threads, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: dict[int, float] = {1: 5.0}

    @contextmanager
    def clock(self) -> Iterator[QuietClock]:
        with QuietClock(waits=lambda: dict(self.waits), now=lambda: self.now) as clock:
            yield clock

    def passes(self, seconds: float, **waited: float) -> None:
        """So much time passes, in which threads wait for a processor for so long."""
        for name, more in waited.items():
            number = int(name.removeprefix("t"))
            self.waits[number] = self.waits.get(number, 0.0) + more
        self.now += seconds


def test_it_goes_with_the_wall_while_nothing_waits() -> None:
    machine = Machine()
    with machine.clock() as clock:
        machine.passes(3.0)
        assert clock() == pytest.approx(3.0)


def test_it_stands_while_a_thread_waits_for_a_processor() -> None:
    machine = Machine()
    with machine.clock() as clock:
        machine.passes(3.0, t1=2.5)
        assert clock() == pytest.approx(0.5)


def test_what_a_new_thread_has_waited_counts_from_its_first_moment() -> None:
    machine = Machine()
    with machine.clock() as clock:
        machine.passes(3.0, t2=1.0)
        assert clock() == pytest.approx(2.0)


def test_an_id_that_is_used_again_is_another_thread() -> None:
    machine = Machine()
    with machine.clock() as clock:
        machine.waits = {1: 0.25}
        machine.passes(1.0)
        assert clock() == pytest.approx(0.75)


def test_threads_that_wait_together_never_turn_it_back_and_never_pay_for_later_time() -> None:
    machine = Machine()
    with machine.clock() as clock:
        machine.passes(1.0, t1=1.0, t2=1.0, t3=1.0)
        assert clock() == 0.0
        machine.passes(1.0)
        assert clock() == pytest.approx(1.0)


def test_code_that_sleeps_too_long_is_seen() -> None:
    with QuietClock() as clock:
        begun = clock()
        time.sleep(0.5)
        # Only our own wait after the sleep is taken off, and that is time beyond the half second.
        assert clock() - begun > 0.45


def test_code_that_computes_too_much_is_seen() -> None:
    with QuietClock() as clock:
        begun, cpu = clock(), time.process_time()
        while time.process_time() - cpu < 0.5:
            pass
        assert clock() - begun > 0.45


@pytest.mark.parametrize(
    "stall", ["time.sleep(0.6)", "end = time.process_time() + 0.6\nwhile time.process_time() < end: pass"]
)
def test_a_stall_of_another_process_is_seen(stall: str) -> None:
    with QuietClock() as clock:
        begun = clock()
        subprocess.run([sys.executable, "-c", f"import time\n{stall}"], check=True)
        assert clock() - begun > 0.5


def test_a_row_of_the_fault_matrix_still_fails_when_its_outcome_is_late(tmp_path: Path) -> None:
    world = World(tmp_path, Row("it is late", None, "", 0.3), lambda _: None)
    try:
        begun = world.clock()
        time.sleep(0.5)
        with pytest.raises(AssertionError, match="it is late: took"):
            world.check(None, world.clock() - begun)
    finally:
        world.close()


@needs_schedstat
def test_a_starved_machine_moves_it_less_than_the_wall() -> None:
    """Three neighbours that compute, on the one processor that all of us may use."""
    program = textwrap.dedent("""
        import os, sys
        os.sched_setaffinity(0, {int(sys.argv[1])})
        print(flush=True)
        while True: pass
    """)
    mine = os.sched_getaffinity(0)
    processor = min(mine)
    with ExitStack() as stack:
        for _ in range(3):
            busy = stack.enter_context(
                subprocess.Popen([sys.executable, "-c", program, str(processor)], stdout=subprocess.PIPE)
            )
            stack.callback(busy.kill)
            assert busy.stdout is not None
            busy.stdout.readline()
        # They are neighbours, not ours: only this thread's waiting is taken off.
        me = threading.get_native_id()
        clock = stack.enter_context(QuietClock(waits=lambda: {me: waited(me)}))
        stack.callback(os.sched_setaffinity, 0, mine)
        os.sched_setaffinity(0, {processor})
        wall, begun, cpu = time.monotonic(), clock(), time.thread_time()
        while time.thread_time() - cpu < 0.3:
            pass
        quiet, real = clock() - begun, time.monotonic() - wall
    assert quiet < real, "with four for one processor"
    assert quiet > 0.25, "and what has been computed is there"


def waited(thread: int) -> float:
    with open(f"/proc/self/task/{thread}/schedstat") as file:  # noqa: PTH123
        return int(file.read().split()[1]) / 1e9


def test_slack_is_a_factor_that_only_gives() -> None:
    assert 1.0 <= slack() <= 10.0


def test_waiting_ends_when_it_is_so_and_when_patience_does() -> None:
    answers = iter([False, False, True])
    assert wait_until(lambda: next(answers))
    assert not wait_until(lambda: False, within_s=0.05)


def test_no_test_sets_the_tables_clock_in_some_of_its_modules_only() -> None:
    """On a busy machine the others would write a later second: `TableClock` sets all of them."""
    patched = re.compile(r"(setattr|patch)\([^\n]*(now_s|_clock)[\"']")
    others = [file for file in TESTS.rglob("*.py") if file.name != "table_clock.py"]
    assert [file.name for file in others if patched.search(file.read_text())] == []


def test_every_server_of_a_test_ends_at_once() -> None:
    """`shutdown` waits until the server looks whether it shall end: each half second, if nothing else is said."""
    slow = re.compile(r"target=[\w.]*\.serve_forever(?!,\s*(args=\(0\.0|kwargs=))")
    files = [file for folder in (TESTS, TESTS.parent / "benchmarks") for file in folder.rglob("*.py")]
    assert [file.name for file in files if file != Path(__file__) and slow.search(file.read_text("utf-8"))] == []


def test_every_server_of_the_local_stack_ends_at_once() -> None:
    files = (TESTS.parent / "local").rglob("*.py")
    assert [file.name for file in files if "HTTPServer" in file.read_text("utf-8")] == ["http_server.py"]


@pytest.mark.parametrize(
    "bad",
    [
        "begun = time.monotonic()\n    work()\n    assert time.monotonic() - begun < 5",
        "begun = time.perf_counter()\n    took = time.perf_counter() - begun\n    assert 5 >= took",
        "a = time.time()\n    one = time.time() - a\n    other = time.time() - a - one\n    assert other < 2 * one",
        "ms = []\n    begun = time.time()\n    ms.append(1000 * (time.time() - begun))\n    assert max(ms) < 100",
        "assert requests.get(url).elapsed.total_seconds() < 1",
        "end = time.monotonic() + 5\n    while not is_so():\n        assert time.monotonic() < end",
        "subprocess.run(command, timeout=5)",
        "thread.join(timeout=2)",
        "thread.join(2)",
        "found = future.result(5)",
        "found = queue.get(True, 5)",
        "assert ended.wait(5)",
        "assert is_right and ended.wait(5)",
        "assert condition.wait_for(is_so, 5)",
        "begun = time.perf_counter_ns()\n    assert time.perf_counter_ns() - begun < 5e9",
    ],
)
def test_a_test_that_judges_the_wall_clock_is_found(bad: str) -> None:
    assert len([*timings.found_in(f"def test_it():\n    {bad}\n")]) == 1


@pytest.mark.parametrize(
    "good",
    [
        "begun = time.monotonic()\n    work()\n    assert time.monotonic() - begun >= 0.5, 'a sleep has a least time'",
        "with QuietClock() as clock:\n        begun = clock()\n        assert clock() - begun < 5",
        "end = time.monotonic() + PATIENCE_S\n    while not is_so():\n        assert time.monotonic() < end",
        "with pytest.raises(requests.ReadTimeout):\n        requests.get(url, timeout=0.5)",
        "assert document.ends_at > time.time() - 50",
        "before = time.time() - 5\n    assert document.made_at < before",
        "name = f'{time.time()}' + '.png'\n    assert wanted < name",
        "run(timeout='5', until=time.monotonic() + None)",
        "assert not ended.wait(timeout=0.5)",
        "assert not ended.wait(0.5)",
        "stopping.wait(0.5)",
        "found = settings.get('number', 5)",
        "name = ', '.join(names)",
        "assert ended.wait(PATIENCE_S)",
    ],
)
def test_a_test_that_holds_on_any_machine_is_not(good: str) -> None:
    assert [*timings.found_in(f"def test_it():\n    {good}\n")] == []


@pytest.mark.parametrize(
    "bad", ["await page.click({timeout: 5}); const took = performance.now() - began", "one.startTime"]
)
def test_a_page_that_measures_is_found(bad: str) -> None:
    assert len([*timings.found_in_script(bad)]) == 1
    assert len([*timings.found_in(f"page.evaluate('{bad}')", is_of_pages=True)]) == 1


def test_a_short_time_of_a_browser_is_found() -> None:
    assert len([*timings.found_in("expect(row).to_be_visible(timeout=5_000)", is_of_pages=True)]) == 1


def test_no_test_judges_how_fast_the_machine_is() -> None:
    found = [
        f"{file.relative_to(TESTS)}:{why}"
        for file in sorted(TESTS.rglob("*.py"))
        if file != Path(__file__) and KIT not in file.parents
        for why in timings.found_in(file.read_text(encoding="utf-8"), is_of_pages=file.parent.name == "console")
    ]
    found += [
        f"{file.relative_to(TESTS)}:{why}"
        for file in sorted((TESTS / "console" / "js").iterdir())
        for why in timings.found_in_script(file.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize("error", [FileNotFoundError, ProcessLookupError])
def test_a_process_that_ends_while_it_is_looked_at_is_not_alive(
    monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def gone(*_: object, **__: object) -> str:
        raise error

    assert is_alive(os.getpid())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", gone)
        assert not is_alive(os.getpid())
