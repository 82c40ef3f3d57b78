"""What every door asks for a request that names a workflow; `workflows.finding` answers.

    payload, SQS, HTTP, a drop to the worker ──► the worker expands it
    POST …/runs, /generate, an agent's tool,
    a drop into the stack                    ──► expanded before the job is stored: workers get a graph
    a line of a manifest                     ──► checked and pinned by the keeper; the worker expands `poster@3`

A graph that comes of it is the caller's as any: what it names is judged as if the caller had sent it, whoever wrote it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.errors import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from comfy_serverless.jobs.line_ids import Question
    from comfy_serverless.jobs.request import JobRequest

#: The labels of a job that say which named workflow it ran, and which version of it.
WORKFLOW_LABEL, VERSION_LABEL = "workflow", "version"


class Named(Protocol):
    """Makes graphs of names, for whoever runs a request."""

    def expand(self, request: JobRequest, *, owner: str, key: str, was_taken: bool = False) -> JobRequest:
        """The request with the workflow's graph in it, if `workflow` is a name; otherwise the request itself.

        Its inputs by name are checked, and are put where they belong; its labels say `workflow` and `version`.

        Args:
            owner: whose workflows are looked for first; then those that the operator shares.
            key: decides between two versions, if an alias has a weight: the same key, the same version.
            was_taken: whether it is a job's, and was pinned as that was taken: then its version is found although the
                workflow was retired, or is shared no more, since.

        Raises:
            InvalidRequest: there is no such workflow, or the inputs do not fit; `details` has every problem.
        """

    def with_file(self, workflow: str, address: str, *, media: str, owner: str, key: str) -> JobRequest:
        """A request for a workflow, pinned, that gets a file: in the only input that takes files of its kind.

        Args:
            media: the kind of file as `NamedInput.media` has it: `image`, `video`, …; "" if it is not known.

        Raises:
            InvalidRequest: there is no such workflow, or not one such input.
        """


class NamedWorkflows(Named, Protocol):
    """Turns names into workflows, and says what they lead to."""

    def pinned(self, request: JobRequest, *, owner: str, key: str) -> JobRequest:
        """The request with the number of the version in its name (`poster@3`), and its inputs checked.

        Raises as `expand`.
        """

    def draws(self, question: Question, *, owner: str) -> bool:
        """Whether something random is left in a workflow, in any version that its name may mean now.

        Raises as `expand`.
        """

    def remembering(self) -> NamedWorkflows:
        """The same workflows for many requests in a row: where a name leads is looked up once."""


def expanded(named: Named, request: JobRequest, *, owner: str, key: str, was_taken: bool = False) -> JobRequest:
    """As `Named.expand`. Raises UpstreamError, too, if the table or S3 does not answer."""
    if not request.is_named:
        return request
    with _looked_up(request.workflow):
        return named.expand(request, owner=owner, key=key, was_taken=was_taken)


def pinned(named: NamedWorkflows, request: JobRequest, *, owner: str, key: str) -> JobRequest:
    """As `NamedWorkflows.pinned`. Raises UpstreamError, too, if the table or S3 does not answer."""
    with _looked_up(request.workflow):
        return named.pinned(request, owner=owner, key=key)


def file_for(named: Named, workflow: str, address: str, *, media: str, owner: str, key: str) -> JobRequest:
    """As `Named.with_file`. Raises UpstreamError, too, if the table or S3 does not answer."""
    with _looked_up(workflow):
        return named.with_file(workflow, address, media=media, owner=owner, key=key)


@contextmanager
def _looked_up(workflow: object) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise UpstreamError(
            f"the workflow {str(workflow)[:200]!r} could not be looked up: the table or S3 does not answer. Send the "
            "request again."
        ) from error
