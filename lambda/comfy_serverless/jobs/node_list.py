"""The node classes that the workers have: a worker lists them, and the API refuses workflows that no worker can run.

    worker ──► engine/{its image}[/{release}].json ──► the API, if jobs go to workers of that image

Each image of workers has a list of its own: when GPUs come or go, or other nodes with another image, the old workers'
list says nothing of the new ones. How long a list counts: `engine_documents`. Without a list nothing is refused here:
the engine itself does that, later.

Beside it stands what ComfyUI declares of these classes (`jobs.declarations`).

A second list has the packs that did not import there: it says why a class is missing. It is a document of its own,
because an API of an older release reads the first one as it is.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.connector.import_report import NotImported
from comfy_serverless.connector.refusals import pack_of, why_unknown
from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.node_errors import node_errors_of
from comfy_serverless.jobs.declarations import DeclarationsWriter
from comfy_serverless.jobs.engine_documents import CLASSES, NOT_IMPORTED, Build, Told, tell, told
from comfy_serverless.jobs.outward import outward
from comfy_serverless.observability import log
from comfy_serverless.redaction import redacted

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: How often a busy worker writes its lists anew, in seconds; see `engine_documents` for how long they count.
WRITTEN_EVERY_S = 600
#: How long after a write that failed the next job's tries again, in seconds.
WRITTEN_AGAIN_AFTER_S = 30
#: The name under which workers of release 0.1.0 write theirs, whatever their image is.
_OF_FIRST_RELEASE = Build("nodes")
#: How long the API waits before it reads the list again, in seconds.
_KNOWN_S = 60.0


@dataclass(slots=True)
class NodeListWriter:
    """Writes the lists of one worker, in a thread.

    Attributes:
        object_info: asks the engine what it declares of its node classes.
        lost: returns the packs that it could not import.
    """

    s3: S3Client
    bucket: str
    image: str
    object_info: Callable[[], Mapping[str, Any]]
    lost: Callable[[], Iterable[NotImported]]
    release: str = ""
    _declarations: DeclarationsWriter = field(init=False)
    _written_at: float = field(default=float("-inf"))
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._declarations = DeclarationsWriter(self.s3, self.bucket, self.image, self.release)

    def write_if_due(self) -> None:
        """Begin to write the list, unless that was done lately. Returns at once."""
        if time.monotonic() - self._written_at < WRITTEN_EVERY_S:
            return
        self._written_at = time.monotonic()
        self._thread = threading.Thread(target=self._write, name="node list", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> None:
        """Wait for a write that has begun."""
        if self._thread is not None:
            self._thread.join(max(0.0, timeout_s))

    def _write(self) -> None:
        try:
            object_info = self.object_info()
            # In this order: the API must not refuse a class of a lost pack without saying so, and takes workers that
            # list their classes alone for those of an older release.
            self._tell(NOT_IMPORTED, [_to_json(pack) for pack in self.lost()])
            self._declarations.write(object_info)
            self._tell(CLASSES, sorted(object_info))
        except Exception as error:  # noqa: BLE001  (nothing depends on the list)
            self._written_at = time.monotonic() - WRITTEN_EVERY_S + WRITTEN_AGAIN_AFTER_S
            log.warning("the list of node classes was not written", reason=redacted(error))

    def _tell(self, what: str, content: object) -> None:
        for key in Build(self.image, self.release).keys(what):
            tell(self.s3, self.bucket, key, content)


@dataclass(slots=True)
class NodeListReader:
    """Reads the lists for the API.

    Attributes:
        image: names that of the workers that jobs go to now; "" if it is not known.
        release: names what it was built from; "" if it is not known.
    """

    s3: S3Client
    bucket: str
    image: Callable[[], str]
    release: Callable[[], str] = str
    _build: Build = Build("")  # noqa: RUF009 - it cannot be changed
    _classes: frozenset[str] = frozenset()
    _lost: tuple[NotImported, ...] | None = None
    _told: Told | None = None
    _read_at: float = field(default=float("-inf"))

    def check(self, graph: Mapping[str, Any]) -> None:
        """Raise InvalidWorkflow for nodes that the workers do not have, all of them in `node_errors`."""
        if not self.is_known():
            return
        unknown = {
            node_id: node["class_type"] for node_id, node in graph.items() if node["class_type"] not in self._classes
        }
        if unknown:
            lost = self._lost_packs()
            first, class_type = next(iter(unknown.items()))
            raise InvalidWorkflow(
                f"{len(unknown)} of {len(graph)} nodes are of classes that ComfyUI does not have on the workers, e.g. "
                f"node {first} ({class_type}){_whose(class_type, lost)}: put the custom node into the image, or "
                f"correct the name. {why_unknown(lost)}.",
                details=node_errors_of(
                    unknown,
                    lambda _, class_type: (
                        class_type,
                        f"there is no node class {class_type!r}{_whose(class_type, lost)}",
                    ),
                    error_type="missing_node_type",
                ),
            )

    def not_imported(self) -> tuple[NotImported, ...]:
        """The packs that did not import on the worker that has told it last; none if no worker has told it lately."""
        return self._lost_packs() if self.is_known() else ()

    def is_known(self) -> bool:
        """Whether there are lists that count; reads them anew once in a while."""
        build = Build(self.image(), self.release())
        if build != self._build or time.monotonic() - self._read_at >= _KNOWN_S:
            self._read(build)
        return self._told is not None and self._told.counts()

    def is_told(self) -> bool:
        """Whether workers have listed their classes lately: those of this image, or of release 0.1.0, any of them."""
        if self.is_known():
            return True
        try:
            found = told(self.s3, self.bucket, _OF_FIRST_RELEASE, CLASSES)
        except (ClientError, BotoCoreError):
            return False
        return found is not None and found.counts()

    def _read(self, build: Build) -> None:
        self._build, self._read_at = build, time.monotonic()
        self._told, self._lost = None, None
        try:
            found = told(self.s3, self.bucket, build, CLASSES)
            if found is not None:
                self._classes, self._told = frozenset(json.loads(found.content)), found
        except (ClientError, BotoCoreError, ValueError, TypeError):
            log.debug("there is no usable list of node classes", image=build.image, exc_info=True)

    def _lost_packs(self) -> tuple[NotImported, ...]:
        """The packs that belong to the list; read when they are asked for, which most requests do not."""
        if self._lost is None:
            self._lost = lost_packs(self.s3, self.bucket, self._build)
        return self._lost


def lost_packs(s3: S3Client, bucket: str, build: Build) -> tuple[NotImported, ...]:
    """The packs that did not import on workers of a build, as they have told; none if they have told nothing."""
    try:
        found = told(s3, bucket, build, NOT_IMPORTED)
        return () if found is None else tuple(map(_from_json, json.loads(found.content)))
    except (ClientError, BotoCoreError, ValueError, TypeError, KeyError, AttributeError):
        return ()  # workers of an older release write none


def _whose(class_type: str, lost: Iterable[NotImported]) -> str:
    """What is known of a class that is missing, to stand after its name."""
    pack = pack_of(class_type, lost)
    return "" if pack is None else f", which is of {pack.pack}, which did not import: {pack.reason}"


def _to_json(lost: NotImported) -> dict[str, Any]:
    return {"pack": lost.pack, "reason": lost.reason, "classes": sorted(lost.classes)}


def _from_json(pack: Mapping[str, Any]) -> NotImported:
    return NotImported(str(pack["pack"]), outward(str(pack["reason"])), classes=frozenset(pack.get("classes") or ()))
