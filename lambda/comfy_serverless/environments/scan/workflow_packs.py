"""What a workflow says of the environment that it wants: ComfyUI's version, packs, addresses of models. No IO."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from comfy_serverless.environments.build_file import Model
from comfy_serverless.environments.scan.found import Found, FoundPack, counted_names, pack_of
from comfy_serverless.graph.needs import Needs
from comfy_serverless.graph.needs.answer import Pack as Named

_CORE: Final = "comfy-core"
_NUMBERS = re.compile(r"\d+")
_RELEASE = re.compile(r"v?(\d+(?:\.\d+)+)")


def read_needs(needs: Needs, models: Iterable[Mapping[str, Any]], *, source: str) -> Found:
    """What a workflow wants.

    Args:
        needs: of the workflow, without declarations.
        models: its models as JSON, with what their hosts have told.
    """
    found = Found(source, is_of_install=False)
    named: dict[str, list[tuple[Named, str]]] = {}
    nameless, core = [], []
    for node in needs.nodes:
        if node.pack is None:
            nameless.append(node.class_type)
        elif node.pack.cnr_id == _CORE:
            core.append(node.pack.ver)
        else:
            named.setdefault((node.pack.cnr_id or node.pack.aux_id).lower(), []).append((node.pack, node.class_type))
    releases = [match[1] for version in core if (match := _RELEASE.fullmatch(version))]
    found.version = f"v{max(releases, key=_place)}" if releases else ""
    for uses in named.values():
        _add_pack(found, uses)
    if nameless:
        found.remarks.append(
            f"no pack is named for {counted_names(nameless)}: they may be ComfyUI's own; add the packs of the others"
        )
    _add_models(found, models)
    return found


def newer(first: str, second: str) -> str:
    """The newer of two versions like v0.33.0; the first if one of them is something else."""
    if _RELEASE.fullmatch(first) and _RELEASE.fullmatch(second) and _place(second) > _place(first):
        return second
    return first


def _add_pack(found: Found, uses: list[tuple[Named, str]]) -> None:
    versions = sorted({named.ver for named, _ in uses if named.ver}, key=_place)
    newest = versions[-1] if versions else ""
    aux_id = next((named.aux_id for named, _ in uses if named.aux_id), "")
    pack, remark = pack_of(uses[0][0].cnr_id, aux_id, newest)
    if len(versions) > 1:
        found.remarks.append(f"{pack.name}: its nodes are of versions {counted_names(versions)}; {newest} is taken")
    known_as = {name.lower() for named, _ in uses for name in (named.cnr_id, named.aux_id.rpartition("/")[2]) if name}
    if pack.name.lower() in {one.pack.name.lower() for one in found.packs}:
        found.left_out.append(f"{pack.name}: another pack of that name is taken already")
        return
    found.add_pack(FoundPack(pack, frozenset(known_as)), remark)


def _add_models(found: Found, models: Iterable[Mapping[str, Any]]) -> None:
    seen = set()
    for model in models:
        subfolders, _, filename = str(model["name"]).replace("\\", "/").rpartition("/")
        folder = "/".join(part for part in (str(model["folder"] or ""), subfolders) if part)
        if not model["folder"]:
            found.left_out.append(f"{model['name']}: the workflow does not say which folder it is in")
        elif not model["url"]:
            found.left_out.append(f"models/{folder}/{filename}: the workflow does not say where it is from")
        elif (folder, filename) not in seen:
            seen.add((folder, filename))
            found.add_model(
                Model(
                    filename=filename,
                    type=folder,
                    sha256=(model["sha256"] or "").lower() or None,
                    size_bytes=model["size_bytes"],
                    source_uri=model["url"],
                )
            )


def _place(version: str) -> tuple[bool, tuple[int, ...]]:
    """The place of a version among others: releases by their numbers, behind what is none."""
    return bool(_RELEASE.match(version)), tuple(int(number[:9]) for number in _NUMBERS.findall(version)[:6])
