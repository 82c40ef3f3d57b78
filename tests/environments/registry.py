"""A small Comfy Registry on 127.0.0.1, with the routes that docs/environments.md names.

Archives are ZIPs, also where their name says tar.gz, as the real one's are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.environments import packs
from tests.environments.local_server import Answer, LocalServer, as_json

ACTIVE, PENDING, FLAGGED, BANNED, DELETED = (
    f"NodeVersionStatus{word}" for word in ("Active", "Pending", "Flagged", "Banned", "Deleted")
)


@dataclass(frozen=True, slots=True)
class Published:
    """One version of a pack in the registry."""

    archive: bytes
    dependencies: tuple[str, ...] = ()
    status: str = ACTIVE
    file_name: str = "node.zip"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.archive).hexdigest()


class Registry(LocalServer):
    """`url` is the base address of its API.

    Attributes:
        published: id -> version -> what was published.
        classes: class of a node -> id of the pack that the registry says has it. It may be wrong, as the real one is.
        trouble: of any path (`/nodes/kit-good`, `/archives/kit-good/1.0.0/node.zip`), see `LocalServer`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.published: dict[str, dict[str, Published]] = {}
        self.classes: dict[str, str] = {}
        self.repositories: dict[str, str] = {}

    def publish(
        self,
        name: str,
        version: str | None = None,
        *,
        status: str = ACTIVE,
        file_name: str = "node.zip",
        files: Mapping[str, bytes] | None = None,
        classes: Iterable[str] = (),
        repository: str = "",
    ) -> Published:
        """Publish a pack of the kit, or other files, under the id of that name."""
        version = version or packs.versions(name)[-1]
        found = packs.files(name, version) if files is None else files
        made = Published(packs.archive(found), tuple(packs.declared(found)), status, file_name)
        node = packs.registry_id(name)
        self.published.setdefault(node, {})[version] = made
        self.repositories[node] = repository or f"https://git.example.com/kit/{name}"
        self.classes.update(dict.fromkeys(classes, node))
        return made

    def answer(self, path: str, query: Mapping[str, str], accept: str) -> Answer:
        match path.strip("/").split("/"):
            case ["nodes", "search"]:
                found = [self._node(node) for node in sorted(self.published) if query.get("search", "") in node]
                return as_json({"nodes": found, "total": len(found), "page": 1, "limit": 10, "totalPages": 1})
            case ["nodes", node] if node in self.published:
                return as_json(self._node(node))
            case ["nodes", node, "versions"] if node in self.published:
                return as_json([self._version(node, version) for version in reversed(self.published[node])])
            case ["nodes", node, "versions", version] if version in self.published.get(node, ()):
                return as_json(self._version(node, version))
            case ["nodes", node, "install"] if node in self.published:
                return self._install(node, query.get("version", ""))
            case ["comfy-nodes", class_type, "node"] if class_type in self.classes:
                return as_json(self._node(self.classes[class_type]))
            case ["archives", node, version, _] if version in self.published.get(node, ()):
                return Answer(body=self.published[node][version].archive, content_type="application/zip")
        return as_json({"message": "Node not found", "error": ""}, 404)

    def _install(self, node: str, version: str) -> Answer:
        wanted = version or self._latest(node)
        if wanted not in self.published[node]:
            return as_json({"message": "Not found", "error": ""}, 404)
        return as_json(self._version(node, wanted))

    def _latest(self, node: str) -> str:
        """The newest version that is active: a pending one is not handed out before somebody has looked at it."""
        active = [version for version, made in self.published[node].items() if made.status == ACTIVE]
        return active[-1] if active else ""

    def _node(self, node: str) -> dict[str, Any]:
        latest = self._latest(node)
        return {
            "id": node,
            "name": node.replace("-", " "),
            "publisher": {"id": "kit", "name": "kit"},
            "repository": self.repositories[node],
            "status": "NodeStatusActive",
            **({"latest_version": self._version(node, latest)} if latest else {}),
        }

    def _version(self, node: str, version: str) -> dict[str, Any]:
        made = self.published[node][version]
        return {
            "id": f"{node}@{version}",
            "node_id": node,
            "version": version,
            "createdAt": "2026-10-01T12:00:00Z",
            "changelog": "",
            "deprecated": False,
            "dependencies": list(made.dependencies),
            "status": made.status,
            "downloadUrl": f"{self.url}/archives/{node}/{version}/{made.file_name}",
        }
