"""`comfy-serverless keys` with an admin's key alone: the API's own routes answer, and no AWS credentials are there."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from comfy_serverless.cli import keys as cli_keys
from comfy_serverless.cli import stack
from comfy_serverless.cli.remote_api import Api
from comfy_serverless.errors import ComfyError, Forbidden, InvalidRequest, NotFound, UpstreamError
from tests.unit.api_world import ApiWorld, api_world

BASE = "https://api.example"


class Wire:
    """What carries requests to the API, as an admin's; `breaks` counts those whose answer is lost on the way."""

    def __init__(self, world: ApiWorld) -> None:
        self.world, self.is_admin, self.breaks = world, True, 0
        self.asked: list[str] = []

    def send(self, api: Api, method: str, url: str, *, with_key: bool, **given: Any) -> requests.Response:
        assert (with_key, api.key) == (True, "key")
        path = url.removeprefix(BASE)
        self.asked.append(f"{method} {path}")
        key = {"is_admin": "true"} if self.is_admin else {}
        told = self.world.request(method, path, body=given.get("json"), key=key)
        if self.breaks:
            self.breaks -= 1
            raise requests.ConnectionError("gone")
        answer = requests.Response()
        answer.status_code, answer.encoding, answer.raw = told.status, "utf-8", io.BytesIO(told.text.encode())
        return answer


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    with api_world(monkeypatch) as world:
        made = Wire(world)
        monkeypatch.setattr(Api, "send", lambda api, *given, **named: made.send(api, *given, **named))
        monkeypatch.setattr(stack, "key_store", lambda _: pytest.fail("AWS is not asked"))
        for name, value in {"COMFY_BASE_URL": BASE, "COMFY_API_KEY": "key"}.items():
            monkeypatch.setenv(name, value)
        for name in ("COMFY_STACK", "JOBS_TABLE"):
            monkeypatch.delenv(name, raising=False)
        yield made


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli_keys.add_parser(parser.add_subparsers(dest="command"))
    return cli_keys.run(parser.parse_args(["keys", *arguments]))


def test_a_key_is_made_listed_changed_and_revoked(wire: Wire, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ("--expires", "30d", "--max-in-flight", "2", "--budget", "0.5", "--budget-action", "refuse")
    assert run("create", "ci", "--owner", "team", *limits) == 0
    made = capsys.readouterr()
    key = wire.world.services.keys.find(made.out.removesuffix("\n"))
    assert key is not None
    assert (key.owner, key.max_in_flight, key.budget_nanousd, key.budget_action) == ("team", 2, 500_000_000, "refuse")
    assert key.expires is not None
    assert "shown only now" in made.err

    run("ls")
    listed = capsys.readouterr()
    assert listed.out.splitlines()[1].split()[:3] == [key.id, "ci", "team"]
    assert "0.5 USD a month (refuse)" in listed.err
    run("ls", "--json")
    assert [(one["id"], one["is_good"]) for one in json.loads(capsys.readouterr().out)["keys"]] == [(key.id, True)]

    run("change", "ci", "--max-in-flight", "none", "--requests-per-minute", "90", "--no-budget")
    assert "no budget, any number of jobs at once, at most 90 requests a minute" in capsys.readouterr().err
    (changed,) = wire.world.services.keys.list()
    assert (changed.max_in_flight, changed.requests_per_minute, changed.budget_nanousd) == (None, 90, None)

    run("revoke", "ci")
    assert "is revoked" in capsys.readouterr().err
    assert [one.is_revoked for one in wire.world.services.keys.list()] == [True]
    assert run("revoke", "ci") == run("revoke", key.id) == 0, "the answer may have been lost"
    with pytest.raises(NotFound, match="keys ls"):
        run("revoke", "nobody")


def test_remote_means_the_api_whatever_stack_is_named(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFY_STACK", "mine")
    monkeypatch.setenv("JOBS_TABLE", "table")
    assert run("ls", "--remote") == 0
    assert wire.asked == ["GET /api/v2/keys"]
    monkeypatch.delenv("COMFY_BASE_URL")
    with pytest.raises(InvalidRequest, match="COMFY_BASE_URL"):
        run("ls", "--remote")


@pytest.mark.parametrize(
    "arguments", [("create", "a", "--owner", "b"), ("ls",), ("change", "a", "--no-budget"), ("revoke", "a")]
)
def test_a_key_that_is_no_admins_is_refused(wire: Wire, arguments: tuple[str, ...]) -> None:
    wire.is_admin = False
    with pytest.raises(Forbidden, match="admin"):
        run(*arguments)


def test_an_admins_key_needs_credentials_and_says_so(wire: Wire) -> None:
    with pytest.raises(InvalidRequest, match="--stack"):
        run("create", "boss", "--owner", "ana", "--admin")
    assert wire.asked == []


def test_a_key_whose_answer_was_lost_is_not_asked_for_again(wire: Wire) -> None:
    wire.breaks = 1
    with pytest.raises(UpstreamError, match="revoke it, and make another"):
        run("create", "ci", "--owner", "team")
    assert wire.asked == ["POST /api/v2/keys"]
    with pytest.raises(ComfyError, match="already"):
        run("create", "ci", "--owner", "team")
