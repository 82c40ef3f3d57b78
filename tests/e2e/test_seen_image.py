"""What a job shows of itself, with the API and the worker in their images: thumbnail, log, times, cost, traces.

The worker is confined as on Lambda, in the memory of its function: what makes thumbnails is confined once more there.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from PIL import Image

from comfy_serverless.aws.s3 import S3Address
from local.aws.collector import Collector
from local.aws.queue_poller import QueuePoller
from local.aws.stack import LocalStack
from tests.e2e.lambda_container import LambdaContainer, http_event
from tests.patience import wait_until

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

OWNER = "painters"
PRICES = {"WORKER_MEMORY_MB": "1024", "USD_PER_GB_SECOND": "0.01", "USD_PER_REQUEST": "0.002"}
PAINTED = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 1200, "height": 600, "batch_size": 1, "color": 0xCC3322}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "painted"}},
}
#: A blur that is wider than its picture.
FAILING = {
    **PAINTED,
    "3": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 31, "sigma": 1.0}},
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "blurred"}},
}


class World(NamedTuple):
    """An API and a worker, each a container, with the table and the queue between them."""

    api: LambdaContainer
    worker: LambdaContainer
    stack: LocalStack

    def ask(self, path: str, **more: Any) -> Any:
        """What the API answers."""
        answer = self.api.invoke(http_event(path, owner=OWNER, **more))
        assert answer["statusCode"] < 300, f"{answer}\n{self.api.log()[-4000:]}"
        return json.loads(answer["body"])

    def run(self, workflow: object) -> Any:
        """A job that has ended."""
        path = f"/api/v2/jobs/{self.ask('/api/v2/jobs', method='POST', body={'workflow': workflow})['id']}"
        assert wait_until(lambda: self.ask(path)["completed_at"]), self.worker.log()[-6000:]
        return self.ask(path)

    def read(self, address: str) -> bytes:
        """A file."""
        place = S3Address.parse(address)
        return self.stack.aws.client().get_object(Bucket=place.bucket, Key=place.key)["Body"].read()


@pytest.fixture(scope="module")
def world(
    api_image: str,
    lite_image: str,
    stack_environment: dict[str, str],
    traced: dict[str, str],
    local_stack: LocalStack,
) -> Iterator[World]:
    of_stack = " ".join(f"{name}={value}" for name, value in traced.items())  # its parameter MoreSettings
    environment = {**stack_environment, **PRICES, "MORE_SETTINGS": of_stack}
    of_api = {**environment, "POWERTOOLS_SERVICE_NAME": "api"}
    with LambdaContainer(api_image, of_api) as api, LambdaContainer(lite_image, environment, memory="1g") as worker:
        poller = QueuePoller(local_stack.aws.sqs(), local_stack.queues["JobQueue"], worker.invoke, name="jobs")
        poller.start()
        yield World(api, worker, local_stack)
        poller.stop()


@pytest.fixture(scope="module")
def painted(world: World) -> Any:
    """A job that has made a picture."""
    return world.run(PAINTED)


@pytest.fixture(scope="module")
def failed(world: World, painted: Any) -> Any:
    """A job that has failed in a node."""
    return world.run(FAILING)


def test_a_picture_has_a_thumbnail_beside_it(world: World, painted: Any) -> None:
    assert painted["status"] == "succeeded"
    (output,) = painted["outputs"]
    assert output["thumb_url"], world.worker.log()[-6000:]
    with Image.open(io.BytesIO(world.read(output["thumb_uri"]))) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("WEBP", (384, 192))


def test_a_job_tells_where_its_time_and_money_went(painted: Any) -> None:
    assert set(painted["nodes_ms"]) <= {"1", "2"}
    assert painted["nodes_ms"]
    assert {"fetching", "models", "loading"} <= painted["timings_ms"].keys()
    assert painted["cost_usd"] >= float(PRICES["USD_PER_REQUEST"])


def test_a_job_that_failed_has_a_log(world: World, failed: Any) -> None:
    assert failed["status"] == "failed"
    log = world.ask(f"/api/v2/jobs/{failed['id']}/log")
    assert log["lines"], f"{log}\n{world.worker.log()[-6000:]}"
    assert "ImageBlur" in "\n".join(log["lines"]) or "blur" in "\n".join(log["lines"]).lower()


def test_a_list_shows_what_its_rows_need(world: World, painted: Any, failed: Any) -> None:
    entries = {entry["id"]: entry for entry in world.ask("/api/v2/jobs?expand=outputs,progress,error")["jobs"]}
    assert entries[painted["id"]]["outputs"][0]["thumb_url"]
    assert entries[failed["id"]]["error"]["node_id"] == "3"
    (shown,) = world.ask("/api/v2/outputs?type=image")["outputs"]
    assert shown["thumb_url"]


def test_usage_is_the_sum_of_the_jobs(world: World, painted: Any, failed: Any) -> None:
    total = world.ask("/api/v2/usage?by=day")["total"]
    assert (total["jobs"], total["failed"], total["outputs"]) == (2, 1, 1)
    assert total["cost_usd"] == pytest.approx(painted["cost_usd"] + failed["cost_usd"], abs=1e-6)


def test_request_and_job_are_one_trace_at_the_collector(world: World, painted: Any, collector: Collector) -> None:
    def spans() -> list[Any]:
        (trace,) = {span.trace_id for span in collector.spans if span.attributes.get("comfy.job_id") == painted["id"]}
        return [span for span in collector.spans if span.trace_id == trace]

    assert wait_until(lambda: {"api", "generate"} <= {span.service for span in spans()}), collector.spans
    assert "thumbnail" in {span.name for span in spans()}
    assert len({span.parent_id for span in spans()} - {span.span_id for span in spans()}) == 1, "one root"
