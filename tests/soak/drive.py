"""Sends jobs like a queue, and judges every answer."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from botocore.exceptions import ClientError
from PIL import Image

from comfy_serverless.jobs.document import Job, Output
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.worker.worker import Call, Outcome
from demo.seed import INPUT_BUCKET, OUTPUT_BUCKET
from tests.soak.jobs import Picture, SoakJob
from tests.soak.owners import owners_of
from tests.soak.trouble import OUT_OF_MEMORY, Thrower, Trouble
from tests.soak.world import World

#: A job that is sent more often than this has not ended.
MAX_DELIVERIES = 10
#: The longest that one delivery may take, in seconds: a stall, a restart, and the work.
LONGEST_DELIVERY_S = 120.0
_REFUSALS = frozenset({"invalid_workflow", "missing_asset"})
_S3_FAILURES = frozenset({"delivery_failed", "missing_asset"})
_EARLY_ENDS = frozenset({"canceled", "deadline_exceeded"})


@dataclass(frozen=True, slots=True)
class _Request:
    """A job as its owner sends it. A `RequestSource`."""

    job: SoakJob
    labels: ClassVar[Mapping[str, str]] = {}
    is_checked: ClassVar[bool] = False
    origin_bucket: ClassVar[None] = None
    extra_data: ClassVar[None] = None
    trace: ClassVar[None] = None

    @property
    def default_id(self) -> str:
        return self.job.job_id

    @property
    def owner_name(self) -> str:
        return self.job.owner

    def read(self, **_: object) -> JobRequest:
        return JobRequest.parse(self.job.payload)


@dataclass(slots=True)
class Story:
    """What happened to a job."""

    job_id: str
    kind: str
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    code: str = ""
    deliveries: int = 0
    lost_to_s3: int = 0
    longest_s: float = 0.0

    def __str__(self) -> str:
        return "\n    ".join([f"{self.job_id} ({self.kind}): {'; '.join(self.problems)}", *self.lines])


class Driver:
    """Sends jobs and judges them. Several threads may use it."""

    def __init__(self, world: World, thrower: Thrower) -> None:
        self._world = world
        self._thrower = thrower

    def drive(self, job: SoakJob) -> Story:
        """Send a job until it has ended, and compare the end with what it must be."""
        story = Story(job.job_id, job.kind)
        for method, where, faults in job.s3_faults:
            part = f"{job.job_id}/result.json" if where == "result.json" else f"{job.job_id}/2/"
            self._world.proxy.fail(method, part, *faults)
        if job.input_object is not None:
            key, content = job.input_object
            self._world.direct.put_object(Bucket=INPUT_BUCKET, Key=key, Body=content)
        try:
            if job.copies == 1:
                ends = [self._deliver(job, story)]
            else:
                with ThreadPoolExecutor(job.copies) as threads:
                    ends = list(threads.map(lambda _: self._deliver(job, story), range(job.copies)))
            self._judge_end(job, story, [end for end in ends if end is not None])
        except Exception as error:
            story.problems.append(f"the soak itself failed: {type(error).__name__}: {error}")
        self._world.proxy.heal(job.job_id)
        if not story.problems and len(story.lines) == 1:
            story.lines.clear()  # thousands of lines would look like a leak
        return story

    def _deliver(self, job: SoakJob, story: Story) -> Outcome | None:
        """Deliver a job until it ends. Returns the last outcome, or None if none ended the job."""
        for _ in range(MAX_DELIVERIES):
            outcome, is_right = self._deliver_once(job, story)
            if not is_right:
                return None
            if not (outcome.job.error and outcome.job.error.retryable):
                return outcome
            if self._result(job) is not None and job.copies == 1:
                story.problems.append("a failure that may be retried has left a result")
            time.sleep(0.05)
        story.problems.append(f"not over after {MAX_DELIVERIES} deliveries")
        return None

    def _deliver_once(self, job: SoakJob, story: Story) -> tuple[Outcome, bool]:
        was_canceled = threading.Event()
        began = time.monotonic()
        with self._canceling(job, was_canceled):
            outcome = self._world.worker.run(_Request(job), Call(is_heard=job.is_heard))
        outcome.release()
        ended = time.monotonic()
        story.problems += self._foreign(job, outcome.job.outputs) + self._world.canaries.harmed()
        story.deliveries += 1
        story.longest_s = max(story.longest_s, ended - began)
        troubles = self._thrower.during(began, ended)
        code = outcome.job.error.code if outcome.job.error else ""
        right = self._right_codes(job, story, troubles, was_canceled=was_canceled.is_set())
        message = outcome.job.error.message[:300] if outcome.job.error else ""
        thrown = ", ".join(trouble.name for trouble in troubles) or "nothing"
        s3 = ", ".join(f"{method} {fault.value}" for method, fault in self._world.proxy.struck(job.job_id)) or "nothing"
        story.lines.append(
            f"delivery {story.deliveries}: {code or 'succeeded'} after {ended - began:.2f} s; thrown at the engine: "
            f"{thrown}; at S3: {s3}. {message}"
        )
        story.code = code
        story.lost_to_s3 += code in _S3_FAILURES
        if code not in right:
            story.problems.append(f"{code or 'succeeded'} instead of {', '.join(sorted(right)) or 'success'!r}")
        if ended - began > LONGEST_DELIVERY_S:
            story.problems.append(f"took {ended - began:.0f} s")
        return outcome, code in right

    def _foreign(self, job: SoakJob, outputs: Sequence[Output]) -> list[str]:
        """What was delivered and is somebody else's."""
        problems = []
        for output in outputs:
            others = owners_of(self._content(output) or b"") - {job.owner}
            problems += [f"{output.name} of node {output.node_id} is {other}'s, not {job.owner}'s" for other in others]
        return problems

    @contextmanager
    def _canceling(self, job: SoakJob, was_canceled: threading.Event) -> Iterator[None]:
        """Cancel the job meanwhile, if it is one to be canceled."""
        if job.cancel_after_s is None:
            yield
            return

        def cancel() -> None:
            if self._world.worker.cancel(job.job_id):
                was_canceled.set()

        timer = threading.Timer(job.cancel_after_s, cancel)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def _right_codes(
        self, job: SoakJob, story: Story, troubles: list[Trouble], *, was_canceled: bool
    ) -> frozenset[str]:
        right = {job.code}
        if job.code == "canceled":
            right = {"canceled", ""} if was_canceled else {""}
        for trouble in troubles:
            right |= trouble.allows
        if len(troubles) > 1 and any(trouble.name == OUT_OF_MEMORY for trouble in troubles):
            # The one second chance may have been used up by a crash, or by lost frames.
            right.add("out_of_memory")
        if story.lost_to_s3 < job.costs_deliveries * job.copies:
            right |= _S3_FAILURES
        return frozenset(right)

    def _judge_end(self, job: SoakJob, story: Story, ends: list[Outcome]) -> None:
        if len({end.job.to_stored_bytes() for end in ends if end.is_recorded}) > 1:
            story.problems.append("two answers to the same job")
        if len(ends) != job.copies:
            return
        end, stored = ends[0], self._result(job)
        # A caller who learns that a job was not even begun sends it again or leaves it: the same id may still run.
        was_ended_early = story.code in _EARLY_ENDS and not end.has_run and not end.is_recorded
        is_refusal = job.is_heard and (job.code in _REFUSALS or was_ended_early)
        if is_refusal != (stored is None):
            story.problems.append("it has left a result" if is_refusal else "it has left no result")
        if stored is None:
            return
        if stored.to_stored_bytes() != end.job.to_stored_bytes():
            story.problems.append("the answer is not the result in S3")
        if stored.error is None:
            self._judge_pictures(job, story, stored)
            self._judge_files(job, story, stored)

    def _judge_pictures(self, job: SoakJob, story: Story, stored: Job) -> None:
        for picture in job.pictures:
            outputs = [output for output in stored.outputs if output.node_id == picture.node_id]
            is_told = job.is_frames and any("websocket was lost" in warning for warning in stored.warnings)
            if len(outputs) != picture.count and not is_told:
                story.problems.append(f"{len(outputs)} pictures of node {picture.node_id}, not {picture.count}")
            for output in outputs:
                problem = self._look_at(output, picture)
                if problem is not None:
                    story.problems.append(f"{output.name} of node {output.node_id} {problem}")

    def _judge_files(self, job: SoakJob, story: Story, stored: Job) -> None:
        painting = {picture.node_id for picture in job.pictures}
        found = {
            f"{output.node_id}/{output.name}": self._content(output)
            for output in stored.outputs
            if output.node_id not in painting
        }
        if found != job.files:
            story.problems.append(f"its files are {found}, not {dict(job.files)}")

    def _content(self, output: Output) -> bytes | None:
        assert output.s3_uri is not None
        return self._read(output.s3_uri.removeprefix(f"s3://{OUTPUT_BUCKET}/"))

    def _look_at(self, output: Output, picture: Picture) -> str | None:
        """The problem of a picture in S3; None if it is right."""
        content = self._content(output)
        if content is None or hashlib.sha256(content).hexdigest() != output.sha256:
            return "is not in S3" if content is None else "is not what its result says"
        with Image.open(io.BytesIO(content)) as image:
            colors: Any = image.convert("RGB").getcolors()
            if image.size != (output.width, output.height):
                return f"has {image.size} pixels"
        if picture.color is None:
            return None
        is_plain = colors is not None and len(colors) == 1
        return None if is_plain and _is_like(colors[0][1], picture.color) else f"is not {picture.color}"

    def _result(self, job: SoakJob) -> Job | None:
        content = self._read(f"{job.job_id}/result.json")
        return None if content is None else Job.model_validate_json(content)

    def _read(self, key: str) -> bytes | None:
        try:
            return self._world.direct.get_object(Bucket=OUTPUT_BUCKET, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                raise
            return None


def _is_like(color: tuple[int, int, int], wanted: tuple[int, int, int]) -> bool:
    """Whether two colours match: nodes count in fractions, and may be one level off."""
    return all(abs(one - other) <= 1 for one, other in zip(color, wanted, strict=True))


def count_codes(stories: list[Story]) -> Counter[str]:
    """How jobs ended."""
    return Counter(story.code or "succeeded" for story in stories)
