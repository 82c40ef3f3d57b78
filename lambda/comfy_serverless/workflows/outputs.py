"""Names for what a workflow makes. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from comfy_serverless.graph.lookup import title_of
from comfy_serverless.graph.nodes import PREFIX
from comfy_serverless.workflows.describing import plain_text
from comfy_serverless.workflows.input_nodes import output_name
from comfy_serverless.workflows.leads import Leads
from comfy_serverless.workflows.naming import Names, name_of, words_of
from comfy_serverless.workflows.titles import is_given
from comfy_serverless.workflows.version import NamedOutput

#: The most outputs that get a name.
_MOST_OUTPUTS: Final = 100
_NOISE: Final = frozenset({"save", "output", "node", "preview", "the", "a", "advanced"})
#: What the beginnings of names have, as the editor writes them.
_EDITORS: Final = frozenset({"comfyui", "comfy", "ui"})
#: Classes that show something to the person at the editor, and are no result.
_LOOKS: Final = ("preview", "compare", "show", "display")
#: What is made, by what the class is called; the first that fits.
_KINDS: Final = ("video", "audio", "image", "text", "latent", "mask", "webm", "animated", "mesh", "glb", "3d", "lora")
_CALLED: Final[Mapping[str, str]] = {
    "webm": "video",
    "animated": "image",
    "mesh": "model",
    "glb": "model",
    "3d": "model",
}


def named_outputs(
    graph: Mapping[str, Any], object_info: Mapping[str, Any] | None, leads: Leads, *, chosen: list[str]
) -> tuple[NamedOutput, ...]:
    """The outputs that were chosen; else those of packs' output nodes; else all that save something.

    Where nothing saves, what only shows something is an output, too.
    """
    of_packs = {node_id: name for node_id in leads.outputs if (name := output_name(graph[node_id])) is not None}
    savers = [node_id for node_id in leads.outputs if not _only_shows(str(graph[node_id].get("class_type")))]
    names = Names()
    found: list[NamedOutput] = []
    for node_id in (chosen or [*of_packs] or savers or [*leads.outputs])[:_MOST_OUTPUTS]:
        node = graph[node_id]
        title = plain_text(title_of(node), 200) if is_given(node, object_info) else ""
        own = name_of(of_packs.get(node_id) or title, noise=_NOISE)
        found.append(NamedOutput(name=names.take(own, *_kind(node)), node_id=node_id, title=title))
    return tuple(found)


def _only_shows(class_type: str) -> bool:
    called = class_type.lower()
    return any(word in called for word in _LOOKS)


def _kind(node: Mapping[str, Any]) -> list[str]:
    """What it makes in a word; and the word with the beginning of its file names, for several of a kind."""
    called = str(node.get("class_type")).lower()
    word = next((kind for kind in _KINDS if kind in called), "output")
    kind = _CALLED.get(word, word)
    prefix = node["inputs"].get(PREFIX)
    words = words_of(prefix.rsplit("/", 1)[-1]) if isinstance(prefix, str) else ()
    beginning = name_of(" ".join(each for each in words if each not in _EDITORS), noise=_NOISE)
    return [kind, *([f"{beginning}_{kind}" if kind not in beginning else beginning] if beginning else [])]
