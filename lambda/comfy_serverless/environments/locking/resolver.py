"""What is asked of a resolver, and what it answers: values only. `uv.py` and `pip.py` are the two that there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from comfy_serverless.environments.locking.requirement_lines import Declared


@dataclass(frozen=True, slots=True)
class Question:
    """Which versions go together?

    Attributes:
        lines: what is asked for, and limits.
        given: requirements of what the image has: the stand-ins of torch.
        overrides: replace what anything asks for of that name.
        excluded: names that nothing brings in.
        preferred: versions that are kept where nothing speaks against them.
    """

    lines: tuple[Declared, ...]
    given: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    preferred: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class File:
    """A file of a library: where it was found, its hash and size. `size` is None where the index does not say."""

    url: str
    sha256: str | None
    size: int | None

    @property
    def name(self) -> str:
        """Its own name, without where it is."""
        from urllib.parse import unquote, urlsplit

        return unquote(urlsplit(self.url).path.rpartition("/")[2])


@dataclass(frozen=True, slots=True)
class Found:
    """A library at a version.

    Attributes:
        wheels: those that fit the image; `sdist` its sources.
        direct: the file, where it was asked for by its address.
        git: `git+address@commit`, where it was asked for by a repository.
        via: names of the libraries that ask for it.
    """

    name: str
    version: str
    wheels: tuple[File, ...] = ()
    sdist: File | None = None
    direct: File | None = None
    git: str | None = None
    via: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """All libraries, sorted by name; `warnings` are about versions that were taken back."""

    found: tuple[Found, ...]
    warnings: tuple[str, ...] = ()

    @property
    def versions(self) -> dict[str, str]:
        """name -> version."""
        return {found.name: found.version for found in self.found}


class Unsolvable(Exception):
    """No versions go together. The message is the resolver's own explanation, in one paragraph."""


class NotAnswered(Exception):
    """The resolver could not find out.

    Attributes:
        reason: `index`: it cannot be reached; `login`: it does not let us in; `build`: sources cannot be built here,
            not even to see what they need; `fetch`: an address or repository that is asked for cannot be had; `other`.
        subject: the library or address it is about; "" if it is not known.
    """

    def __init__(
        self, message: str, *, reason: Literal["index", "login", "build", "fetch", "other"] = "other", subject: str = ""
    ) -> None:
        super().__init__(message)
        self.reason, self.subject = reason, subject


class Resolver(Protocol):
    """Something that knows which versions go together."""

    @property
    def name(self) -> str:
        """The program's."""

    @property
    def can_override(self) -> bool:
        """Whether it knows overrides."""

    def resolve(self, question: Question) -> Answer:
        """Answer a question. Raises Unsolvable and NotAnswered."""

    def check(self, question: Question) -> dict[str, str]:
        """Answer with names and versions only, in less time. Raises likewise."""
