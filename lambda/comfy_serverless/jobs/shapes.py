"""Makes the fields of a job request out of what people send: one reader for every door. No IO.

    {"workflow": …, "set": {…}}                  the request itself
    {"1": {…}}, {"prompt": …}, {"output": …}     a workflow, in any wrapper: see `graph.wrappers`
    {"input": {"workflow": …, "images": […]}}    as RunPod's workers take it; `body`, `payload`, … likewise
    [{…}], "{…}"                                 the only one in a list; JSON in a text

null for a field is none, a number is taken where a text is meant, addresses are taken as they were meant. Whatever is
left out on the way is said in the job's warnings. A field that looks like a slip of the pen stays, and is refused.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_serverless.errors import InvalidRequest, NotJson
from comfy_serverless.files import type_of_name
from comfy_serverless.graph.file_inputs import as_address, is_address, name_in_input_folder, takes_file
from comfy_serverless.graph.nodes import NODES, PREFIX
from comfy_serverless.graph.workflow import is_shallow, kind_in_words
from comfy_serverless.graph.wrappers import PROMPT_FIELDS, from_text, is_graph, merged, only_item, unwrap
from comfy_serverless.json_text import finite

#: Addresses in `set`, and in `inputs`; files that come with their names.
MAX_ADDRESSES = 1000
#: What other services put a request into.
ENVELOPES = ("input", "body", "payload", "request", "data", "json", "instances")
#: Fields of RunPod's workers for ComfyUI.
_IMAGES, _PARTNER_KEY = "images", "comfy_org_api_key"
_EXTRA_DATA = "the text of `extra_data`"
#: Known fields that mean nothing to the door in hand, and why.
_UNUSED = {**PROMPT_FIELDS, "wait_s": "nobody waits for the answer here"}
#: The end of a warning.
NULL_INPUT = "is null, and was left as it is"
_MOST_ENVELOPES = 4
_MOST_NAMES = 20
_LONGEST_NAME = 60
_LONGEST_FILE_NAME = 255


@dataclass(frozen=True, slots=True)
class Shaped:
    """The fields of a request, not checked yet, and what was left out of what was sent."""

    fields: dict[str, Any]
    warnings: tuple[str, ...]


def shape(payload: object, *, known: Collection[str]) -> Shaped:
    """The fields of a request in whatever was sent.

    Args:
        known: the names of the request's fields.

    Raises:
        InvalidRequest: there is no request in it, or two, or two workflows.
    """
    warnings: list[str] = []
    payload, is_own = _opened(payload, known, warnings)
    if not isinstance(payload, Mapping):
        raise InvalidRequest(
            f'A job request is a JSON object: {{"workflow": …, "set": {{…}}, "inputs": {{…}}}}, not '
            f"{kind_in_words(payload)}."
        )
    found = unwrap(payload)
    if found is None:
        fields = {**payload, **_data_beside(payload)}
    else:
        if found.rest.get("workflow"):
            raise InvalidRequest(f"there are two workflows, in `workflow` and in {found.place!r}: send one of them.")
        within = {name: value for name, value in found.within.items() if name in known and name != "workflow"}
        _say_unused(found.within.keys() - within.keys(), warnings)
        fields = {
            **within,
            **found.rest,
            "workflow": dict(found.workflow),
            "extra_data": dict(found.extra_data) or None,
        }
        is_own = is_own and found.place == "workflow"
    fields = _without_nulls(fields)
    _take_partner_key(fields)
    _take_images(fields, warnings)
    unused = [name for name in fields if name not in known and _means_nothing(name, known, is_own=is_own)]
    _say_unused(unused, warnings)
    for name in unused:
        del fields[name]
    _clean_up(fields, warnings)
    return Shaped(fields, tuple(warnings))


def may_be_request(payload: object) -> bool:
    """Whether a payload is meant for a job request, good or bad, and nothing else that a message may hold."""
    try:
        payload, _ = _opened(payload, (), [])
        return isinstance(payload, Mapping) and (_has_field_of_one(payload) or unwrap(payload) is not None)
    except NotJson:  # many a message has a text that begins with a bracket
        return isinstance(payload, Mapping) and _has_field_of_one(payload)
    except InvalidRequest:  # two workflows, or half of one
        return True


def _has_field_of_one(payload: Mapping[str, Any]) -> bool:
    return "workflow" in payload or "input" in payload


def cleaned(fields: Mapping[str, Any]) -> Shaped:
    """The fields of a request whose shape is that of the request itself: without nulls, its values as they were meant.

    Raises NotJson.
    """
    warnings: list[str] = []
    result = _without_nulls({**fields, "extra_data": from_text(fields.get("extra_data"), what=_EXTRA_DATA)})
    _clean_up(result, warnings)
    return Shaped(result, tuple(warnings))


def _without_nulls(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _data_beside(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What ComfyUI gets with a workflow that is only named, as with one that is there: the fields that have it."""
    given = from_text(payload.get("extra_data"), what=_EXTRA_DATA)
    info = from_text(payload.get("extra_pnginfo"), what="the text of `extra_pnginfo`")
    if info is None or not (given is None or isinstance(given, Mapping)):
        return {"extra_data": given}
    return {"extra_data": merged(given or {}, {"extra_pnginfo": info}), "extra_pnginfo": None}


