"""The named workflows that a command is about: those of a key's owner, over HTTP, or the operator's (`operator`).

Both answer with the documents of `GET /api/v2/workflows` and the routes below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import quote

from comfy_serverless.cli import remote

Document = dict[str, Any]

_PATH = "/api/v2/workflows"
_PAGE = 100
#: Without these fields an answer is none of the API's.
_ENTRY, _WORKFLOW = ("name", "aliases"), ("name", "inputs", "schema")


class Registry(Protocol):
    """Named workflows, to be read and changed. Its methods raise ComfyError."""

    def entries(self) -> Iterator[Document]:
        """All workflows, by name."""

    def described(
        self, name: str, *, alias: str | None = None, version: int | None = None, is_shared: bool = False
    ) -> Document:
        """A workflow, and what a version of it takes: that of an alias (by default `live`), or of this number.

        Args:
            is_shared: whether the operator's is meant, whatever the owner has of that name.
        """

    def versions(self, name: str) -> Iterator[Document]:
        """Its versions, the newest first."""

    def push(self, name: str, body: Mapping[str, Any]) -> Document:
        """Make a version of what a body of `PUT /api/v2/workflows/{name}` has; with `dry_run`, look at it only."""

    def move(self, name: str, body: Mapping[str, Any]) -> Document:
        """Move an alias as a body of `POST /api/v2/workflows/{name}/alias` says."""

    def drop(self, name: str, alias: str) -> Document:
        """Take an alias away."""

    def retire(self, name: str) -> None:
        """Hide a workflow."""


class OverHttp:
    """What the owner of a key has, and what the operator shares, by the API."""

    def __init__(self, api: remote.Api) -> None:
        self._api = api

    def entries(self) -> Iterator[Document]:
        """See `Registry`."""
        return self._pages("", "workflows")

    def described(
        self, name: str, *, alias: str | None = None, version: int | None = None, is_shared: bool = False
    ) -> Document:
        """See `Registry`."""
        query = {"alias": alias, "version": version, "source": "operator" if is_shared else None}
        params = {key: value for key, value in query.items() if value is not None}
        return remote.ask(self._api, "GET", _of(name), _WORKFLOW, params=params)

    def versions(self, name: str) -> Iterator[Document]:
        """See `Registry`."""
        return self._pages(f"{_of(name)}/versions".removeprefix(_PATH), "versions")

    def push(self, name: str, body: Mapping[str, Any]) -> Document:
        """See `Registry`."""
        return remote.ask(self._api, "PUT", _of(name), _WORKFLOW, json=dict(body))

    def move(self, name: str, body: Mapping[str, Any]) -> Document:
        """See `Registry`."""
        return remote.ask(self._api, "POST", f"{_of(name)}/alias", _ENTRY, json=dict(body))

    def drop(self, name: str, alias: str) -> Document:
        """See `Registry`."""
        return remote.ask(self._api, "DELETE", f"{_of(name)}/alias/{quote(alias, safe='')}", _ENTRY)

    def retire(self, name: str) -> None:
        """See `Registry`."""
        remote.ask(self._api, "DELETE", _of(name), ())

    def _pages(self, path: str, listed: str) -> Iterator[Document]:
        cursor: str | None = None
        while True:
            query: dict[str, Any] = {"limit": _PAGE, **({"cursor": cursor} if cursor else {})}
            page = remote.ask(self._api, "GET", f"{_PATH}{path}", (listed,), params=query)
            yield from page[listed]
            cursor = page.get("next_cursor")
            if not cursor:
                return


def run(
    api: remote.Api,
    name: str,
    body: Mapping[str, Any],
    *,
    which: Mapping[str, Any],
    idempotency_key: str,
) -> Document:
    """Submit a run of a workflow. Sent twice with the same key, it is the same job.

    Args:
        which: `alias` or `version`, `source` and `sticky`, as far as they are given.
    """
    headers = {"Idempotency-Key": idempotency_key}
    return remote.ask(
        api, "POST", f"{_of(name)}/runs", ("id", "status"), params=dict(which), json=dict(body), headers=headers
    )


def _of(name: str) -> str:
    return f"{_PATH}/{quote(name, safe='')}"
