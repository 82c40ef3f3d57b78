"""The list of tools: every workflow once, page by page, with a name that every client takes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import jsonschema
import pytest
from mcp import Client
from mcp.shared.tool_name_validation import validate_tool_name

from comfy_serverless.api.tools.catalogue import PAGE, tool_name, workflow_in
from comfy_serverless.api.tools.generic import MODELS, TOOLS
from comfy_serverless.workflows.version import Version
from tests.unit.api_world import ApiWorld, api_world
from tests.unit.mcp_world import McpWorld
from tests.unit.named_world import GRAPH, push

#: What makers of models take.
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


@pytest.fixture
def agents(api: ApiWorld) -> McpWorld:
    return McpWorld(api)


def own(api: ApiWorld, name: str, *, owner: str = "team") -> None:
    api.services.workflows.push(Version(name=name, number=0, owner=owner, graph=GRAPH, description=f"It is {name}."))


def listed(agents: McpWorld, **options: str) -> list[str]:
    names: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = agents.send("tools/list", cursor, **options).json["result"]
        names += [tool["name"] for tool in page["tools"]]
        if "nextCursor" not in page:
            return names
        cursor = {"cursor": page["nextCursor"]}


def test_three_hundred_workflows_come_page_by_page(agents: McpWorld) -> None:
    names = [f"workflow-{number:03}" for number in range(300)]
    for name in names:
        own(agents.api, name)
    pages: list[int] = []

    async def use(client: Client) -> None:
        seen, cursor = [], None
        while True:
            page = await client.list_tools(cursor=cursor)
            pages.append(len(page.tools))
            seen += [tool.name for tool in page.tools]
            if (cursor := page.next_cursor) is None:
                break
        assert seen == [*(tool.name for tool in TOOLS), *map(tool_name, names)]

    agents.with_client(use)
    assert pages == [len(TOOLS) + PAGE, *[PAGE] * 5]


def test_a_page_costs_no_read_for_each_workflow_that_was_read_before(agents: McpWorld) -> None:
    for number in range(10):
        own(agents.api, f"workflow-{number}")
    listed(agents)
    reads: list[str] = []
    agents.api.s3.meta.events.register("before-call.s3", lambda model, **_: reads.append(model.name))
    listed(agents)
    assert "GetObject" not in reads


def test_own_workflows_come_before_those_that_the_operator_shares(agents: McpWorld) -> None:
    for name, is_shared in (("both", True), ("shared", True), ("kept", False)):
        own(agents.api, name, owner="")
        agents.api.services.workflows.share(name, is_shared)
    own(agents.api, "both")
    own(agents.api, "theirs", owner="other")
    assert listed(agents)[len(TOOLS) :] == ["run_both", "run_shared"]
    described = {tool["name"]: tool["description"] for tool in agents.send("tools/list").json["result"]["tools"]}
    assert "'both', which is yours" in described["run_both"]
    assert "'shared', which the operator shares" in described["run_shared"]
    assert not agents.call("run_shared")["isError"]


def test_a_retired_workflow_is_no_tool(agents: McpWorld) -> None:
    own(agents.api, "old")
    assert "run_old" in listed(agents)
    agents.api.services.workflows.retire("team", "old")
    assert "run_old" not in listed(agents)
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "run_old", "arguments": {}}}
    assert agents.ask(body).json["error"]["message"] == "Unknown tool: run_old"


def test_a_damaged_workflow_hides_no_other(agents: McpWorld) -> None:
    own(agents.api, "damaged")
    own(agents.api, "well")
    (key,) = (
        entry["Key"]
        for entry in agents.api.s3.list_objects_v2(Bucket="assets-bucket", Prefix="workflows/")["Contents"]
        if "damaged" in entry["Key"]
    )
    agents.api.s3.put_object(Bucket="assets-bucket", Key=key, Body=b"{")
    assert listed(agents)[len(TOOLS) :] == ["run_well"]
    assert agents.call("run_damaged")["isError"]


@pytest.mark.parametrize("name", ["a", "A1", "get_job", "x" * 60, "x" * 61, "y" * 64, "run_run", "a-b_c"])
def test_a_tools_name_is_taken_everywhere_and_leads_back(agents: McpWorld, name: str) -> None:
    tool = tool_name(name)
    assert _NAME.fullmatch(tool)
    assert validate_tool_name(tool).warnings == []
    assert tool not in MODELS
    assert workflow_in(tool) == (name if len(name) <= 60 else "")
    own(agents.api, name)
    own(agents.api, "another")
    assert tool in listed(agents)
    result = agents.call(tool)["structuredContent"]
    assert result["workflow"] == name


def test_two_long_names_are_two_tools() -> None:
    names = ["x" * 63 + end for end in "ab"]
    assert len({*map(tool_name, names)}) == 2


def test_schemas_are_json_schema_and_what_they_allow_is_taken(agents: McpWorld) -> None:
    push(agents.api)
    for tool in agents.send("tools/list").json["result"]["tools"]:
        schema = tool["inputSchema"]
        jsonschema.Draft202012Validator.check_schema(schema)
        assert (schema["type"], schema["additionalProperties"]) == ("object", False)
        assert all(_NAME.fullmatch(name) for name in schema["properties"])
        jsonschema.Draft202012Validator(schema).validate(
            {name: schema["properties"][name].get("default", "a") for name in schema.get("required", ())}
        )


def test_the_states_of_jobs_are_those_that_there_are() -> None:
    from comfy_serverless.jobs.document import JobStatus

    (tool,) = (tool for tool in TOOLS if tool.name == "list_jobs")
    assert set(tool.input_schema["properties"]["status"]["enum"]) == {*JobStatus}
    assert MODELS.keys() == {tool.name for tool in TOOLS}


def test_a_key_runs_the_version_whose_schema_it_sees(agents: McpWorld) -> None:
    push(agents.api)
    push(agents.api, inputs={"color": "1.color", "height": "1.height"})
    agents.api.services.workflows.move("team", "poster", "live", {1: 1, 2: 1}, by="ana")
    seen: set[str] = set()
    for number in range(12):
        key = {"key_id": f"key-{number}"}
        tools = {tool["name"]: tool for tool in agents.send("tools/list", key=key).json["result"]["tools"]}
        version = "1" if "width" in tools["run_poster"]["inputSchema"]["properties"] else "2"
        assert agents.call("run_poster", key=key)["structuredContent"]["version"] == version
        seen.add(version)
    assert seen == {"1", "2"}


def test_a_run_costs_one_read_more_than_a_job_and_those_that_look_after_it(agents: McpWorld) -> None:
    push(agents.api)
    agents.call("run_poster")  # the document and the limits are known from now on
    agents.wait_s = 0.0
    before = Counter(agents.api.calls)
    agents.call("run_poster")
    spent = Counter(agents.api.calls) - before
    assert (spent.pop("TransactWriteItems"), spent.pop("UpdateItem"), spent.pop("BatchGetItem")) == (1, 1, 1)
    assert spent.keys() <= {"Query"}, "how the job is"
