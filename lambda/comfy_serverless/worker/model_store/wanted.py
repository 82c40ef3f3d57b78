"""A model that a job wants, with the content that it is held to."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_serverless.jobs.request import ModelRequest


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model of a request, whose content is known.

    Attributes:
        model: as it was asked for.
        sha256: of its content, whoever says so.
        said: who says so, as the end of "not … ": "as the job says".
        size_bytes: of its content; None if nobody says.
    """

    model: ModelRequest
    sha256: str
    said: str = "as the job says"
    size_bytes: int | None = None

    @property
    def url(self) -> str:
        """Where it comes from."""
        return self.model.url

    @property
    def path(self) -> str:
        """Folder and name, below the folder of all models."""
        return self.model.path

    @property
    def called(self) -> str:
        """What a workflow calls it by."""
        return self.model.called

    @property
    def file_name(self) -> str:
        """The file's name in its folder."""
        return self.model.file_name
