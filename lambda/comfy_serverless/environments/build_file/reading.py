"""Reads a build file: what it asks for, or every problem it has, with line, key and what to do. No IO."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from comfy_serverless.environments.build_file import rules
from comfy_serverless.environments.build_file.nodes import Fields, Items, Node, Problem, Scalar, refused, tree_of
from comfy_serverless.environments.build_file.values import (
    DEFINITION_SCHEMA,
    SCHEMA,
    BuildFile,
    Model,
    Pack,
    model_order,
    pack_order,
)
from comfy_serverless.graph.near import Guesses
from comfy_serverless.redaction import redact_addresses

_SHOWN: Final = 100
_LARGEST: Final = 2**63
#: How much of a key must be that of another to be taken for it, misspelt.
_LIKE: Final = 0.75
_OF_DEFINITION: Final = frozenset(
    {"schema", "baseComfyVersion", "baseImage", "models", "customNodes", "pipDependencies", "environment"}
)
_KEYS: Final = _OF_DEFINITION | {
    *("definition", "name", "description", "id", "registryVersion", "repository", "gitRef", "blobId", "localPath"),
    *("source", "filename", "type", "sourceUri", "sha256", "sizeBytes"),
}
_COMMENT = re.compile(r"(^|\s)#.*")
_NAMED_EGG = re.compile(r"(?:-e\s+|--editable[\s=]+)?(git\+\S+?)#egg=([A-Za-z0-9._-]+)\S*")


def parse(text: str, *, name: str = "comfy-build.yaml") -> BuildFile:
    """What a build file asks for.

    Args:
        name: what people call the file.

    Raises:
        InvalidBuildFile: it cannot be used; `details["problems"]` has every problem: line, key and message.
    """
    root, problems = tree_of(text, name=name)
    reader = _Reader(problems)
    build = reader.build(root)
    if reader.problems:
        raise refused(name, sorted(reader.problems, key=lambda problem: problem.line))
    return build


def overrides(build: BuildFile) -> tuple[str, ...]:
    """The pip lines that count, in their order: without comments and blank lines."""
    return tuple(line for _, line in _pip_lines(build.pip_dependencies))


def normalized_repository(address: str) -> str:
    """The same text for every way to write the address of one repository on a host."""
    found = re.fullmatch(r"(?:[a-z+]+://)?(?:[^@/]+@)?([^/:]+(?::\d+)?)[:/]+(.+?)/?(?:\.git)?/?", address.lower())
    return address if found is None or address.startswith("file:") else f"{found[1]}/{found[2]}"


def _pip_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not empty or comments, each with its number from 0."""
    for number, line in enumerate(text.split("\n")):
        if kept := _COMMENT.sub("", line).strip():
            yield number, kept


