"""What the parameter of DISPATCH_PARAMETER says, and a release's own parameter: who runs jobs, and where they wait.

    {"backend": "sagemaker", "endpoint_name": …, "batch_queue_url": …, "job_queue_url": …, "image": …}
    {"backend": "queue", "job_queue_url": …, "batch_queue_url": …, "image": …}

`image` names the workers' image (`WORKER_IMAGE`), and `release_version` beside it what that was built from; stacks of
older releases do not say them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from comfy_serverless.errors import InvalidSetting


@dataclass(frozen=True, slots=True)
class EndpointTarget:
    """An endpoint of SageMaker, and the queues before it.

    Attributes:
        job_queue_url: empty if a GPU stack of the release before has written it: callers' jobs go straight to its
            endpoint.
    """

    endpoint_name: str
    batch_queue_url: str
    job_queue_url: str = ""
    image: str = ""
    release_version: str = ""

    def to_text(self) -> str:
        """The parameter's value."""
        return _target_text("sagemaker", asdict(self))


@dataclass(frozen=True, slots=True)
class QueueTarget:
    """Two queues with Lambda functions behind them."""

    job_queue_url: str
    batch_queue_url: str
    image: str = ""
    release_version: str = ""

    def to_text(self) -> str:
        """The parameter's value."""
        return _target_text("queue", asdict(self))


def _target_text(backend: str, fields: Mapping[str, str | None]) -> str:
    return json.dumps({"backend": backend, **{name: value for name, value in fields.items() if value}})


def parse_target(text: str, *, what: str = "the parameter of DISPATCH_PARAMETER") -> EndpointTarget | QueueTarget:
    """Read the parameter's value; further fields are ignored. Raises InvalidSetting if it is neither of the two."""
    try:
        match fields := json.loads(text):
            case {"backend": "sagemaker", "endpoint_name": str(name), "batch_queue_url": str(batch_url)}:
                return EndpointTarget(name, batch_url, str(fields.get("job_queue_url", "")), *_build_of(fields))
            case {"backend": "queue", "job_queue_url": str(url), "batch_queue_url": str(batch_url)}:
                return QueueTarget(url, batch_url, *_build_of(fields))
    except ValueError:
        pass
    raise InvalidSetting(
        f"{what} holds {text[:200]!r}; it must be "
        '{"backend": "sagemaker", "endpoint_name": …, "job_queue_url": …, "batch_queue_url": …} or '
        '{"backend": "queue", "job_queue_url": …, "batch_queue_url": …}'
    )


def _build_of(fields: Mapping[str, object]) -> tuple[str, str]:
    """The workers' image, and what it was built from, as far as a target says it."""
    return str(fields.get("image", "")), str(fields.get("release_version", ""))
