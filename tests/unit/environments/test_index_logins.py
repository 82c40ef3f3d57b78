"""Whom the user and password of a package index are sent to: that index, and nobody else."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from comfy_serverless.environments.locking.index_logins import IndexLogins


def sent(variables: dict[str, str], url: str) -> str:
    """`user:password` that goes along with a request; "" if nothing does."""
    headers = IndexLogins({"NETRC": "/nowhere", **variables}).headers_for(urlsplit(url))
    return b64decode(headers.get("Authorization", "").removeprefix("Basic ")).decode()


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS", "PIP_INDEX_URL"])
def test_it_goes_to_the_index_alone(variable: str) -> None:
    variables = {variable: "https://other/simple/ https://me:p%40ss@index.example.com/simple/"}
    assert sent(variables, "https://index.example.com:443/files/x.tar.gz") == "me:p@ss"
    for elsewhere in (
        "https://files.example.com:443/x.tar.gz", "https://index.example.com:8443/x", "http://index.example.com:80/x",
        "https://other:443/x",
    ):  # fmt: skip
        assert sent(variables, elsewhere) == "", elsewhere


def test_variables_of_a_named_index_count() -> None:
    variables = {
        "UV_INDEX": "first=https://a/simple/ my-kit=https://b/simple/",
        "UV_INDEX_MY_KIT_USERNAME": "me",
        "UV_INDEX_MY_KIT_PASSWORD": "secret",
    }
    assert (sent(variables, "https://b:443/x"), sent(variables, "https://a:443/x")) == ("me:secret", "")


def test_netrc_counts_over_tls_where_no_variable_says_anything(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine index.example.com login me password secret\n")
    netrc.chmod(0o600)
    variables = {"NETRC": str(netrc), "UV_DEFAULT_INDEX": "https://index.example.com/simple/"}
    assert sent(variables, "https://index.example.com:443/x") == "me:secret"
    assert sent(variables, "http://index.example.com:80/x") == ""
    assert sent(variables, "https://elsewhere:443/x") == ""
    netrc.write_text("this is none\n")
    assert sent(variables, "https://index.example.com:443/x") == ""


def test_words_that_are_no_addresses_are_passed_over() -> None:
    assert sent({"UV_FIND_LINKS": "/a/folder,https://[broken", "UV_INDEX": ""}, "https://a:443/x") == ""