@dataclass(slots=True)
class _Reader:
    """Reads nodes, and collects what is wrong with them."""

    problems: list[Problem] = field(default_factory=list)

    def build(self, root: Node) -> BuildFile:
        if not isinstance(root, Fields):
            self._say(root, "", f"it is no mapping of keys: a build file begins with `schema: {SCHEMA}`")
            return BuildFile()
        self._schema(root, "", SCHEMA)
        definition = root.get("definition")
        if not isinstance(definition, Fields):
            place = definition or root
            self._say(
                place,
                "definition",
                "it is missing, or no mapping: it holds baseComfyVersion, customNodes and models"
                f"{_instead(root, 'definition')}",
            )
            return BuildFile()
        self._schema(definition, "definition.", DEFINITION_SCHEMA)
        pip = definition.get("pipDependencies")
        return BuildFile(
            base_comfy_version=self._text(definition, "baseComfyVersion", "definition.", rules.git_ref),
            packs=tuple(sorted(self._packs(definition), key=pack_order)),
            models=tuple(sorted(self._models(definition), key=model_order)),
            pip_dependencies=self._pip(pip),
            environment=self._environment(definition.get("environment")),
            base_image=self._text(definition, "baseImage", "definition."),
            name=self._text(root, "name", "") or "",
            description=self._text(root, "description", "") or "",
            unread=_unread(definition, _OF_DEFINITION),
        )

    def _say(self, node: Node, key: str, message: str) -> None:
        self.problems.append(Problem(node.line, key, message))

    def _schema(self, fields: Fields, prefix: str, expected: str) -> None:
        node = fields.get("schema")
        if node is None:
            self._say(
                fields, f"{prefix}schema", f"it is missing: write `schema: {expected}`{_instead(fields, 'schema')}"
            )
        elif not isinstance(node, Scalar) or node.value != expected:
            shown = repr(node.value[:_SHOWN]) if isinstance(node, Scalar) else "this"
            self._say(node, f"{prefix}schema", f"{shown} is not a form that is known here: {expected} is")

    def _text(self, fields: Fields, name: str, prefix: str, rule: Callable[[str], str] | None = None) -> str | None:
        """A text; None if it is null or missing. What is wrong with it is said."""
        node = fields.get(name)
        if node is None or (isinstance(node, Scalar) and node.kind == "null"):
            return None
        if not isinstance(node, Scalar):
            self._say(node, f"{prefix}{name}", "it must be a text")
            return None
        if node.kind != "str":
            self._say(
                node, f"{prefix}{name}", f'YAML reads {node.value} as another thing than a text: write "{node.value}"'
            )
            return None
        if rule is not None and (wrong := rule(node.value)):
            self._say(node, f"{prefix}{name}", wrong)
            return None
        return node.value or None

    def _entries(self, definition: Fields, name: str) -> Iterator[tuple[str, Fields]]:
        node = definition.get(name)
        if node is None or (isinstance(node, Scalar) and node.kind == "null"):
            return
        if not isinstance(node, Items):
            self._say(node, f"definition.{name}", "it must be a list: write [] for an empty one")
            return
        for number, entry in enumerate(node.values):
            key = f"definition.{name}[{number}]"
            if isinstance(entry, Fields):
                yield key, entry
            else:
                self._say(entry, key, "it must be a mapping of keys")

    def _packs(self, definition: Fields) -> Iterator[Pack]:
        seen: dict[tuple[str, str], int] = {}
        for key, entry in self._entries(definition, "customNodes"):
            before = len(self.problems)
            pack = self._pack(entry, f"{key}.")
            if pack is not None:
                self._refuse_twins(entry, key, pack, seen)
                if len(self.problems) == before:
                    yield pack

    def _pack(self, entry: Fields, prefix: str) -> Pack | None:
        name = self._named(entry, "name", prefix, rules.pack_name)
        pack_id = self._text(entry, "id", prefix, rules.registry_id)
        version = self._text(entry, "registryVersion", prefix, rules.registry_version)
        repository = self._text(entry, "repository", prefix, rules.repository)
        ref = self._text(entry, "gitRef", prefix, rules.git_ref)
        blob_id = self._text(entry, "blobId", prefix)
        local = self._text(entry, "localPath", prefix, rules.path_below)
        wanted = self._text(entry, "source", prefix)
        given = {"registry": version, "git": repository, "local": local if wanted == "local" else None, "blob": blob_id}
        source = self._source(entry, prefix, wanted, given, has_ref=ref is not None, local=local)
        if name is None or not source:
            return None
        if source == "registry" and pack_id is None and not _has(entry, "id"):
            self._say(
                entry, f"{prefix}id", f"a pack of the registry needs its id there: write `id: …`{_instead(entry, 'id')}"
            )
        return Pack(
            name=name,
            id=pack_id,
            registry_version=version if source == "registry" else None,
            repository=repository if source == "git" else None,
            git_ref=ref if source == "git" else None,
            local_path=local if source == "local" else None,
            blob_id=blob_id if source == "blob" else None,
        )

    def _source(
        self,
        entry: Fields,
        prefix: str,
        wanted: str | None,
        given: dict[str, str | None],
        *,
        has_ref: bool,
        local: str | None,
    ) -> str:
        """The one source of a pack; "" after saying what is wrong. `source` of the entry decides where there is one."""
        needs = {"registry": "registryVersion", "git": "repository", "local": "localPath", "blob": "blobId"}
        if wanted is not None:
            if wanted not in needs:
                self._say(entry.get("source") or entry, f"{prefix}source", f"{wanted!r} is none of {', '.join(needs)}")
                return ""
            if given[wanted] is None:
                if not _has(entry, needs[wanted]):
                    message = f"it is missing: the pack says `source: {wanted}`{_instead(entry, needs[wanted])}"
                    self._say(entry, f"{prefix}{needs[wanted]}", message)
                return ""
            return wanted
        sources = [source for source, value in given.items() if value is not None]
        if sources == ["registry", "git"] and not has_ref:
            return "registry"  # as the official reader has it; the repository is told for people
        if sources == ["git", "blob"] or sources == ["registry", "blob"]:
            return sources[0]  # Comfy's store keeps a copy of what has an address
        if len(sources) > 1:
            named = " and ".join(needs[source] for source in sources)
            self._say(entry, prefix[:-1], f"it has two sources, {named}: keep one of them, or name it with `source:`")
            return ""
        if not sources and local is not None:
            return self._source(entry, prefix, "local", {**given, "local": local}, has_ref=has_ref, local=local)
        if not sources and not any(_has(entry, name) for name in needs.values()):
            self._say(
                entry,
                prefix[:-1],
                "nothing says where it is from: write `id` with `registryVersion` (Comfy Registry), `repository` with "
                f"`gitRef` (git), or `source: local` with `localPath`{_instead(entry, *needs.values())}",
            )
        return sources[0] if sources else ""

    def _refuse_twins(self, entry: Fields, key: str, pack: Pack, seen: dict[tuple[str, str], int]) -> None:
        claims = {
            ("name", pack.name.lower()): f"claims the folder custom_nodes/{pack.name}",
            ("id", (pack.id or "").lower()): f"is the pack {pack.id} of the registry",
            ("repository", normalized_repository(pack.repository or "")): f"is the repository {pack.repository}",
        }
        for claim, words in claims.items():
            if not claim[1]:
                continue
            if claim in seen:
                message = f"the pack in line {seen[claim]} {words} already: delete one of the two, or rename one"
                self._say(entry, f"{key}.{claim[0]}", message)
                return
            seen[claim] = entry.line

    def _models(self, definition: Fields) -> Iterator[Model]:
        seen: dict[str, int] = {}
        for key, entry in self._entries(definition, "models"):
            model = self._model(entry, f"{key}.")
            if model is None:
                continue
            if model.path in seen:
                message = f"models/{model.path} stands in line {seen[model.path]} already: delete one of the two"
                self._say(entry, key, message)
                continue
            seen[model.path] = entry.line
            yield model

    def _model(self, entry: Fields, prefix: str) -> Model | None:
        filename = self._named(entry, "filename", prefix, rules.file_name)
        folder = self._named(entry, "type", prefix, rules.model_folder)
        address = self._text(entry, "sourceUri", prefix, rules.model_address)
        blob_id = self._text(entry, "blobId", prefix)
        local = self._text(entry, "localPath", prefix, rules.path_below)
        sha256 = self._text(entry, "sha256", prefix, rules.sha256)
        size_bytes = self._size(entry, prefix)
        wanted = self._text(entry, "source", prefix)
        if wanted == "local" and local is None and not _has(entry, "localPath"):
            message = f"it is missing: the model says `source: local`{_instead(entry, 'localPath')}"
            self._say(entry, f"{prefix}localPath", message)
            return None
        if not any(_has(entry, name) for name in ("sourceUri", "blobId", "localPath")):
            self._say(
                entry,
                prefix[:-1],
                "nothing says where it is from: write `sourceUri: https://…`, or `source: local` with `localPath`"
                f"{_instead(entry, 'sourceUri', 'blobId', 'localPath')}",
            )
        counts = wanted == "local" or (address is None and blob_id is None)
        if filename is None or folder is None:
            return None
        return Model(
            filename=filename,
            type=folder,
            sha256=sha256,
            size_bytes=size_bytes,
            source_uri=address,
            blob_id=blob_id,
            local_path=local if counts else None,
        )

    def _named(self, entry: Fields, name: str, prefix: str, rule: Callable[[str], str]) -> str | None:
        """A text that must be there."""
        if not _has(entry, name):
            self._say(entry, f"{prefix}{name}", f"it is missing{_instead(entry, name)}")
        return self._text(entry, name, prefix, rule)

    def _size(self, entry: Fields, prefix: str) -> int | None:
        node = entry.get("sizeBytes")
        if node is None or (isinstance(node, Scalar) and node.kind == "null"):
            return None
        digits = node.value.replace("_", "") if isinstance(node, Scalar) and node.kind == "int" else ""
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and int(digits) < _LARGEST):
            self._say(node, f"{prefix}sizeBytes", "it must be a whole number of bytes, 0 or more")
            return None
        return int(digits)

    def _pip(self, node: Node | None) -> str:
        key = "definition.pipDependencies"
        if node is None or (isinstance(node, Scalar) and node.kind == "null"):
            return ""
        if not isinstance(node, Scalar) or node.kind != "str":
            self._say(node, key, "it must be a text of pip lines: write `pipDependencies: |` and a line below for each")
            return ""
        seen: dict[str, int] = {}
        for number, line in _pip_lines(node.value):
            place = node.line + 1 + number if node.style == "|" else node.line
            if wrong := _wrong_with(line, place, seen):
                self.problems.append(Problem(place, key, wrong))
        return node.value

    def _environment(self, node: Node | None) -> dict[str, str]:
        if node is None or (isinstance(node, Scalar) and node.kind == "null"):
            return {}
        if not isinstance(node, Fields):
            self._say(node, "definition.environment", "it must be a mapping of keys: os, arch, pythonVersion, torch")
            return {}
        return {
            key.value: value.value for key, value in node.items if isinstance(value, Scalar) and value.kind != "null"
        }


