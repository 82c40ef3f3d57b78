"""What every door asks for a request that names a workflow; `workflows.finding` answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from comfy_serverless.jobs.request import JobRequest


class NamedWorkflows(Protocol):
    """Turns names into workflows."""

    def expand(self, request: JobRequest, *, owner: str, key: str) -> JobRequest:
        """The request with the workflow's graph in it, if `workflow` is a name; otherwise the request itself.

        Its inputs by name are checked, and are put where they belong; its labels say `workflow` and `version`.

        Args:
            owner: whose workflows are looked for first; then those that the operator shares.
            key: decides between two versions, if an alias has a weight: the same key, the same version.

        Raises:
            InvalidRequest: there is no such workflow, or the inputs do not fit; `details` has every problem.
        """

    def pinned(self, request: JobRequest, *, owner: str, key: str) -> JobRequest:
        """The request with the number of the version in its name (`poster@3`), and its inputs checked.

        Raises as `expand`.
        """
