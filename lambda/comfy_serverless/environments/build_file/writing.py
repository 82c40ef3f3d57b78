"""Writes a build file: a new one, or the text of another with what changed, and nothing else. No IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from comfy_serverless.environments.build_file import rendering
from comfy_serverless.environments.build_file.nodes import Fields, Items, Node, Scalar, tree_of
from comfy_serverless.environments.build_file.reading import parse
from comfy_serverless.environments.build_file.rendering import Value
from comfy_serverless.environments.build_file.splice import Splice
from comfy_serverless.environments.build_file.values import (
    DEFINITION_SCHEMA,
    SCHEMA,
    BuildFile,
    Model,
    Pack,
    model_order,
    pack_order,
)
from comfy_serverless.errors import InternalError

_ROOT: Final = ("schema", "id", "name", "description", "syncedRevision", "definition")
_DEFINITION: Final = (
    *("schema", "baseComfyVersion", "baseImage", "models", "customNodes", "pipDependencies", "environment"),
)
#: What the official scanner knows of a local pack's files; it is out of date when the pack is another.
_OF_THE_FILES: Final = ("localDigest", "localSizeBytes")
_HEAD: Final = (
    "# What ComfyUI in the image consists of. `comfy-serverless env lock` pins it; see docs/environments.md.\n"
)


def new_text(build: BuildFile) -> str:
    """The text of a new file: keys and entries in the official order."""
    definition: dict[str, Value] = {"schema": DEFINITION_SCHEMA}
    if build.base_comfy_version is not None:
        definition["baseComfyVersion"] = build.base_comfy_version
    if build.base_image is not None:
        definition["baseImage"] = build.base_image
    definition["models"] = [_model_keys(model) for model in sorted(build.models, key=model_order)]
    definition["customNodes"] = [_pack_keys(pack) for pack in sorted(build.packs, key=pack_order)]
    definition["pipDependencies"] = build.pip_dependencies
    if build.environment:
        definition["environment"] = dict(sorted(build.environment.items()))
    document: dict[str, Value] = {
        "schema": SCHEMA,
        "id": None,
        "name": build.name,
        "description": build.description,
        "syncedRevision": None,
        "definition": definition,
    }
    return _checked(_HEAD + "\n".join(rendering.block(document, 0)) + "\n", build)


def updated(text: str, build: BuildFile) -> str:
    """The text with what `build` asks for. Every byte stays that says the same as before.

    Raises InvalidBuildFile if the text is no build file, or would be none afterwards.
    """
    old = parse(text)
    for name, before, after in (("name", old.name, build.name), ("description", old.description, build.description)):
        if before != after:
            text = _with_key(text, (), name, after, _ROOT)
    for name, first, then in (
        ("baseComfyVersion", old.base_comfy_version, build.base_comfy_version),
        ("baseImage", old.base_image, build.base_image),
        ("pipDependencies", old.pip_dependencies or None, build.pip_dependencies or None),
    ):
        if first != then:
            text = _with_key(text, ("definition",), name, then, _DEFINITION)
    text = _with_environment(text, old.environment, build.environment)
    models, packs = map(_model_entry, old.models), map(_pack_entry, old.packs)
    text = _with_entries(text, "models", dict(models), dict(map(_model_entry, build.models)))
    text = _with_entries(text, "customNodes", dict(packs), dict(map(_pack_entry, build.packs)))
    return _checked(text, build)


#: An entry's keys, and its place among the others.
_Entry = tuple[dict[str, Value], tuple[str, ...]]


def _with_entries(text: str, name: str, old: Mapping[str, _Entry], new: Mapping[str, _Entry]) -> str:
    """The text with other entries in one of its lists; each is told by its identity."""
    if old == new:
        return text
    definition = _fields(text, ("definition",))
    node, splice = definition.get(name), Splice(text)
    ordered = sorted(new.items(), key=lambda one: one[1][1])
    if not isinstance(node, Items) or not node.values:
        splice.put(definition, name, [keys for _, (keys, _) in ordered], _order(_DEFINITION))
        return splice.text()
    identities = [_identity(entry) for entry in node.values]
    changed = {
        number: _with_entry(text[slice(*splice.span(node, number))], old[identity][0], new[identity][0])
        for number, identity in enumerate(identities)
        if identity in new and new[identity][0] != old[identity][0]
    }
    removed = {number for number, identity in enumerate(identities) if identity not in new}
    added = [
        (_behind([new.get(one) for one in identities], place), keys)
        for identity, (keys, place) in ordered
        if identity not in old
    ]
    splice.change_items(definition, name, node, changed=changed, removed=removed, added=added)
    return splice.text()


def _behind(entries: Sequence[_Entry | None], place: tuple[str, ...]) -> int:
    """The number of the entry that a new one stands behind."""
    later = [number for number, entry in enumerate(entries) if entry is not None and entry[1] > place]
    return (later[0] if later else len(entries)) - 1


def _with_entry(text: str, old: Mapping[str, Value], new: Mapping[str, Value]) -> str:
    """The text of an entry, which is YAML by itself, with other keys."""
    wanted = {key: new.get(key) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}
    there = {key.value: value for key, value in _fields(text, (0,)).items if isinstance(value, Scalar)}
    if "source" in there and "source" not in new:
        wanted["source"] = "registry" if "registryVersion" in new else "git" if "repository" in new else None
    if "name" in new:
        wanted |= dict.fromkeys(_OF_THE_FILES)
    gone = [key for key, value in wanted.items() if value is None and key in there]
    put = {key: value for key, value in wanted.items() if value is not None and not _says(there.get(key), value)}
    for key, value in put.items():
        text = _with_key(text, (0,), key, value, ())
    for key in gone:
        text = _with_key(text, (0,), key, None, ())
    return text


def _says(node: Scalar | None, value: Value) -> bool:
    return node is not None and node.kind == ("int" if isinstance(value, int) else "str") and node.value == str(value)


def _fields(text: str, path: Sequence[str | int]) -> Fields:
    """The mapping at a path of a text. A text in brackets, or one list of one entry, is an entry itself."""
    node, _ = tree_of(text, name="comfy-build.yaml")
    for step in path:
        if isinstance(step, str) and isinstance(node, Fields):
            node = node.get(step) or node
        elif isinstance(step, int) and isinstance(node, Items):
            node = node.values[step]
    if not isinstance(node, Fields):
        raise InternalError("A build file was read, and has no such mapping.")
    return node


def _with_key(text: str, path: Sequence[str | int], name: str, value: Value, names: Sequence[str]) -> str:
    """The text with another value of one key; None takes the key out."""
    splice, fields = Splice(text), _fields(text, path)
    if value is not None:
        splice.put(fields, name, value, _order(names))
    elif fields.get(name) is not None:
        splice.drop(fields, name)
    return splice.text()


def _identity(entry: Node) -> str:
    """What an entry is told by: a pack by its name, a model by its path."""
    items = entry.items if isinstance(entry, Fields) else ()
    texts = {key.value: value.value for key, value in items if isinstance(value, Scalar)}
    return texts["name"] if "filename" not in texts else f"{texts['type']}/{texts['filename']}"


def _with_environment(text: str, old: Mapping[str, str], new: Mapping[str, str]) -> str:
    node = _fields(text, ("definition",)).get("environment")
    if not isinstance(node, Fields) or not node.items:
        if old == new:
            return text
        return _with_key(text, ("definition",), "environment", dict(sorted(new.items())), _DEFINITION)
    if not new and not node.flow and len(node.items) == len(old):
        splice = Splice(text)
        splice.empty(_fields(text, ("definition",)), "environment")
        return splice.text()
    if not new and len(node.items) == len(old):
        return _with_key(text, ("definition",), "environment", {}, _DEFINITION)
    changed = sorted((key for key in {*old, *new} if old.get(key) != new.get(key)), key=lambda key: key not in new)
    for key in changed:  # the new ones first, so that something is left
        text = _with_key(text, ("definition", "environment"), key, new.get(key), ())
    return text


def _order(names: Sequence[str]) -> _OrderOf:
    return _OrderOf(names)


class _OrderOf:
    """Keys as the official file has them; the others behind them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __call__(self, name: str) -> tuple[int, str]:
        return (self._names.index(name), "") if name in self._names else (len(self._names), name)


