"""Wrong addresses, proxies and settings of AWS: each is named, nothing is a traceback, and no password is shown.

And this machine is never spoken to through a proxy, which would get the key.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from comfy_serverless.cli import remote, remote_api
from comfy_serverless.cli.main import main
from comfy_serverless.errors import UpstreamError
from comfy_serverless.proxies import VARIABLES
from tests.unit.cli.scripted_api import Told, scripted_api

SECRET = "s3cret"
BAD_PROXIES = [
    f"socks5://me:{SECRET}@127.0.0.1:1",
    f"https://me:{SECRET}@127.0.0.1:1",
    "http://[",
    "http://a..b:1",
    "http://h:99999",
    "http://h h",
    "http://",
]
WORKFLOW = {"1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}}}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing in it but a key for either side."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name in VARIABLES]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",  # `explained` sets it: so it is taken back
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_MAX_ATTEMPTS": "1",
        "COMFY_API_KEY": "k",
        "COMFY_BASE_URL": "http://192.0.2.1:9",
        "HOME": str(tmp_path),
        "NO_PROXY": "",  # `main` sets these two: so they are taken back
        "no_proxy": "",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "pause", lambda _seconds: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.json").write_text(json.dumps(WORKFLOW))
    (tmp_path / "a.png").write_bytes(b"a")


DOORS = {
    "jobs": ("jobs", "ls"),
    "upload": ("upload", "a.png"),
    "run": ("run", "w.json", "--remote", "--input", "1.image=a.png"),
    "batch": ("batch", "list", "--stack", "s"),
    "keys": ("keys", "list", "--stack", "s"),
    "usage": ("usage",),
    "logs": ("logs", "job", "--stack", "s"),
    "run here": ("run", "w.json", "--input", "1.image=s3://bucket/x.png"),
}
#: Where the proxy is met only by the engine's side of a run: see tests/unit/test_redacted_failures.py.
OWN_WAYS = [name for name in DOORS if name != "run here"]


@pytest.mark.parametrize("door", OWN_WAYS)
@pytest.mark.parametrize("proxy", BAD_PROXIES)
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(
    door: str, proxy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy)
    assert main(DOORS[door]) == 1
    told = capsys.readouterr().err
    assert "invalid_setting: HTTP" in told
    assert "_PROXY cannot be used" in told
    assert SECRET not in told


@pytest.mark.parametrize("door", OWN_WAYS)
def test_a_proxy_that_is_not_there_is_said_as_such(
    door: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://me:{SECRET}@127.0.0.1:1")
    assert main(DOORS[door]) == 1
    told = capsys.readouterr().err
    assert "the proxy http://127.0.0.1:1 (HTTP" in told
    assert SECRET not in told


@pytest.mark.parametrize("door", ["batch", "keys", "logs"])
@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("AWS_ENDPOINT_URL", "foo", "invalid_setting"),
        ("AWS_ENDPOINT_URL", "http://[", "invalid_setting"),
        ("AWS_ENDPOINT_URL", f"me:{SECRET}@h", "invalid_setting"),
        ("AWS_ENDPOINT_URL", f"http://me:{SECRET}@127.0.0.1:1", "upstream_error"),
        ("AWS_MAX_ATTEMPTS", "abc", "invalid_setting"),
        ("AWS_RETRY_MODE", "abc", "invalid_setting"),
    ],
)
def test_a_setting_of_aws_that_cannot_be_used_is_named(
    door: str, variable: str, value: str, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(DOORS[door]) == 1
    told = capsys.readouterr().err
    assert code in told
    assert SECRET not in told
    assert variable in told or code == "upstream_error"


@pytest.mark.parametrize(("variable", "value"), [("AWS_ENDPOINT_URL", "foo"), ("AWS_PROFILE", "nope")])
def test_an_input_in_s3_needs_settings_that_can_be_used(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(DOORS["run here"]) == 1
    assert value in capsys.readouterr().err


def test_a_mistake_of_ours_stays_one() -> None:
    from argparse import Namespace

    from comfy_serverless.cli.stack import explained

    with pytest.raises(ValueError, match="ours"), explained(Namespace(stack="s")):
        raise ValueError("ours")


@pytest.mark.parametrize("url", ["http://a..b", f"http://{'a' * 70}.example", "http://.", "http://[::1", "http://h:0"])
@pytest.mark.parametrize("door", ["jobs", "upload", "run"])
def test_a_host_that_cannot_exist_is_told(
    door: str, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMFY_BASE_URL", url)
    assert main(DOORS[door]) == 1
    assert "COMFY_BASE_URL" in capsys.readouterr().err


def test_a_link_that_is_no_address_is_no_traceback() -> None:
    for url in ("http://a..b/x", "http://[/x", "nothing", "http://h:99999/"):
        with pytest.raises(UpstreamError, match="cannot be reached"):
            remote.put_bytes(remote.Api.from_environment(), {"method": "PUT", "url": url, "headers": {}}, lambda: b"")


@pytest.mark.parametrize("host", ["0.0.0.0", "127.1", "localhost.", "a.localhost", "[::ffff:127.0.0.1]", "[::1]"])
def test_this_machine_is_never_asked_through_a_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_api(lambda _asked: Told(body={"id": "x", "status": "queued"})) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        monkeypatch.setenv("COMFY_BASE_URL", f"http://{host}:2")
        with pytest.raises(UpstreamError, match="cannot be reached"):
            remote.job(remote.Api.from_environment(), "x")
        assert proxy.asked == []


def test_a_proxy_gets_its_own_password_and_certificates_of_the_environment_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with scripted_api(lambda _asked: Told(body={"id": "x", "status": "queued"})) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("http://", "http://me:word@"))
        api = remote.Api.from_environment()
        remote.job(api, "x")
        assert proxy.asked[0].headers["proxy-authorization"] == "Basic bWU6d29yZA=="
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/of/the/company.pem")
    assert remote_api._session(None).verify == "/of/the/company.pem"
