"""What AWS libraries read to make clients: models of services. They are the same for all, a tenth of a second each."""

from __future__ import annotations

from typing import Any, Final, cast

import botocore.session
from botocore.loaders import Loader, create_loader

#: Keeps what it has read.
MODELS: Final[Loader] = create_loader()

_OF_SERVICES: Final = ("service-2", "endpoint-rule-set-1")
_OF_ALL: Final = ("partitions", "endpoints", "sdk-default-configuration", "_retry")


def read() -> None:
    """Read what nearly all of our functions need, for the processes that are forked from this one."""
    for service in ("dynamodb", "s3", "sqs"):
        for kind in _OF_SERVICES:
            MODELS.load_service_model(service, kind, api_version=None)
    for name in _OF_ALL:
        MODELS.load_data(name)


def share() -> None:
    """Let every client of this process be made from them."""
    cast("Any", botocore.session).create_loader = lambda *_: MODELS