def _pack_entry(pack: Pack) -> tuple[str, _Entry]:
    return pack.name, (_pack_keys(pack), pack_order(pack))


def _model_entry(model: Model) -> tuple[str, _Entry]:
    return model.path, (_model_keys(model), model_order(model))


def _pack_keys(pack: Pack) -> dict[str, Value]:
    keys: dict[str, Value] = {
        "blobId": pack.blob_id,
        "gitRef": pack.git_ref,
        "id": pack.id,
        "localPath": pack.local_path,
        "name": pack.name,
        "registryVersion": pack.registry_version,
        "repository": pack.repository,
        "source": "local" if pack.source == "local" else None,
    }
    return {key: value for key, value in keys.items() if value is not None}


def _model_keys(model: Model) -> dict[str, Value]:
    keys: dict[str, Value] = {
        "blobId": model.blob_id,
        "filename": model.filename,
        "localPath": model.local_path,
        "sha256": model.sha256,
        "sizeBytes": model.size_bytes,
        "source": "local" if model.source == "local" else None,
        "sourceUri": model.source_uri,
        "type": model.type,
    }
    return {key: value for key, value in keys.items() if value is not None}


def _checked(text: str, build: BuildFile) -> str:
    """The text, which says what it should. Raises InvalidBuildFile if what it should say is not allowed."""
    if parse(text) != _sorted(build):
        raise InternalError("The build file could not be written so that it says the same when it is read again.")
    return text


def _sorted(build: BuildFile) -> BuildFile:
    return replace(
        build,
        packs=tuple(sorted(build.packs, key=pack_order)),
        models=tuple(sorted(build.models, key=model_order)),
        environment=dict(build.environment),
    )
