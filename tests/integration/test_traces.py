"""Spans as they leave this machine: a collector that decodes them, and collectors that do not answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from comfy_serverless import tracing
from comfy_serverless.tracing import spans as module
from demo.traces import drawn, ordered
from local.aws.collector import Collector
from tests.patience import PATIENCE_S, QuietClock, wait_until

#: Nothing of OpenTelemetry is told by the environment of whoever runs the tests.
BARE = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}


@pytest.fixture(autouse=True)
def _off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ.keys() - BARE.keys():
        monkeypatch.delenv(name)
    monkeypatch.setattr(module, "_flusher", None)
    yield
    module.end()


def test_a_collector_gets_spans_with_their_process_and_one_tree() -> None:
    with Collector() as collector:
        tracing.begin(collector.endpoint, service="generate", facts={"service.version": "abc"})
        caller = tracing.Trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        with tracing.span("run job", kind=tracing.Kind.CONSUMER, parent=caller, job_id="j") as job:
            with tracing.span("execute"):
                tracing.add("KSampler", 1.0, 2.5, node_id="3")
            job.fail("node_execution_error")
        tracing.flush(PATIENCE_S)
        found = collector.spans
    assert [(depth, span.name) for depth, span in ordered(found)] == [(0, "run job"), (1, "execute"), (2, "KSampler")]
    by_name = {span.name: span for span in found}
    run = by_name["run job"]
    assert (run.parent_id, run.kind, run.is_failed, run.service) == (caller.span_id, "CONSUMER", True, "generate")
    assert {span.trace_id for span in found} == {caller.trace_id}
    assert run.attributes == {"comfy.job_id": "j", "error.type": "node_execution_error"}
    assert (by_name["KSampler"].begun_s, by_name["KSampler"].ended_s) == (1.0, 2.5)
    assert "run job" in drawn(found, title="<b>")
    assert "<b>" not in drawn(found, title="<b>")


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"OTEL_TRACES_SAMPLER": "always_off"}, set()),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, {"kept by its caller"}),
        ({}, {"kept by its caller", "of nobody's"}),
    ],
)
def test_whose_traces_are_kept_is_what_the_sampler_and_the_caller_say(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], names: set[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with Collector() as collector:
        tracing.begin(collector.endpoint, service="api")
        place = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"
        for flags, name in (("01", "kept by its caller"), ("00", "not kept")):
            with tracing.span(name, parent=tracing.Trace(place + flags)):
                pass
        with tracing.span("of nobody's"):
            pass
        tracing.flush(PATIENCE_S)
        assert {span.name for span in collector.spans} == names


def test_a_collector_on_this_machine_is_reached_whatever_proxies_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Collector() as collector:
        tracing.begin(collector.endpoint, service="generate")
        with tracing.span("run job"):
            pass
        tracing.flush(PATIENCE_S)
        assert [span.name for span in collector.spans] == ["run job"]


def test_a_collector_elsewhere_is_reached_through_the_proxy_that_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector:  # which stands for the proxy, too: it gets the whole request
        monkeypatch.setenv("http_proxy", collector.endpoint)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        tracing.begin("http://collector.example.com:4318", service="generate")
        with tracing.span("run job"):
            pass
        tracing.flush(PATIENCE_S)
        assert [span.name for span in collector.spans] == ["run job"]


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def test_a_collector_that_is_not_there_or_never_answers_delays_nobody(caplog: pytest.LogCaptureFixture) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    with closing(silent):
        for port in (free_port(), silent.getsockname()[1]):
            module._flusher = None
            tracing.begin(f"http://127.0.0.1:{port}", service="generate")
            with QuietClock() as clock:
                begun = clock()
                for _ in range(300):
                    with tracing.span("run job"):
                        pass
                    tracing.flush(0.2)
                assert clock() - begun < 3.0  # once 0.2 s, and then not again
            assert caplog.text.count("spans were not sent within 0.2 s") == 1
            caplog.clear()
            module.end()
    assert wait_until(lambda: threading.active_count() < 50)


def test_more_spans_than_a_collector_takes_are_dropped_and_no_memory_grows() -> None:
    tracing.begin(f"http://127.0.0.1:{free_port()}", service="generate")
    for _ in range(5000):  # its queue has 2048
        with tracing.span("upload"):
            pass


def test_off_nothing_of_opentelemetry_is_loaded() -> None:
    code = (
        "import sys, comfy_serverless.tracing\n"
        "from comfy_serverless import tracing\n"
        "import comfy_serverless.worker.worker, comfy_serverless.worker.journal, comfy_serverless.api.app\n"
        "import comfy_serverless.batches.reading, comfy_serverless.webhooks.calls, comfy_serverless.handlers.wiring\n"
        "from comfy_serverless.handlers import wiring; wiring.settings()\n"
        "with tracing.span('a'): tracing.flush(1.0)\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'google.protobuf'))])\n"
    )
    environment = {**BARE, "PYTHONPATH": "lambda"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_off_a_span_costs_less_than_a_tenth_of_a_line_of_the_log() -> None:
    code = (
        "import io, logging, timeit\n"
        "from comfy_serverless import tracing\n"
        "logger = logging.getLogger('x'); logger.addHandler(logging.StreamHandler(io.StringIO()))\n"
        "logger.setLevel('INFO'); logger.propagate = False\n"
        "def span():\n"
        "    with tracing.span('upload', job_id='j'): pass\n"
        "a = min(timeit.repeat(span, number=5000, repeat=9))\n"
        "b = min(timeit.repeat(lambda: logger.info('the job %s', 'j'), number=5000, repeat=9))\n"
        "print(a / b)\n"
    )
    environment = {**BARE, "PYTHONPATH": "lambda"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.1