def _opened(payload: object, known: Collection[str], warnings: list[str]) -> tuple[object, bool]:
    """The request without the envelopes around it, and whether there were none.

    What it has beside them is taken over if it is a field of it.
    """
    payload, is_bare = only_item(from_text(payload, what="the text of the request")), True
    for _ in range(_MOST_ENVELOPES):
        if not isinstance(payload, Mapping) or payload.get("workflow") is not None or unwrap(payload) is not None:
            break
        name, inner = _envelope_in(payload)
        if inner is None:
            break
        beside = {key: value for key, value in payload.items() if key != name and value is not None}
        _say_unused(beside.keys() - set(known), warnings)
        payload, is_bare = {**{key: value for key, value in beside.items() if key in known}, **inner}, False
    return payload, is_bare


def _envelope_in(payload: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    """The field that has the request, and what is in it; None if no field has one.

    Raises NotJson if there is only a text that should be JSON.
    """
    problem: NotJson | None = None
    for name in ENVELOPES:
        try:
            inner = _request_in(payload.get(name), name)
        except NotJson as error:
            problem = problem or error
        else:
            if inner is not None:
                return name, inner
    if problem is not None:
        raise problem
    return "", None


def _request_in(value: object, name: str) -> Mapping[str, Any] | None:
    """The request, or another envelope, in the field of an envelope; None if there is none."""
    inner = only_item(from_text(value, what=f"the text of `{name}`"))
    if not isinstance(inner, Mapping):
        return None
    is_one = inner.get("workflow") is not None or unwrap(inner) is not None
    return inner if is_one or any(isinstance(inner.get(other), Mapping | str) for other in ENVELOPES) else None


def _means_nothing(name: str, known: Collection[str], *, is_own: bool) -> bool:
    """Whether a field that a request does not have is of another service, and no slip of the pen."""
    if name in _UNUSED:
        return True
    return not is_own and not difflib.get_close_matches(str(name)[:_LONGEST_NAME], known, n=1, cutoff=0.75)


def _say_unused(names: Iterable[str], warnings: list[str]) -> None:
    reasons = {name: f" ({reason})" for name, reason in _UNUSED.items()}
    shown = [f"{name[:_LONGEST_NAME]!r}{reasons.get(name, '')}" for name in sorted(map(str, names))]
    if shown:
        more = f" and {len(shown) - _MOST_NAMES} more" if len(shown) > _MOST_NAMES else ""
        warnings.append(f"not used, because a request has no such field: {', '.join(shown[:_MOST_NAMES])}{more}")


def _take_partner_key(fields: dict[str, Any]) -> None:
    key = fields.pop(_PARTNER_KEY, None)
    if isinstance(key, str):
        given = fields.get("extra_data")
        fields["extra_data"] = merged(given if isinstance(given, Mapping) else {}, {"api_key_comfy_org": key})


def _take_images(fields: dict[str, Any], warnings: list[str]) -> None:
    """Give the files that come with their names to the inputs that have these names."""
    images, graph = fields.get(_IMAGES), fields.get("workflow")
    if not isinstance(images, list) or not all(isinstance(image, Mapping) for image in images):
        return
    if not isinstance(graph, Mapping) or not is_graph(graph):
        raise InvalidRequest(
            "`images` goes by the names in a graph: send the graph itself, or give the files as `inputs`."
        )
    if len(images) > MAX_ADDRESSES:
        raise InvalidRequest(f"there are {len(images):,} `images`; a request may have {MAX_ADDRESSES:,}.")
    del fields[_IMAGES]
    contents = {str(image.get("name") or ""): image.get("image") for image in images}
    inputs: dict[str, Any] = {}
    unused = dict.fromkeys(contents)
    for place, name in _named_files(graph):
        if name in contents:
            inputs[place] = contents[name]
            unused.pop(name, None)
    warnings += [f"the image {name[:_LONGEST_NAME]!r} is the input of no node, and was not used" for name in unused]
    given = fields.get("inputs")
    fields["inputs"] = {**inputs, **(given if isinstance(given, Mapping) else {})}


def _named_files(graph: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The inputs of a graph, which may be a bad one, that have the name of a file: as an address, and the name."""
    for node_id, node in graph.items():
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        for input_name, value in inputs.items() if isinstance(inputs, Mapping) else ():
            if isinstance(value, str) and value and _is_of_file(node.get("class_type"), input_name, value):
                yield f"{node_id}.{input_name}", name_in_input_folder(value)


def _is_of_file(class_type: object, input_name: str, value: str) -> bool:
    """Whether an input takes the name of a file: for sure, or as far as its value shows, in a class we do not know."""
    if not isinstance(class_type, str):
        return False
    if takes_file(class_type, input_name):
        return True
    may_be = class_type not in NODES and input_name != PREFIX and len(value) <= _LONGEST_FILE_NAME
    return may_be and type_of_name(name_in_input_folder(value)) is not None


def _clean_up(fields: dict[str, Any], warnings: list[str]) -> None:
    """Take values as they were meant."""
    workflow, labels, inputs = fields.get("workflow"), fields.get("metadata"), fields.get("inputs")
    if isinstance(workflow, str):
        fields["workflow"] = as_address(workflow)
    if "job_id" in fields:
        fields["job_id"] = _as_text(fields["job_id"])
    if isinstance(labels, Mapping):
        fields["metadata"] = {name: _as_text(value) for name, value in labels.items() if value is not None}
    if isinstance(inputs, Mapping):
        # What has no dot is an input of a named workflow by its name: a text is taken as it is written.
        is_named = isinstance(fields.get("workflow"), str) and not is_address(fields["workflow"])
        fields["inputs"] = {
            name: value if is_named and "." not in name else _as_meant(value)
            for name, value in inputs.items()
            if value is not None
        }
        left_out = [name for name, value in inputs.items() if value is None]
        warnings += [f"the input {name[:_LONGEST_NAME]!r} {NULL_INPUT}" for name in left_out]
    if isinstance(fields.get("models"), list):
        fields["models"] = [_with_stripped_url(model) for model in fields["models"]]
    for name in ("deadline_s", "wait_s"):
        if name in fields:
            fields[name] = _as_number(fields[name])
    extra = fields.get("extra_data")
    if isinstance(extra, Mapping) and is_shallow(extra):
        fields["extra_data"] = _clean_extra_data(extra, warnings)


def _clean_extra_data(extra: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    if "client_id" in extra:
        _say_unused(["client_id"], warnings)
    bare = {name: value for name, value in extra.items() if name != "client_id"}
    whole: dict[str, Any] = finite(bare)
    if whole is not bare:
        warnings.append("`extra_data` has numbers that JSON does not have (NaN, Infinity): null stands for them")
    return whole


def _as_text(value: object) -> object:
    """A number or a truth value as JSON writes it; any other value itself."""
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    return value


def _as_number(value: object) -> object:
    """The number that a text is; any other value itself."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _as_meant(value: object) -> object:
    """A file, or several, as they were meant; any other value itself."""
    if isinstance(value, list):
        return [as_address(item) if isinstance(item, str) else item for item in value]
    return as_address(value) if isinstance(value, str) else value


def _with_stripped_url(model: object) -> object:
    if isinstance(model, Mapping) and isinstance(model.get("url"), str):
        return {name: value for name, value in {**model, "url": as_address(model["url"])}.items() if value is not None}
    return model
