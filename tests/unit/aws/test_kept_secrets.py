"""Secrets that AWS keeps, as the workers read them: when they are needed, for some minutes, and never shown."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from comfy_serverless.aws import kept_secrets
from comfy_serverless.aws.kept_secrets import KeptSecret
from comfy_serverless.errors import AssetUnavailable, MissingAsset
from comfy_serverless.fetch.tokens import tokens_of
from comfy_serverless.settings import Settings

TOKEN = "hf_secretOfTheOperator"


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.setenv(name, "eu-central-1")
    with mock_aws():
        yield


def parameter(value: str, name: str = "/comfy/hf-token") -> str:
    boto3.client("ssm").put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True)
    return name


def secret(value: str) -> str:
    return str(boto3.client("secretsmanager").create_secret(Name="comfy/hf", SecretString=value)["ARN"])


@pytest.mark.parametrize("text", [TOKEN, f" {TOKEN}\n", json.dumps({"token": TOKEN})])
def test_a_token_is_read_where_it_is_kept(text: str) -> None:
    assert KeptSecret(parameter(text)).value() == TOKEN
    assert KeptSecret(secret(text)).value() == TOKEN


def test_a_new_token_is_known_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    kept = KeptSecret(parameter("first"))
    assert kept.value() == "first"
    parameter("second")
    assert kept.value() == "first"
    now[0] += kept_secrets.KEPT_S
    assert kept.value() == "second"


@pytest.mark.parametrize(
    "text", ["a b", "a\nb", "\u00fc", "{}", '{"a": "1", "b": "2"}', "{", "x" * 5000, '{"a": ""}', "tok\x00en"]
)
def test_what_is_no_token_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(MissingAsset, match="is no token") as caught:
        KeptSecret(secret(text)).value()
    assert text not in caught.value.message or len(text) < 3


@pytest.mark.parametrize(
    "place", ["/nowhere", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:nowhere-AbCdEf"]
)
def test_one_that_is_not_there_says_which_right_is_needed(place: str) -> None:
    right = "secretsmanager:GetSecretValue" if place.startswith("arn") else "ssm:GetParameter"
    with pytest.raises(MissingAsset, match=right) as caught:
        KeptSecret(place).value()
    assert place in caught.value.message


def test_aws_that_does_not_answer_may_do_so_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(AssetUnavailable):
        KeptSecret("/comfy/hf-token").value()


def test_a_token_given_here_asks_nobody_and_none_is_shown() -> None:
    from urllib.parse import urlsplit

    given = Settings(hf_token=TOKEN, hugging_face_token_parameter="/nowhere", civitai_token_parameter=parameter("civ"))
    tokens = tokens_of(given)
    assert tokens.headers_for(urlsplit("https://huggingface.co/a")) == {"Authorization": f"Bearer {TOKEN}"}
    assert tokens.headers_for(urlsplit("https://civitai.com/a")) == {"Authorization": "Bearer civ"}
    assert tokens.headers_for(urlsplit("https://example.com/a")) == {}
    assert TOKEN not in repr(given) + repr(tokens)