def misspelt(name: str, found: Iterable[str]) -> str:
    """What is said of a missing key where another one was probably meant for it, with a blank before it; or nothing."""
    near = Guesses().near(name, found, likeness=_LIKE, bare=str.lower)
    return f" (is it meant by {near[0]!r}?)" if near else ""


def _instead(entry: Fields, *missing: str) -> str:
    """The key of an entry that nothing reads, and that was probably meant for one that is missing."""
    found = _unread(entry, _KEYS)
    return next((hint for name in missing if (hint := misspelt(name, found))), "")


def _unread(entry: Fields, known: frozenset[str]) -> tuple[str, ...]:
    return tuple(key.value for key, _ in entry.items if key.value not in known)


def _has(entry: Fields, name: str) -> bool:
    """Whether an entry says something under a key, be it right or wrong."""
    node = entry.get(name)
    return node is not None and not (isinstance(node, Scalar) and (node.kind == "null" or not node.value))


def _wrong_with(line: str, place: int, seen: dict[str, int]) -> str:
    """What is wrong with a pip line; "" if nothing is. `seen` gets its name."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    shown = repr(redact_addresses(line)[:_SHOWN])
    if egg := _NAMED_EGG.fullmatch(line):
        return f"{shown}: write it as `{egg[2]} @ {redact_addresses(egg[1])}`"
    if line.startswith("-"):
        return f"{shown} is an option of pip, and the lock takes none: delete it, or put # before it"
    if line.endswith("\\") or " --hash" in line:
        return f"{shown}: the lock finds the hashes itself: write `name==version` alone"
    try:
        found = Requirement(line)
    except InvalidRequirement as error:
        reason = str(error).partition("\n")[0]
        return f"{shown} is no requirement ({reason}): write one like numpy==2.4.6, or put # before it"
    if found.url is not None and (why := rules.library_address(found.url)):
        return f"{shown} {why}, or put # before it"
    name = canonicalize_name(found.name)
    if found.marker is None:
        if name in seen:
            return f"{shown}: {found.name} stands in line {seen[name]} already: keep one of the two"
        seen[name] = place
    return ""
