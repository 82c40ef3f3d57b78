"""Clients of AWS are made quickly: each test has its own, and what they are made from is the same for all.

A world of the API has some seven clients of two sessions. As boto makes them, most of the time goes into copies of the
tree of its handlers, into names of events that are looked up in a list of a hundred and seventy others, into rules of
endpoints that are read again, and with moto into a thousand addresses that are registered again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import botocore.client
import botocore.handlers
import botocore.hooks
import botocore.regions
import botocore.session
from botocore.endpoint_provider import EndpointProvider
from botocore.hooks import NodeList
from botocore.loaders import create_loader
from moto.core import models
from moto.core.models import MockAWS

# Stubs do not have what boto keeps to itself.
_hooks: Any = botocore.hooks
PrefixTrie, EventAliaser = _hooks._PrefixTrie, _hooks.EventAliaser
ClientCreator: Any = botocore.client.ClientCreator
Session: Any = botocore.session.Session


@contextmanager
def quick_boto() -> Iterator[None]:
    """Sessions and clients, and the start of `mock_aws`, are quick from `with` to the end of the block."""
    with ExitStack() as patches:
        for owner, name, replacement in (
            (botocore.session, "create_loader", functools.cache(create_loader)),
            (botocore.hooks, "accepts_kwargs", lambda _handler: True),
            (botocore.regions, "EndpointProvider", _endpoint_provider),
            (EventAliaser, "_alias_event_name", lambda _aliaser, name: _alias(name)),
            (PrefixTrie, "append_item", _append_item),
            (PrefixTrie, "remove_item", _remove_item),
            (PrefixTrie, "__copy__", _copy),
            (Session, "_register_builtin_handlers", _register_builtin_handlers),
            (ClientCreator, "_load_service_model", _load_service_model),
            (ClientCreator, "_create_client_class", _create_client_class),
            (MockAWS, "_enable_patching", _enable_patching),
        ):
            patches.enter_context(patch.object(owner, name, replacement))
        yield


# A tree of handlers is shared by its copies: whoever adds to one makes the nodes on the way there anew.


def _copy(trie: Any) -> Any:
    copied = PrefixTrie()
    copied._root = trie._root
    return copied


def _append_item(trie: Any, key: str, value: object, section: int = _hooks._MIDDLE) -> None:
    node = trie._root = _own(trie._root)
    for part in key.split("."):
        known = node["children"].get(part)
        child = _own(known) if known else {"chunk": part, "values": None, "children": {}}
        node["children"][part] = child
        node = child
    known_values: NodeList | None = node["values"]
    values: list[list[object]] = [list(one) for one in known_values] if known_values else [[], [], []]
    values[section].append(value)
    node["values"] = NodeList(*values)


def _own(node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "children": dict(node["children"])}


_remove_any_item: Callable[..., None] = PrefixTrie.remove_item


def _remove_item(trie: Any, key: str, value: object) -> None:
    trie._root = trie._recursive_copy(trie._root)
    _remove_any_item(trie, key, value)


_plain_aliaser = EventAliaser(None)
_alias_anew = EventAliaser._alias_event_name


@functools.lru_cache(maxsize=10_000)
def _alias(name: str) -> str:
    _plain_aliaser._alias_name_cache.clear()
    return str(_alias_anew(_plain_aliaser, name))


# What sessions and clients have in common.

_register_all = Session._register_builtin_handlers
#: The tree with all of boto's own handlers, by their number: moto adds one of its own when it is loaded.
_builtin: dict[int, Any] = {}


def _register_builtin_handlers(session: Any, events: Any) -> None:
    emitter, number = session._original_handler, len(botocore.handlers.BUILTIN_HANDLERS)
    if number not in _builtin:
        _register_all(session, events)
        _builtin[number] = emitter._handlers
    emitter._handlers = _copy(_builtin[number])


_providers: dict[tuple[int, int, bool], tuple[EndpointProvider, object, object]] = {}


def _endpoint_provider(ruleset_data: Any, partition_data: Any, excluded_params: Any = None) -> EndpointProvider:
    """The rules of a service; what they are read from is kept, so that no other has its id."""
    key = (id(ruleset_data), id(partition_data), excluded_params is None)
    if key not in _providers:
        made = EndpointProvider(ruleset_data, partition_data, excluded_params)
        _providers[key] = (made, ruleset_data, partition_data)
    return _providers[key][0]


_load_model_anew = ClientCreator._load_service_model
_models: dict[tuple[str, str | None], Any] = {}


def _load_service_model(creator: Any, service_name: str, api_version: str | None = None) -> Any:
    """What a service takes and answers; it looks up its shapes once."""
    key = (service_name, api_version)
    if key not in _models:
        _models[key] = _load_model_anew(creator, service_name, api_version)
    return _models[key]


_make_class = ClientCreator._create_client_class
_classes: dict[tuple[str, int], type] = {}


def _create_client_class(creator: Any, service_name: str, service_model: Any) -> type:
    """A service's class; boto3's sessions have handlers that add to it."""
    event = f"creating-client-class.{service_model.service_id.hyphenize()}"
    key = (service_name, len(creator._event_emitter._emitter._handlers.prefix_search(event)))
    if key not in _classes:
        _classes[key] = _make_class(creator, service_name, service_model)
    return _classes[key]


# The addresses that moto answers at.

_patch_anew = MockAWS._enable_patching
_registries: list[Any] = []


def _enable_patching(mock: MockAWS, reset: bool = True) -> None:
    if not _registries:
        _patch_anew(mock, reset)
        _registries.append(models.responses_mock._registry)
        return
    models.botocore_stubber.enabled = True
    if reset:
        mock.reset()
    models.responses_mock.start()
    models.responses_mock._registry = _registries[0]
