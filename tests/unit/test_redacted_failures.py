"""Libraries put the password of a proxy or an endpoint into their failures: no message shows one as it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError, ProxyConnectionError

from comfy_serverless.aws.s3 import S3Address, read_problem, write_problem
from comfy_serverless.redaction import redacted
from comfy_serverless.worker.record import own_mistake

PACKAGE = Path("lambda/comfy_serverless")
#: The classes of those libraries, and what a module may call several of them.
OF_LIBRARIES = {"BotoCoreError", "ClientError", "RequestException", "HTTPError", "_OF_S3", "_AWS_FAILURES", "Exception"}
#: The connector speaks to ComfyUI alone, whose proxy is named without its password (`proxies.Proxy.url`), and takes the
#: password out of ComfyUI's own address by itself (`connector.server`).
ELSEWHERE = "connector"


def names_in(node: ast.AST | None) -> set[str]:
    if node is None:
        return set()
    return {
        part.id if isinstance(part, ast.Name) else part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Name | ast.Attribute)
    }


def failures(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Each name that holds a library's failure, and the code in which it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.name and names_in(node.type) & OF_LIBRARIES:
            yield node.name, node
        if isinstance(node, ast.FunctionDef):
            for argument in node.args.args:
                if names_in(argument.annotation) & OF_LIBRARIES:
                    yield argument.arg, node


def shown_as_they_are(name: str, code: ast.AST) -> Iterator[int]:
    """The lines that make a text of it, and do not give that to `redacted`."""
    if isinstance(code, ast.Call) and names_in(code.func) & {"redacted"}:
        return
    made_of = code.value if isinstance(code, ast.FormattedValue) else None
    if isinstance(code, ast.Call) and names_in(code.func) & {"str", "repr"} and code.args:
        made_of = code.args[0]
    if isinstance(made_of, ast.Name) and made_of.id == name:
        yield made_of.lineno
    for child in ast.iter_child_nodes(code):
        yield from shown_as_they_are(name, child)


def shown_in(text: str) -> set[int]:
    return {line for name, code in failures(ast.parse(text)) for line in shown_as_they_are(name, code)}


def test_no_module_makes_a_text_of_a_librarys_failure_but_by_redacted() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != ELSEWHERE]
    assert len(modules) > 100
    shown = {f"{path}:{line}" for path in modules for line in shown_in(path.read_text())}
    assert shown == set()


@pytest.mark.parametrize(
    "text",
    [
        "try: f()\nexcept (ClientError, BotoCoreError) as error: raise X(f'no: {error}')",
        "try: f()\nexcept requests.RequestException as e: say(str(e))",
        "def problem(error: Exception) -> str:\n    return f'{type(error)}: {error!r}'",
    ],
)
def test_that_walk_finds_what_is_shown(text: str) -> None:
    assert shown_in(text)
    for as_it_is, mended in (("{error}", "{redacted(error)}"), ("str(e)", "redacted(e)"), ("{error!r}", "")):
        text = text.replace(as_it_is, mended)
    assert not shown_in(text)


SECRET = "s3cret"


@pytest.mark.parametrize(
    "text",
    [
        "http://me:s3cret@127.0.0.1:1",
        "http://socks5://me:s3cret@127.0.0.1:1",
        "http://me:s3cret/with@h:1",
        "http://me:1/s3cret@h:1",
        "http://me:a@s3cret@h:1",
        "http://me:#s3cret?@h:1",
        "https://s3cret@h/path",
        "HTTP://ME:s3cret@h",
        "me:s3cret@h:3128",
        "me:s3cret/with@h:3128",
        "me:s3cret%40@h",
    ],
)
@pytest.mark.parametrize("around", ['Failed to connect: "{}"', "({})", "no way to {}, and back", "proxy={}"])
def test_no_user_and_password_of_an_address_stays_in_a_text(text: str, around: str) -> None:
    shown = redacted(around.format(text))
    assert SECRET not in shown
    assert "…@" in shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/photo@2x.png does not exist (404)",
        'Could not connect to the endpoint URL: "https://b.s3.amazonaws.com/photo@2x.png"',
        "User: arn:aws:sts::123456789012:assumed-role/Admin/ana@example.org is not authorized",
        "error: write to ana@example.org",
        "https://127.0.0.1:8080/a?b=c",
    ],
)
def test_all_else_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    "failure",
    [
        ProxyConnectionError(proxy_url="http://socks5://me:s3cret@127.0.0.1:1"),
        EndpointConnectionError(endpoint_url="http://me:s3cret@127.0.0.1:1/b/k"),
        ValueError("Invalid endpoint: me:s3cret@h"),
    ],
)
def test_what_a_job_is_told_has_none(failure: Exception) -> None:
    address = S3Address("b", "x.png")
    told = [read_problem(failure, address).reason, write_problem(failure, address).reason, own_mistake(failure).message]
    assert not any(SECRET in text for text in told)
    assert all("…@" in text for text in told)
