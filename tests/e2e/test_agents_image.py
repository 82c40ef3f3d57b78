"""The image `mcp`: the tools of agents, as Lambda runs them. What it must not hold is in test_api_image.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lambda_container import LambdaContainer, docker, http_event

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

#: A version of the protocol that clients begin with `initialize`.
OLD = "2025-06-18"
#: `python-multipart`, which `mcp` needs, has a folder `multipart` beside our `multipart.py`, and comes first.
READ_A_FORM = r"""
from importlib.metadata import files, version
from comfy_serverless.api.body_reader import parts_of
form = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n'
(part,) = parts_of(form, "multipart/form-data; boundary=x")
import multipart
assert "multipart/__init__.py" in map(str, files("python-multipart"))
assert multipart.__version__ == version("multipart")
print(len(getattr(multipart, "__path__", ())), part.content)
"""


@pytest.fixture(scope="module")
def container(
    mcp_image: str, stack_environment: dict[str, str], named_files: dict[Path, str]
) -> Iterator[LambdaContainer]:
    with LambdaContainer(mcp_image, stack_environment, files=named_files) as running:
        yield running


def said(container: LambdaContainer, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The result of a message."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
    answer = container.invoke(http_event("/mcp", method="POST", body=message))
    assert answer["statusCode"] == 200, container.log()[-4000:]
    result: dict[str, Any] = json.loads(answer["body"])["result"]
    return result


def test_it_begins_as_the_protocol_does(container: LambdaContainer) -> None:
    client = {"name": "test", "version": "1"}
    begun = said(container, "initialize", {"protocolVersion": OLD, "capabilities": {}, "clientInfo": client})
    assert begun["protocolVersion"] == OLD
    assert begun["serverInfo"]["name"] == "comfy-serverless"
    assert "tools" in begun["capabilities"]


def test_its_tools_are_the_workflows_of_its_folder_with_their_names(container: LambdaContainer) -> None:
    tools = {tool["name"]: tool for tool in said(container, "tools/list")["tools"]}
    assert {"get_job", "run_thumbnail", "run_banner"} <= tools.keys()
    inputs = tools["run_banner"]["inputSchema"]["properties"]
    assert list(inputs) == ["length"]
    assert (inputs["length"]["minimum"], inputs["length"]["maximum"]) == (16, 256)


def test_a_call_makes_a_job_in_the_table_of_the_template(container: LambdaContainer) -> None:
    refused = said(container, "tools/call", {"name": "run_banner", "arguments": {"lenght": 32}})
    assert refused["isError"]
    assert "did you mean 'length'?" in refused["content"][0]["text"]
    listed = said(container, "tools/call", {"name": "list_jobs", "arguments": {}})
    assert not listed.get("isError"), listed


def test_forms_are_read_by_our_library_beside_the_one_of_the_same_name(mcp_image: str) -> None:
    python = ("run", "--rm", "--read-only", "--entrypoint", "/opt/worker/bin/python", mcp_image)
    assert docker(*python, "-W", "error", "-c", READ_A_FORM) == "0 b'b'"


def test_nothing_even_tried_to_write_outside_tmp(container: LambdaContainer) -> None:
    said(container, "tools/list")
    assert "Read-only file system" not in container.log()
    assert "Permission denied" not in container.log()
    assert container.shell("id -u") == "993"
