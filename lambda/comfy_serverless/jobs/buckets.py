"""The buckets that requests may name: to read inputs, models and workflows from, and to have results written to.

Every door asks before a job is queued, because a role that may not write finds out only after the workflow has run. The
worker asks again: it may be a stack of its own, with a list of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from comfy_serverless.errors import InvalidRequest, MissingAsset
from comfy_serverless.graph.file_inputs import as_address, fetched_addresses, is_address, missing_in, scheme_of
from comfy_serverless.jobs.reserved import everything_in

if TYPE_CHECKING:
    from comfy_serverless.jobs.request import JobRequest
    from comfy_serverless.settings import Settings


@dataclass(frozen=True, slots=True)
class Buckets:
    """Those of a deployment.

    Attributes:
        inputs: to read from; empty for all that the role may read.
        outputs: to write to; empty for all that the role may write to.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The buckets, by the settings. OUTPUT_BUCKET may always be written to."""
        own = (settings.output_bucket,) if settings.output_bucket is not None else ()
        outputs = settings.allowed_output_buckets
        return cls(settings.allowed_input_buckets, tuple(dict.fromkeys((*own, *outputs))) if outputs else ())

    def and_inputs(self, bucket: str) -> Buckets:
        """These, and one more to read from."""
        return Buckets((*self.inputs, bucket), self.outputs) if self.inputs else self

    def check_output(self, request: JobRequest) -> None:
        """Raise InvalidRequest if the results would go to another bucket."""
        bucket = request.output.bucket
        if bucket is None or not self.outputs or bucket in self.outputs:
            return
        raise InvalidRequest(
            f"results cannot go to the bucket {bucket!r}: ALLOWED_OUTPUT_BUCKETS allows {', '.join(self.outputs)}. Add "
            "it to the stack's parameter OutputBuckets (and to output_buckets of a GPU stack), or leave "
            "`output.bucket` out."
        )

    def check_inputs(self, request: JobRequest, graph: Mapping[str, Any] | None) -> None:
        """Raise MissingAsset if something would be fetched from another bucket.

        Args:
            graph: of the request, with its `set` applied; None if it is not known yet, and the worker will judge it.
        """
        for where, address in _fetched(request, graph):
            if not self._may_read(address) and (missing := missing_in(address)):
                raise InvalidRequest(f"{where} cannot be used: {address[:200]} {missing}.")
            if not self._may_read(address):
                raise MissingAsset(
                    f"{where} cannot be used: {address[:200]} is in none of the buckets that ALLOWED_INPUT_BUCKETS "
                    f"allows ({', '.join(self.inputs)}). Add its bucket to the stack's parameter InputBuckets (and to "
                    "input_buckets of a GPU stack), or copy it to the input bucket.",
                    details={"address": address[:200]},
                )

    def names_foreign(self, value: object) -> bool:
        """Whether an address in another bucket is anywhere in a value, fetched or not. Quick."""
        return bool(self.inputs) and any(
            isinstance(one, str) and not self._may_read(as_address(one)) for one in everything_in(value)
        )

    def _may_read(self, address: str) -> bool:
        if not self.inputs or not is_address(address) or scheme_of(address) != "s3":
            return True
        return address[len("s3://") :].partition("/")[0] in self.inputs


def _fetched(request: JobRequest, graph: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """What a worker would fetch for a request: what it is for people, and its address."""
    if isinstance(request.workflow, str):
        yield "the workflow", request.workflow
    for name, given in request.inputs.items():
        for address in everything_in(given):
            if isinstance(address, str):
                yield f"the input {name[:100]!r}", address
    for model in request.models:
        yield f"the model {model.path!r}", model.url
    if graph is not None:
        for place, address in fetched_addresses(graph, request.inputs):
            yield f"the input {place[:100]!r}", address
