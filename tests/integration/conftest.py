"""AWS on this machine for the integration tests: a local S3, and workers under the real Lambda emulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo.samples import worker_environment
from demo.seed import seed
from local.aws.lambda_emulator import HANDLER, SOURCE_ROOT, LambdaEmulator
from local.aws.server import LocalAws

#: `worker(environment={...}, timeout_s=60)` starts one; it is stopped after the test.
WorkerFactory = Callable[..., LambdaEmulator]


@pytest.fixture(scope="session")
def local_s3() -> Iterator[LocalAws]:
    """A local S3 with the buckets and objects that the sample events name."""
    with LocalAws() as s3:
        seed(s3.client())
        yield s3


@pytest.fixture
def worker(local_s3: LocalAws) -> Iterator[WorkerFactory]:
    """Starts workers: the real handler with the embedded engine, unless asked for another."""
    with ExitStack() as started:

        def start(
            *,
            environment: Mapping[str, str] | None = None,
            handler: str = HANDLER,
            timeout_s: int = 60,
            source_root: Path = SOURCE_ROOT,
            log_path: Path | None = None,
        ) -> LambdaEmulator:
            settings = {**local_s3.environment, **worker_environment(), **(environment or {})}
            return started.enter_context(
                LambdaEmulator(handler, settings, timeout_s=timeout_s, source_root=source_root, log_path=log_path)
            )

        yield start


@pytest.fixture(scope="session")
def warm_worker(local_s3: LocalAws) -> Iterator[LambdaEmulator]:
    """One worker for all tests that do not mind what ran on it before."""
    environment = {**local_s3.environment, **worker_environment()}
    with LambdaEmulator(environment=environment, timeout_s=60) as emulator:
        yield emulator
