"""`comfy-serverless workflows client`: the typed client of a workflow, on standard output."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from comfy_serverless.cli.habits import print_json
from comfy_serverless.cli.named import which

if TYPE_CHECKING:
    from comfy_serverless.cli.named.registry import Registry


def print_client(registry: Registry, options: argparse.Namespace) -> int:
    """Print it; of `shared/NAME` that of the operator's workflow. Raises NotFound if no version is meant."""
    from comfy_serverless.cli.named.client.generate import Described, client_of
    from comfy_serverless.errors import NotFound
    from comfy_serverless.workflows.reference import LIVE

    reference, is_shared = which.meant_by(options.reference)
    given = [reference.version is not None or reference.alias != LIVE, options.alias is not None]
    if sum([*given, options.number is not None]) > 1:
        options.wrong_usage("which version? Give one of NAME@…, --alias and --version")
    number = reference.version if options.number is None else options.number
    alias = None if number is not None else options.alias or reference.alias
    told = registry.described(
        reference.name, alias=None if alias == LIVE else alias, version=number, is_shared=is_shared
    )
    if "version" not in told:
        raise NotFound(
            f"no version of {reference.name!r} is {alias}: `comfy-serverless workflows promote {reference.name} "
            f"{told.get('latest')}` makes one live, or give --version."
        )
    text = client_of(
        Described(
            name=reference.name,
            number=told["version"],
            alias=alias or "",
            schema=told["schema"],
            outputs={str(one["name"]): str(one["node_id"]) for one in told["outputs"]},
            description=told.get("description") or "",
            is_shared=is_shared or options.shared,
        )
    )
    if options.json:
        print_json({"name": reference.name, "version": told["version"], "alias": alias, "client": text})
    else:
        print(text, end="", flush=True)
    return 0
