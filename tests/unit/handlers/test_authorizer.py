"""The authorizer: whose key a request has."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from comfy_serverless.handlers import authorizer, wiring
from comfy_serverless.table.api_keys import ApiKeyStore, BudgetAction
from tests.unit.jobs_table import aws, create_table

NAMES = ("owner", "key_id", "key_name", "max_in_flight", "requests_per_minute")
NOBODY = dict.fromkeys((*NAMES, "is_admin", "budget_nanousd", "budget_action"), "")


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiKeyStore]:
    with aws() as session:
        store = ApiKeyStore(create_table(session)[0])
        monkeypatch.setattr(wiring, "keys", lambda: store)
        yield store


def context_for(value: str | None, name: str = "authorization") -> Any:
    answer = authorizer.handler({"version": "2.0", "headers": {} if value is None else {name: value}}, None)
    assert answer["isAuthorized"] is True
    return answer["context"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_good_key_has_an_owner(keys: ApiKeyStore, scheme: str) -> None:
    text, key = keys.create("ci", owner="team", max_in_flight=2, requests_per_minute=60)
    expected = {"owner": "team", "key_id": key.id, "key_name": "ci", "max_in_flight": "2", "requests_per_minute": "60"}
    expected = {**NOBODY, **expected}
    assert context_for(f"{scheme} {text}") == expected
    assert context_for(f"{scheme} {text}", name="Authorization") == expected


def test_an_admin_and_a_budget_are_told(keys: ApiKeyStore) -> None:
    text, _ = keys.create("boss", owner="ops", is_admin=True)
    assert context_for(f"Bearer {text}")["is_admin"] == "true"
    text, _ = keys.create("ci", owner="team", budget_nanousd=5, budget_action=BudgetAction.REFUSE)
    told = context_for(f"Bearer {text}")
    assert (told["is_admin"], told["budget_nanousd"], told["budget_action"]) == ("", "5", "refuse")


def test_no_limit_is_an_empty_text(keys: ApiKeyStore) -> None:
    text, key = keys.create("ci", owner="team")
    assert context_for(f"Bearer {text}") == {**NOBODY, "owner": "team", "key_id": key.id, "key_name": "ci"}


@pytest.mark.parametrize(
    "form",
    ["{}", "Basic {}", "Bearer{}", "Bearer\t{}", "Bearer {} {}", "Bearer {}\n", "Bearer {},Bearer {}", "Bearer {}é"],
)
def test_anything_but_one_bearer_token_is_nobody(keys: ApiKeyStore, form: str) -> None:
    text, _ = keys.create("ci", owner="team")
    assert context_for(form.replace("{}", text)) == NOBODY


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer ", "Bearer csk_unknown", "Bearer " + "x" * 100_000])
def test_garbage_is_nobody(keys: ApiKeyStore, value: str | None) -> None:
    keys.create("ci", owner="team")
    assert context_for(value) == NOBODY


def test_a_revoked_key_is_nobody(keys: ApiKeyStore) -> None:
    text, _ = keys.create("ci", owner="team")
    keys.revoke("ci")
    assert context_for(f"Bearer {text}") == NOBODY


def test_trouble_with_the_table_lets_nobody_in(keys: ApiKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ClientError({"Error": {"Code": "InternalServerError", "Message": ""}}, "GetItem")

    monkeypatch.setattr(keys, "find", fail)
    with pytest.raises(ClientError):
        context_for("Bearer csk_x")


def test_keys_are_not_logged(
    keys: ApiKeyStore, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    text, _ = keys.create("ci", owner="team")
    with caplog.at_level(logging.INFO, logger="comfy_serverless"):
        context_for(f"Bearer {text}")
    assert text not in caplog.text + "".join(capsys.readouterr())
