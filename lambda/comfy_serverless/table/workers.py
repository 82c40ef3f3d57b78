"""What may be asked of the workers that run jobs, wherever they are: `table.dispatch` has each kind of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.table.live import DEFAULT


class Workers(Protocol):
    """The workers that run jobs, behind a queue or an endpoint."""

    def send(self, message: JobMessage, *, delay_s: int = 0, is_batch: bool = False) -> None:
        """Send them a job.

        Args:
            delay_s: how long the message stays invisible, if that is possible.
            is_batch: whether it is a job of a batch: jobs that a caller waits for go first.
        """

    def send_many(self, messages: Sequence[JobMessage]) -> None:
        """Send them jobs of a batch, in as few calls as possible."""
        for message in messages:
            self.send(message, is_batch=True)

    def depth(self, *, is_batch: bool = False) -> int:
        """How many jobs wait, about: jobs of batches, or those that a caller waits for."""

    def still_wait(self, *, is_batch: bool = False) -> bool:
        """Whether messages wait, here or at workers that had jobs before."""
        return self.depth(is_batch=is_batch) > 0

    def may_hold(self, *, is_batch: bool = False) -> bool:  # noqa: ARG002
        """Whether invisible messages may wait for a machine, which can take hours with GPUs."""
        return False

    def worker_image(self) -> str:
        """The name of their image, which says what nodes they have; "" if it is not known."""
        return ""

    def release(self) -> tuple[str, str]:
        """The name of their release, and what its image was built from (`release_file`); "" where it is not known."""
        return DEFAULT, ""

    def build_of(self, release: str) -> tuple[str, str] | None:
        """The name of a release's image, and what that was built from; None if no release is called so."""
        name, version = self.release()
        return (self.worker_image(), version) if release == name else None
