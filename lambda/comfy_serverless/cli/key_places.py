"""Where the keys are that `comfy-serverless keys` is about: in a table, with credentials of AWS, or behind the API.

--remote                           ──► the API, with an admin's key alone (`KeysOverHttp`)
--table, --stack or COMFY_STACK    ──► the table, with credentials of AWS (`KeysInTable`)
else JOBS_TABLE                    ──► that table
else COMFY_BASE_URL                ──► the API

Both tell of keys as the API does, and know no more of them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

from comfy_serverless.cli.remote_variables import KEY_VARIABLE, URL_VARIABLE
from comfy_serverless.cli.stack import STACK_VARIABLE, TABLE_VARIABLE, explained, key_store
from comfy_serverless.errors import InvalidRequest, UpstreamError

if TYPE_CHECKING:
    from comfy_serverless.cli.remote_api import Api
    from comfy_serverless.table.api_keys import ApiKeyStore

Document = dict[str, Any]

#: Which keys are meant, in words, for --help.
RULE: Final = f"""\
Where the keys are: --stack NAME of the deployed stack, or {STACK_VARIABLE}; or --table NAME, or {TABLE_VARIABLE}, where
there is no stack to ask. Credentials and region come from where the AWS CLI takes them (AWS_PROFILE, AWS_REGION, …).
With --remote, or if none of these is given, it is the API that {URL_VARIABLE} names, with an admin's key in
{KEY_VARIABLE} and no credentials of AWS; admins' own keys are made, changed and ended with credentials alone."""

_PATH = "/api/v2/keys"
#: Without these fields an answer is none of the API's.
_KEY, _NEW = ("id", "name", "owner"), ("id", "name", "owner", "key")


class KeyPlace(Protocol):
    """Where keys are. Limits are named as in the API's bodies: `max_in_flight`, `budget_usd`, …"""

    def create(self, name: str, *, owner: str, options: Document) -> Document:
        """Make a key; `key` of the answer is its text."""

    def change(self, id_or_name: str, limits: Document) -> Document:
        """Give a key other limits; None takes one away."""

    def all(self) -> list[Document]:
        """All keys, the oldest first."""

    def revoke(self, id_or_name: str) -> Document:
        """End a key."""


@contextmanager
def key_place(options: argparse.Namespace) -> Iterator[KeyPlace]:
    """The place that options and environment mean, with refusals of AWS explained. Without any place the program ends
    as after any wrong usage.
    """
    has_url = bool(os.environ.get(URL_VARIABLE, "").strip())
    in_aws = bool(options.table or options.stack or os.environ.get(TABLE_VARIABLE))
    if options.remote or (has_url and not in_aws):
        from comfy_serverless.cli.remote_api import Api

        yield KeysOverHttp(Api.from_environment())
        return
    if not in_aws:
        options.wrong_usage(
            f"which keys? Give --stack NAME (the name it was deployed with), or set {STACK_VARIABLE}; or set "
            f"{URL_VARIABLE}, and {KEY_VARIABLE} to an admin's key, which needs no AWS credentials"
        )
    with explained(options):
        yield KeysInTable(key_store(options))


@dataclass(frozen=True, slots=True)
class KeysOverHttp:
    """Implements `KeyPlace`."""

    api: Api

    def create(self, name: str, *, owner: str, options: Document) -> Document:
        """See `KeyPlace`. It is asked once: whoever asks again would be told that the name is taken."""
        from requests import RequestException

        from comfy_serverless.cli.remote_answers import object_in, reason_of

        if options.pop("is_admin", False):
            raise InvalidRequest(
                "admins' keys are not made over the API: add --stack NAME, with credentials of AWS "
                "(`comfy-serverless keys create --help`)."
            )
        body = {"name": name, "owner": owner, **_without_none(options)}
        try:
            answer = self.api.send("POST", self.api.base_url + _PATH, with_key=True, json=body)
        except RequestException as error:
            raise UpstreamError(
                f"{self.api.shown} cannot be reached, or has broken off: {reason_of(error)}. If `comfy-serverless keys "
                f"ls` shows {name}, its text is lost: revoke it, and make another."
            ) from error
        document = object_in(answer.text) if answer.ok and not answer.is_redirect else None
        if document is None or not all(field in document for field in _NEW):
            raise self.api.refusal(answer)
        return document

    def change(self, id_or_name: str, limits: Document) -> Document:
        """See `KeyPlace`."""
        return self._ask("PATCH", _one(id_or_name), _KEY, json=limits)

    def all(self) -> list[Document]:
        """See `KeyPlace`."""
        return list(self._ask("GET", _PATH, ("keys",))["keys"])

    def revoke(self, id_or_name: str) -> Document:
        """See `KeyPlace`."""
        return self._ask("DELETE", _one(id_or_name), _KEY)

    def _ask(self, method: str, path: str, needs: tuple[str, ...], **arguments: Any) -> Document:  # noqa: ANN401
        from comfy_serverless.cli.remote import ask

        return ask(self.api, method, path, needs, **arguments)


@dataclass(frozen=True, slots=True)
class KeysInTable:
    """Implements `KeyPlace`."""

    store: ApiKeyStore

    def create(self, name: str, *, owner: str, options: Document) -> Document:
        """See `KeyPlace`."""
        text, key = self.store.create(name, owner=owner, **_stored(options))
        return {"key": text, **key.to_json()}

    def change(self, id_or_name: str, limits: Document) -> Document:
        """See `KeyPlace`."""
        return self.store.change(id_or_name, **_stored(limits)).to_json()

    def all(self) -> list[Document]:
        """See `KeyPlace`."""
        return [key.to_json() for key in self.store.list()]

    def revoke(self, id_or_name: str) -> Document:
        """See `KeyPlace`."""
        return self.store.revoke(id_or_name).to_json()


def _stored(options: Document) -> Any:  # noqa: ANN401  (the store's own `KeyOptions`)
    """Options as the store takes them: budgets in nano-dollars."""
    from comfy_serverless.jobs.prices import checked_budget
    from comfy_serverless.table.api_keys import BudgetAction

    stored = dict(options)
    if "budget_usd" in stored:
        budget = stored.pop("budget_usd")
        stored["budget_nanousd"] = None if budget is None else checked_budget(budget)
    if "budget_action" in stored:
        stored["budget_action"] = BudgetAction(stored["budget_action"])
    return stored


def _without_none(options: Document) -> Document:
    return {name: value for name, value in options.items() if value is not None}


def _one(id_or_name: str) -> str:
    return f"{_PATH}/{quote(id_or_name, safe='')}"
