"""What DISPATCH_PARAMETER says: where jobs are run. A GPU stack writes it (`infra/`), and whoever sends jobs reads it.

{"backend": "sagemaker", "endpoint_name": …, "batch_queue_url": …}
{"backend": "queue", "job_queue_url": …, "batch_queue_url": …}
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from comfy_serverless.errors import InvalidSetting


@dataclass(frozen=True, slots=True)
class EndpointTarget:
    """An endpoint of SageMaker, and the queue before it where jobs of batches wait."""

    endpoint_name: str
    batch_queue_url: str

    def to_text(self) -> str:
        """The parameter's value."""
        return json.dumps(
            {"backend": "sagemaker", "endpoint_name": self.endpoint_name, "batch_queue_url": self.batch_queue_url}
        )


@dataclass(frozen=True, slots=True)
class QueueTarget:
    """Two queues with Lambda functions behind them."""

    job_queue_url: str
    batch_queue_url: str

    def to_text(self) -> str:
        """The parameter's value."""
        return json.dumps(
            {"backend": "queue", "job_queue_url": self.job_queue_url, "batch_queue_url": self.batch_queue_url}
        )


def parse_target(text: str) -> EndpointTarget | QueueTarget:
    """Read the parameter's value. Further fields are ignored.

    Raises:
        InvalidSetting: it is neither of the two.
    """
    try:
        match json.loads(text):
            case {"backend": "sagemaker", "endpoint_name": str(name), "batch_queue_url": str(batch_url)}:
                return EndpointTarget(name, batch_url)
            case {"backend": "queue", "job_queue_url": str(url), "batch_queue_url": str(batch_url)}:
                return QueueTarget(url, batch_url)
    except ValueError:
        pass
    raise InvalidSetting(
        f"the parameter of DISPATCH_PARAMETER holds {text[:200]!r}; it must be "
        '{"backend": "sagemaker", "endpoint_name": …, "batch_queue_url": …} or '
        '{"backend": "queue", "job_queue_url": …, "batch_queue_url": …}'
    )
