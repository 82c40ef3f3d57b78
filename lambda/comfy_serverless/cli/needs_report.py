"""Prints what a workflow needs, for people: what there is to do first, then what can be set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from comfy_serverless.cli.habits import counted, one_line, print_table, say, size_in_words
from comfy_serverless.connector.refusals import command_to_add
from comfy_serverless.graph.nodes import COMFYUI_ITSELF

_LONGEST_VALUE = 50
#: The inputs that are listed; `--json` has all.
_MOST_INPUTS = 30
_SHOWN_HASH = 12
_THERE = {True: "yes", False: "no", None: "?"}


def print_needs(needs: Mapping[str, Any], *, where: str, has_manifest: bool) -> None:
    """Print the tables to stdout, and what to do to stderr. `where`: who has said what is there."""
    _print_models(needs["models"])
    _print_nodes(needs["nodes"])
    _print_partners(needs["partner_nodes"])
    _print_inputs(needs["inputs"])
    say(one_line(_summary(needs, where)))
    for line in _advice(needs, has_manifest=has_manifest):
        say(one_line(line))


def _print_models(models: Sequence[Mapping[str, Any]]) -> None:
    if not models:
        print("models: none")
        return
    rows = [
        [
            model["folder"] or "?",
            model["name"],
            _THERE[model["there"]] + (f" ({model['near']} is)" if model["near"] else ""),
            "" if model["size_bytes"] is None else size_in_words(model["size_bytes"]),
            (model["sha256"] or "")[:_SHOWN_HASH],
            model["url"] or "",
        ]
        for model in models
    ]
    titles = ("folder", "model", "there", "size", "SHA-256", "from")
    optional = {"size", "SHA-256"}
    shown = [index for index, title in enumerate(titles) if title not in optional or any(row[index] for row in rows)]
    print_table(
        [titles[index] for index in shown],
        [[row[index] for index in shown] for row in rows],
        folds=("model", "there", "from"),
        right=("size",),
    )


def _print_nodes(nodes: Sequence[Mapping[str, Any]]) -> None:
    """The classes that are not there or belong to packs; of ComfyUI's own that are there, the number."""
    listed = [node for node in nodes if node["known"] is False or _is_of_pack(node["pack"])]
    if listed:
        print()
        rows = [
            [node["class_type"], str(node["count"]), _THERE[node["known"]], _pack_in_words(node["pack"])]
            for node in listed
        ]
        print_table(("node class", "nodes", "there", "pack"), rows, folds=("node class", "pack"), right=("nodes",))
    rest = len(nodes) - len(listed)
    if rest:
        print("" if listed else "\n", end="")
        print(f"{'1 more node class is' if rest == 1 else f'{rest} more node classes are'} ComfyUI's own")


def _print_partners(classes: Sequence[str]) -> None:
    if classes:
        print()
        print(one_line(f"partner nodes, which call a paid service: {', '.join(classes)}"))
        print("their key is `api_key_comfy_org` in the job's `extra_data`")


def _print_inputs(inputs: Sequence[Mapping[str, Any]]) -> None:
    """The inputs that people set, or all if there are few."""
    listed = inputs if len(inputs) <= _MOST_INPUTS else [one for one in inputs if one["role"] not in (None, "model")]
    shown = listed[:_MOST_INPUTS]
    if not shown:
        return
    print()
    rows = [[one["address"], one["title"], _takes(one), _value(one["value"])] for one in shown]
    print_table(("input", "of", "takes", "now"), rows, folds=("input", "of", "takes", "now"))
    if len(inputs) > len(shown):
        print(f"and {counted(len(inputs) - len(shown), 'further input')}: --json has all")


def _takes(one: Mapping[str, Any]) -> str:
    kind, low, high = one["kind"], one.get("minimum"), one.get("maximum")
    if kind == "choice":
        return f"one of {len(one.get('choices', ()))}"
    if low is not None and high is not None:
        return f"{kind} {low} to {high}"
    return str(one["role"] if one["role"] in ("image", "prompt") else kind)


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _is_of_pack(pack: Mapping[str, Any] | None) -> bool:
    return pack is not None and pack["cnr_id"] != COMFYUI_ITSELF


def _pack_in_words(pack: Mapping[str, Any] | None) -> str:
    if pack is None:
        return "the file does not say"
    if pack["cnr_id"] == COMFYUI_ITSELF:
        return f"ComfyUI {pack['ver'] or ''}".strip()
    place = f"github.com/{pack['aux_id']}" if pack["aux_id"] else ""
    named = " ".join(filter(None, (pack["cnr_id"], place)))
    return f"{named} {pack['ver']}" if pack["ver"] else named


def _summary(needs: Mapping[str, Any], where: str) -> str:
    missing = needs["missing"]
    parts = [
        *([counted(missing["models"], "model")] if missing["models"] else []),
        *([f"{missing['nodes']} node {'class' if missing['nodes'] == 1 else 'classes'}"] if missing["nodes"] else []),
    ]
    unknown = sum(model["there"] is None for model in needs["models"])
    if needs["nodes"] and all(node["known"] is None for node in needs["nodes"]):
        return f"what is missing at {where} is not known"
    if not parts:
        return f"nothing is missing at {where}" + (
            f", but of {counted(unknown, 'model')} it is not known" if unknown else ""
        )
    is_one = missing["models"] + missing["nodes"] == 1
    return f"{' and '.join(parts)} {'is' if is_one else 'are'} missing at {where}"


def _advice(needs: Mapping[str, Any], *, has_manifest: bool) -> list[str]:
    """What to do about what is missing."""
    lines = []
    missing = [model for model in needs["models"] if model["there"] is False]
    stored = sum(model["source"] == "store" for model in missing)
    if any(model["url"] for model in missing) and not has_manifest:
        lines.append("  --manifest models.json writes the missing models as `models` of a job takes them")
    if stored:
        lines.append(
            f"  {counted(stored, 'model')} of them in the stack's store: a job that names it in `models` has it"
        )
    if first := next((model for model in missing if model["source"] != "store"), None):
        command = command_to_add(first["folder"] or "", first["name"], first["url"] or "")
        lines.append(f"  {command} --stack NAME    brings the first one to a stack")
    if needs["missing"]["nodes"]:
        lines.append(
            "  node classes come with packs, which go into the image (docs/operate.md), or with a newer ComfyUI"
        )
    return lines
