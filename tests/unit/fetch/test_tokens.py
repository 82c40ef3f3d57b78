"""Tokens of hosts of models: what each may see of them."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from comfy_serverless.connector.confinement import engine_environment
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.fetch.tokens import NO_TOKENS, Tokens, tokens_of
from comfy_serverless.settings import Settings

SECRETS = {"HF_TOKEN": "hf_secret", "CIVITAI_TOKEN": "civ-secret", "MORE_SETTINGS": "HF_TOKEN=hf_secret"}


@pytest.mark.parametrize("more", [(), ("HF_*",), ("*",), ("CIVITAI_*", "H*")])
def test_the_engine_gets_no_token_by_a_pattern(more: tuple[str, ...]) -> None:
    places = {"HUGGING_FACE_TOKEN_PARAMETER": "/comfy/hf", "CIVITAI_TOKEN_PARAMETER": "/comfy/civ"}
    given = engine_environment({**SECRETS, **places, "PATH": "/bin"}, more)
    assert not {"HF_TOKEN", "CIVITAI_TOKEN", *places} & given.keys()
    if "*" not in more:
        assert given == {"PATH": "/bin"}


@pytest.mark.parametrize("name", ["HF_TOKEN", "CIVITAI_TOKEN"])
def test_a_token_that_is_none_is_refused_without_being_shown(name: str) -> None:
    for text in ("Bearer hf_secret", "hf secret", "hf_s\u00e9cret", "hf_secret\r\nX: y"):
        with pytest.raises(InvalidSetting) as caught:
            Settings.from_environment({name: text})
        assert "cret" not in str(caught.value)


def test_settings_show_no_token() -> None:
    settings = Settings.from_environment({"HF_TOKEN": "hf_secret", "CIVITAI_TOKEN": "civ-secret"})
    tokens = tokens_of(settings)
    assert "secret" not in f"{settings!r} {settings} {tokens!r} {tokens}"


@pytest.mark.parametrize(
    ("url", "is_sent"),
    [
        ("https://huggingface.co/a", True),
        ("https://HUGGINGFACE.CO:443/a", True),
        ("http://huggingface.co/a", False),
        ("http://huggingface.co:443/a", False),
        ("https://huggingface.co:8443/a", False),
        ("https://huggingface.co./a", False),
        ("https://cdn.huggingface.co/a", False),
        ("https://huggingface.co.evil.example/a", False),
        ("https://evil.example/huggingface.co", False),
        ("https://huggingface.co@evil.example/a", False),
        ("https://hf.co/a", False),
        ("ftp://huggingface.co/a", False),
    ],
)
def test_a_token_is_for_one_host_and_tls(url: str, is_sent: bool) -> None:
    tokens = Tokens({"huggingface.co": lambda: "hf_secret"})
    assert bool(tokens.headers_for(urlsplit(url))) is is_sent
    assert NO_TOKENS.headers_for(urlsplit(url)) == {}


def test_a_host_without_a_token_gets_none() -> None:
    assert tokens_of(Settings()).headers_for(urlsplit("https://huggingface.co/a")) == {}
