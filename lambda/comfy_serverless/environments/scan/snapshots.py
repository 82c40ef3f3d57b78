"""Reads a snapshot of ComfyUI-Manager, or of ComfyUI's desktop app: which packs there were, and of what. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from comfy_serverless.environments.build_file import Pack
from comfy_serverless.environments.scan.found import Found, FoundPack, counted_names, pack_of
from comfy_serverless.environments.scan.installed_libraries import normalized
from comfy_serverless.environments.scan.installed_packs import public_address
from comfy_serverless.errors import InvalidBuildFile

_KEYS: Final = ("git_custom_nodes", "cnr_custom_nodes", "file_custom_nodes")
_DESKTOPS: Final = "customNodes"


def is_snapshot(document: object) -> bool:
    """Whether a JSON document is a snapshot."""
    if not isinstance(document, Mapping):
        return False
    return any(key in document for key in _KEYS) or _desktops(document) is not None


def read_snapshot(document: Mapping[str, Any], *, source: str) -> Found:
    """What a snapshot has. Raises InvalidBuildFile if its parts are of other types than the Manager writes."""
    found = Found(source)
    desktops = _desktops(document)
    if desktops is not None:
        _read_desktops(desktops, found)
    else:
        found.version = _text(document.get("comfyui"))
        _read_managers(document, found)
    _refuse_twins(found)
    if found.version.lower() in ("unknown", "none"):
        found.version = ""
    return found


def _read_managers(document: Mapping[str, Any], found: Found) -> None:
    for address, entry in _mapping(document, "git_custom_nodes", found.source).items():
        facts = entry if isinstance(entry, Mapping) else {"hash": entry}
        _add_git(found, address, _text(facts.get("hash")), is_on=not facts.get("disabled"))
    for pack_id, entry in _mapping(document, "cnr_custom_nodes", found.source).items():
        facts = entry if isinstance(entry, Mapping) else {"version": entry}
        _add_registry(found, pack_id, _text(facts.get("version") or facts.get("ver")), is_on=not facts.get("disabled"))
    files = document.get("file_custom_nodes") or []
    if not isinstance(files, list):
        raise _other(found.source, "file_custom_nodes", "a list")
    for entry in files:
        name = _text(entry.get("filename") if isinstance(entry, Mapping) else entry)
        if isinstance(entry, Mapping) and entry.get("disabled"):
            found.left_out.append(f"{name}: it is switched off")
        elif name and name != "websocket_image_save.py":
            found.left_out.append(f"{name}: a snapshot has its name alone: give the install, too, which has the file")
    _add_libraries(found, _mapping(document, "pips", found.source))


def _read_desktops(snapshot: Mapping[str, Any], found: Found) -> None:
    comfyui = snapshot.get("comfyui")
    if isinstance(comfyui, Mapping):
        found.version = _text(comfyui.get("releaseTag") or comfyui.get("commit") or comfyui.get("ref"))
    for entry in snapshot[_DESKTOPS]:
        if not isinstance(entry, Mapping):
            raise _other(found.source, _DESKTOPS, "a list of mappings")
        name, is_on = _text(entry.get("dirName") or entry.get("id")), entry.get("enabled") is not False
        if entry.get("type") == "cnr":
            _add_registry(found, _text(entry.get("id")), _text(entry.get("version")), is_on=is_on, name=name)
        elif entry.get("type") == "git" and entry.get("url"):
            _add_git(found, _text(entry.get("url")), _text(entry.get("commit")), is_on=is_on, name=name)
        elif is_on:
            found.left_out.append(f"{name}: a snapshot has its name alone: give the install, too, which has the files")
        else:
            found.left_out.append(f"{name}: it is switched off")
    packages = snapshot.get("pipPackages")
    if isinstance(packages, Mapping):
        _add_libraries(found, {f"{name}=={version}": "" for name, version in packages.items()})


def _add_git(found: Found, address: str, commit: str, *, is_on: bool, name: str = "") -> None:
    public, _ = public_address(address)
    name = name or public.rstrip("/").removesuffix(".git").rpartition("/")[2]
    if not is_on:
        found.left_out.append(f"{name}: it is switched off")
        return
    remark = "" if commit else f"{name}: the snapshot names no commit, so the lock takes its default branch"
    found.add_pack(FoundPack(Pack(name=name, repository=public, git_ref=commit or None)), remark)


def _add_registry(found: Found, pack_id: str, version: str, *, is_on: bool, name: str = "") -> None:
    if not is_on:
        found.left_out.append(f"{pack_id}: it is switched off")
        return
    pack, remark = pack_of(pack_id, "", version)
    named = Pack(name=name, id=pack.id, registry_version=pack.registry_version) if name else pack
    found.add_pack(FoundPack(named), remark)


def _add_libraries(found: Found, lines: Mapping[str, Any]) -> None:
    for line in lines:
        name = line.partition("==")[0].partition("@")[0].strip()
        if name and "\n" not in line:
            found.libraries[normalized(name)] = line.strip()


def _refuse_twins(found: Found) -> None:
    """Of two packs with one name the first is taken."""
    kept: dict[str, FoundPack] = {}
    twins = []
    for pack in found.packs:
        if pack.pack.name.lower() in kept:
            twins.append(pack.pack.name)
        kept.setdefault(pack.pack.name.lower(), pack)
    found.packs = list(kept.values())
    if twins:
        found.left_out.append(f"{counted_names(twins)}: another pack of that name is taken already")


def _desktops(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The snapshot of the desktop app: itself, or the newest of those that it has exported."""
    if isinstance(document.get(_DESKTOPS), list) and "definition" not in document:
        return document
    snapshots = document.get("snapshots")
    if isinstance(snapshots, list) and snapshots and isinstance(snapshots[0], Mapping):
        return _desktops(snapshots[0])
    return None


def _mapping(document: Mapping[str, Any], name: str, source: str) -> Mapping[str, Any]:
    found = document.get(name) or {}
    if isinstance(found, list) and name == "pips":
        return {str(line): "" for line in found}
    if not isinstance(found, Mapping):
        raise _other(source, name, "a mapping")
    return found


def _other(source: str, name: str, expected: str) -> InvalidBuildFile:
    return InvalidBuildFile(
        f"{source}: `{name}` of the snapshot must be {expected}: save it anew in ComfyUI-Manager.",
        details={"problems": [{"line": 0, "key": name, "message": f"must be {expected}"}]},
    )


def _text(value: object) -> str:
    return value[:500] if isinstance(value, str) else ""
