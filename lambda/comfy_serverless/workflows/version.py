"""A version of a named workflow, as it is kept: nothing of it ever changes. No IO.

Its document is JSON, kept in S3; another release reads it too. A missing field has its default, an unknown one is
ignored. One that must be understood raises `format`, and `readable_from` with it: older releases refuse the document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.json_text import parse_json

FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedInput:
    """An input of a named workflow: what callers set by its name.

    Attributes:
        targets: the addresses in the graph that the value goes to, each `NODE_ID.INPUT`: `6.text`.
        default: what stands in the graph when nothing is given; None together with `is_required` means there is none.
        choices: of `InputKind.CHOICE`, as they were when the version was made; workers may have others by now.
        is_open: whether values beside the choices are taken.
        is_narrowed: whether the author has chosen the choices: workers take some away, and add none.
        media: of `InputKind.FILE`: `image`, `video`, `audio`, `model3d`, or "" for any file.
    """

    name: str
    targets: tuple[str, ...]
    kind: InputKind
    role: Role = Role.NONE
    title: str = ""
    description: str = ""
    default: object = None
    is_required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[object, ...] = ()
    is_open: bool = False
    is_narrowed: bool = False
    multiline: bool = False
    media: str = ""

    def to_json(self) -> dict[str, Any]:
        """The input as JSON, without what says nothing."""
        told = {
            "role": str(self.role),
            "title": self.title,
            "description": self.description,
            "is_required": self.is_required,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "step": self.step,
            "choices": list(self.choices),
            "is_open": self.is_open,
            "is_narrowed": self.is_narrowed,
            "multiline": self.multiline,
            "media": self.media,
        }
        named = {"name": self.name, "targets": list(self.targets), "kind": str(self.kind), "default": self.default}
        return named | {name: value for name, value in told.items() if _says_something(value)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` of any release has made."""
        role = document.get("role", "")
        return cls(
            name=document["name"],
            targets=tuple(document["targets"]),
            kind=InputKind(document["kind"]) if document["kind"] in set(InputKind) else InputKind.OTHER,
            role=Role(role) if role in set(Role) else Role.NONE,
            title=document.get("title", ""),
            description=document.get("description", ""),
            default=document.get("default"),
            is_required=document.get("is_required", False),
            minimum=document.get("minimum"),
            maximum=document.get("maximum"),
            step=document.get("step"),
            choices=tuple(document.get("choices", ())),
            is_open=document.get("is_open", False),
            is_narrowed=document.get("is_narrowed", False),
            multiline=document.get("multiline", False),
            media=document.get("media", ""),
        )


def _says_something(value: object) -> bool:
    """Whether it is not the default; a bound of 0 is one."""
    return value is not None and (bool(value) or (isinstance(value, int | float) and not isinstance(value, bool)))


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedOutput:
    """An output that its author has named: what a node of the graph makes."""

    name: str
    node_id: str
    title: str = ""

    def to_json(self) -> dict[str, Any]:
        """The output as JSON."""
        return {"name": self.name, "node_id": self.node_id, "title": self.title}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` has made."""
        return cls(name=document["name"], node_id=document["node_id"], title=document.get("title", ""))


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Version:
    """A version.

    Attributes:
        owner: whose it is; "" is the operator.
        number: from 1 on; 0 for a file in WORKFLOWS_DIR.
        graph: in API format.
        editors: as the editor saved it, if it was: goes into ComfyUI's pictures.
        rolled: texts in which something is rolled for every job (`{red|blue}`), by address, as they were written.
        needs: what `graph.needs` says of it; {} if nobody has asked.
        created_by: the name of the key, or of the person, that pushed it.
        release: the release of workers whose declarations it was checked against; "" if none was known.
    """

    name: str
    number: int
    owner: str
    graph: Mapping[str, Any]
    editors: Mapping[str, Any] | None = None
    rolled: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[NamedInput, ...] = ()
    outputs: tuple[NamedOutput, ...] = ()
    needs: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    note: str = ""
    created_at: str = ""
    created_by: str = ""
    release: str = ""

    def to_bytes(self) -> bytes:
        """The document."""
        document = {
            "format": FORMAT,
            "name": self.name,
            "number": self.number,
            "owner": self.owner,
            "graph": self.graph,
            "editors": self.editors,
            "rolled": self.rolled,
            "inputs": [one.to_json() for one in self.inputs],
            "outputs": [one.to_json() for one in self.outputs],
            "needs": self.needs,
            "description": self.description,
            "note": self.note,
            "created_at": self.created_at,
            "created_by": self.created_by,
            "release": self.release,
        }
        told = {name: value for name, value in document.items() if value not in (None, "", {}, [])}
        return json.dumps(told, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")

    @classmethod
    def parse(cls, content: bytes, *, source: str) -> Self:
        """Read the document. Raises InvalidWorkflow, which names `source`, if it is none, or a newer release's."""
        document = parse_json(content, source=source)
        told = document if isinstance(document, Mapping) else {}
        if not _is_readable(told.get("readable_from", FORMAT)):
            raise _of_newer_release(source, told)
        try:
            return cls(
                name=document["name"],
                number=document["number"],
                owner=document.get("owner", ""),
                graph=document["graph"],
                editors=document.get("editors"),
                rolled=document.get("rolled", {}),
                inputs=tuple(map(NamedInput.from_json, document.get("inputs", ()))),
                outputs=tuple(map(NamedOutput.from_json, document.get("outputs", ()))),
                needs=document.get("needs", {}),
                description=document.get("description", ""),
                note=document.get("note", ""),
                created_at=document.get("created_at", ""),
                created_by=document.get("created_by", ""),
                release=document.get("release", ""),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if not _is_readable(told.get("format", FORMAT)):
                raise _of_newer_release(source, told) from error
            raise InvalidWorkflow(f"{source} is no version of a named workflow: push the workflow again.") from error

    @property
    def content_sha256(self) -> str:
        """SHA-256 of what it runs and what it takes, in hex: two versions of the same content are the same workflow."""
        asked = [self.graph, self.rolled, [one.to_json() for one in self.inputs], [o.to_json() for o in self.outputs]]
        return hashlib.sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _is_readable(form: object) -> bool:
    return isinstance(form, int) and form <= FORMAT


def _of_newer_release(source: str, document: Mapping[str, Any]) -> InvalidWorkflow:
    return InvalidWorkflow(
        f"{source} was pushed by a newer release (its format is {str(document.get('format'))[:20]}, and this one knows "
        f"{FORMAT}): deploy that release here too, or use an older version. Nothing of it is lost."
    )
