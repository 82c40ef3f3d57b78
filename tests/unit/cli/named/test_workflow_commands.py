"""`comfy-serverless workflows`, as a person uses it: over HTTP for a key's owner, and directly for the operator."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.cli import remote, stack
from comfy_serverless.cli.main import main
from comfy_serverless.cli.named import names
from comfy_serverless.cli.named.operator import OfOperator
from comfy_serverless.cli.named.sources import body_of
from comfy_serverless.jobs.declarations import DeclarationsWriter
from comfy_serverless.jobs.sources import OPERATOR
from comfy_serverless.workflows.recheck import Found
from comfy_serverless.workflows.version import Version
from tests.unit.api_world import ASSETS, ApiWorld, api_world
from tests.unit.cli.scripted_api import Asked, Told, scripted_api
from tests.unit.editor_samples import OBJECT_INFO, PLAIN, link_in, link_out, node, saved
from tests.unit.named_world import GRAPH

_SIZE = ["INT", {"default": 512, "min": 8, "max": 4096, "step": 1}]
#: What the workers declare of the nodes in that workflow.
DECLARED: dict[str, Any] = {
    "EmptyImage": {
        "input": {
            "required": {"width": _SIZE, "height": _SIZE, "batch_size": ["INT", {"default": 1, "min": 1, "max": 64}]},
            "optional": {"color": ["INT", {"default": 0, "min": 0, "max": 0xFFFFFF}]},
        },
        "input_order": {"required": ["width", "height", "batch_size"], "optional": ["color"]},
        "output": ["IMAGE"],
        "name": "EmptyImage",
    },
}

Cli = Callable[..., "Done"]


class Done:
    """How a command has ended, and what it has said."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ApiWorld]:
    """The API itself behind a port of this machine, and a folder with a workflow in it."""
    with api_world(monkeypatch) as api:

        def answer(asked: Asked) -> Told:
            owner = (asked.key or "").removeprefix("Bearer ")
            headers = {"content-type": "application/json"} if asked.body else {}
            told = api.request(asked.method, asked.path, body=asked.body.decode() or None, headers=headers, owner=owner)
            return Told(told.status, told.text, told.headers)

        DeclarationsWriter(api.s3, ASSETS, "nodes").write({**OBJECT_INFO, **DECLARED})
        monkeypatch.setattr(remote, "pause", lambda _: None)
        monkeypatch.setenv("COMFY_API_KEY", "ana")
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        for name in ("COMFY_STACK", "WORKFLOWS_DIR", "http_proxy", "HTTP_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "poster.json").write_text(json.dumps(GRAPH))
        with scripted_api(answer) as server:
            monkeypatch.setenv("COMFY_BASE_URL", server.url)
            yield api


@pytest.fixture
def cli(world: ApiWorld, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: str) -> Done:
        status = main(["workflows", *arguments])
        printed = capsys.readouterr()
        return Done(status, printed.out, printed.err)

    return run


@pytest.fixture
def operators(world: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> ApiWorld:
    """`--shared --stack mine` means the table and the bucket of this world."""
    registry = OfOperator(world.services.workflows, world.services.declarations.newest, release="r1")
    monkeypatch.setattr(stack, "operators_workflows", lambda name: registry if name == "mine" else None)
    return world


def live(world: ApiWorld, name: str = "poster", owner: str = "ana") -> dict[int, int]:
    head = world.services.workflows.head(owner, name)
    assert head is not None
    return dict(head.weights_of("live"))


def test_a_push_shows_what_the_workflow_takes_and_says_what_it_has_made(cli: Cli) -> None:
    done = cli("push", "poster", "poster.json", "--note", "first")
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["input", "takes", "where", "default", "what", "it", "is"]
    assert "integer from 8 to 4096" in next(line for line in lines if line.startswith("width"))
    assert done.err.startswith("poster has version 1 now: ")
    assert done.err.endswith("\naliases: live 1\n")


def test_a_later_push_says_how_it_is_made_live(cli: Cli) -> None:
    cli("push", "poster", "poster.json")
    done = cli("push", "poster", "poster.json", "--input", "width=1.width")
    assert "poster has version 2 now: 1 input, 1 output" in done.err
    assert "no alias leads to it yet: comfy-serverless workflows promote poster 2" in done.err


def test_a_push_that_changes_nothing_says_so(cli: Cli) -> None:
    cli("push", "poster", "poster.json")
    done = cli("push", "poster", "poster.json", "--note", "again", "--json")
    assert "nothing was pushed: version 1 of poster is the same" in cli("push", "poster", "poster.json").err
    assert (done.json["version"], done.json["is_new"]) == (1, False)


def test_a_dry_run_writes_nothing(cli: Cli, world: ApiWorld) -> None:
    done = cli("push", "poster", "poster.json", "--dry-run")
    assert "nothing was pushed: " in done.err
    assert world.services.workflows.head("ana", "poster") is None
    assert cli("push", "poster", "poster.json", "--dry-run", "--json").json["proposal"]["inputs"]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_all_mistakes_in_what_is_chosen_are_told_at_once(cli: Cli, dry: list[str]) -> None:
    wrong = ["--input", "width=1.widht", "--input", "color=9.color"]
    done = cli("push", "poster", "poster.json", *wrong, *dry)
    assert done.status == 1
    assert "inputs.width" in done.err
    assert "did you mean '1.width'" in done.err
    assert "inputs.color" in done.err
    errors = cli("push", "poster", "poster.json", *wrong, *dry, "--json").json
    assert errors.get("error") or errors["problems"]


def test_options_choose_inputs_and_outputs(cli: Cli) -> None:
    told = cli("push", "poster", "poster.json", "--input", "how_wide=1.width", "--output", "picture=2", "--json").json
    assert [(one["name"], one["targets"]) for one in told["inputs"]] == [("how_wide", ["1.width"])]
    assert [(one["name"], one["node_id"]) for one in told["outputs"]] == [("picture", "2")]


@pytest.mark.parametrize("name", ["poster.yaml", "poster.inputs.yaml", "poster.yml"])
def test_a_file_beside_the_workflow_chooses_them_and_that_is_said(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("description: A poster.\ninputs:\n  wide: 1.width\n  tone: 1.color\n")
    done = cli("push", "poster", "poster.json", "--input", "wide=1.height")
    assert f"inputs and outputs are chosen by {name}" in done.err
    shown = cli("show", "poster", "--json").json
    assert {one["name"]: one["targets"] for one in shown["inputs"]} == {"wide": ["1.height"], "tone": ["1.color"]}
    assert shown["description"] == "A poster."


def test_a_file_of_choices_that_is_none_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("inputs: [1, 2]\n")
    done = cli("push", "poster", "poster.json", "--inputs", "mine.yaml")
    assert done.status == 1
    assert "mine.yaml" in done.err
    assert "cannot be read" in cli("push", "poster", "poster.json", "--inputs", "gone.yaml").err


def test_what_was_found_is_written_as_a_file_to_edit_which_chooses_the_same(cli: Cli, tmp_path: Path) -> None:
    found = cli("push", "poster", "poster.json", "--write-inputs", "edit.yaml", "--json").json
    assert (tmp_path / "edit.yaml").read_text().startswith("# Inputs and outputs of the workflow poster")
    chosen = cli("push", "poster", "poster.json", "--inputs", "edit.yaml", "--json").json
    assert chosen["schema"] == found["schema"]
    assert chosen["outputs"] == found["outputs"]
    assert "is not replaced" in cli("push", "poster", "poster.json", "--write-inputs", "edit.yaml").err


def test_the_editors_file_is_sent_as_it_is(cli: Cli, tmp_path: Path, world: ApiWorld) -> None:
    (tmp_path / "editor.json").write_text(json.dumps(PLAIN))
    assert cli("push", "plain", "editor.json").status == 0
    head = world.services.workflows.head("ana", "plain")
    assert head is not None
    assert world.services.workflows.document(head, "plain", 1).editors == PLAIN


def test_a_key_in_a_request_stays_on_this_machine(tmp_path: Path) -> None:
    extra_data = {"api_key_comfy_org": "secret", "extra_pnginfo": {"workflow": PLAIN, "k": 1}}
    request = {"workflow": GRAPH, "extra_data": extra_data}
    (tmp_path / "request.json").write_text(json.dumps(request))
    given: dict[str, Any] = {"inputs": [], "outputs": [], "inputs_file": None, "description": None}
    given |= {"note": None, "alias": None, "expected": None}
    body = body_of(argparse.Namespace(file=str(tmp_path / "request.json"), dry_run=False, force=False, **given))
    assert body["extra_data"] == {"extra_pnginfo": {"workflow": PLAIN}}


def test_what_is_no_part_of_a_workflow_is_left_out_and_said(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text(json.dumps({"workflow": GRAPH, "set": {"1.width": 64}}))
    assert "`set` of the request is no part of the workflow" in cli("push", "poster", "request.json").err
    (tmp_path / "name.json").write_text(json.dumps({"workflow": "elsewhere"}))
    assert "push the file that has the workflow itself" in cli("push", "poster", "name.json").err


@pytest.mark.parametrize("name", ["doctor", "a b", "../x", "x" * 65])
def test_a_name_that_no_workflow_can_have_is_refused(cli: Cli, name: str) -> None:
    done = cli("push", name, "poster.json")
    assert done.status == 1
    assert done.err.startswith(("invalid_request", "not_found"))


def test_versions_aliases_and_the_way_back(cli: Cli, world: ApiWorld) -> None:
    cli("push", "poster", "poster.json")
    cli("push", "poster", "poster.json", "--input", "width=1.width", "--note", "narrower")
    assert cli("promote", "poster", "2").out == "poster@live  2\n"
    assert live(world) == {2: 1}
    assert cli("rollback", "poster").out == "poster@live  1\n"
    assert cli("split", "poster", "1=90", "2=10").out == "poster@live  1 (90%), 2 (10%)\n"
    assert live(world) == {1: 90, 2: 10}
    cli("promote", "poster", "v2", "--alias", "staging")
    rows = cli("versions", "poster").out.splitlines()
    assert "live, staging" in rows[1]
    assert "narrower" in rows[1]
    told = cli("versions", "poster", "--limit", "1", "--json").json
    assert [one["number"] for one in told["versions"]] == [2]
    assert told["has_more"] is True
    assert "no version 7" in cli("promote", "poster", "7").err


def test_show_tells_types_ranges_defaults_and_a_run_to_copy(cli: Cli) -> None:
    cli("push", "poster", "poster.json", "--description", "A poster.\nIn one color.")
    done = cli("show", "poster")
    assert "integer from 8 to 4096" in done.out
    assert "description  A poster.\\nIn one color." in done.out
    assert 'curl "$COMFY_BASE_URL/api/v2/workflows/poster/runs" -H "Authorization: Bearer $COMFY_API_KEY"' in done.out
    assert cli("show", "poster@1", "--json").json["version"] == 1
    assert cli("show", "poster@staging").status == 1


def test_one_owner_sees_nothing_of_another(cli: Cli, monkeypatch: pytest.MonkeyPatch, world: ApiWorld) -> None:
    cli("push", "poster", "poster.json")
    monkeypatch.setenv("COMFY_API_KEY", "ben")
    assert "There are no workflows yet" in cli("ls").err
    for action in (["show", "poster"], ["versions", "poster"], ["promote", "poster", "1"], ["rm", "poster"]):
        done = cli(*action)
        assert done.status == 1
        assert done.err.startswith("not_found")
    assert live(world) == {1: 1}


def test_a_list_names_them_with_their_aliases_and_is_kept_for_the_keyboard(cli: Cli) -> None:
    cli("push", "poster", "poster.json")
    cli("push", "other", "poster.json")
    rows = [line.split()[:5] for line in cli("ls").out.splitlines()]
    assert rows[1:] == [["other", "own", "1", "live", "1"], ["poster", "own", "1", "live", "1"]]
    assert names.names_file().read_text() == "other\nposter\n"


def test_only_names_reach_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names.remember(["poster", "$(touch /tmp/x)", "a b", "`id`", "fox"])
    assert names.names_file().read_text() == "poster\nfox\n"


def test_a_hidden_one_is_gone_until_it_is_pushed_again(cli: Cli) -> None:
    cli("push", "poster", "poster.json")
    assert "poster is hidden" in cli("rm", "poster").err
    assert cli("ls", "--json").json == {"workflows": []}
    cli("push", "poster", "poster.json")
    assert [one["name"] for one in cli("ls", "--json").json["workflows"]] == ["poster"]


def test_a_client_is_printed_alone(cli: Cli) -> None:
    cli("push", "poster", "poster.json", "--input", "width=1.width")
    done = cli("client", "poster")
    assert done.err == ""
    assert "class Poster(Workflow[PosterResult]):" in done.out
    assert "width: int = default(" in done.out
    compile(done.out, "poster.py", "exec")
    assert done.out == cli("client", "poster").out
    assert cli("client", "poster", "--version", "1", "--json").json["alias"] is None
    assert "_version = 1" in cli("client", "poster@1").out


def test_a_client_of_two_versions_is_a_mistake(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["poster@staging", "--version", "1"], ["poster", "--alias", "a", "--version", "1"]):
        with pytest.raises(SystemExit) as caught:
            cli("client", *wrong)
        assert caught.value.code == 2
        assert "which version?" in capsys.readouterr().err


def test_the_operators_are_written_directly_and_everybody_may_run_them(cli: Cli, operators: ApiWorld) -> None:
    shared = ["--shared", "--stack", "mine"]
    done = cli("push", "poster", "poster.json", *shared)
    assert "poster has version 1 now" in done.err
    head = operators.services.workflows.head(OPERATOR, "poster")
    assert head is not None
    assert head.is_shared
    assert [one["source"] for one in cli("ls", "--json").json["workflows"]] == ["operator"]
    cli("push", "poster", "poster.json", "--input", "width=1.width", *shared)
    assert cli("promote", "poster", "2", *shared).out == "poster@live  2\n"
    assert cli("rollback", "poster", *shared).out == "poster@live  1\n"
    assert cli("split", "poster", "1=1", "2=1", *shared).out == "poster@live  1 (50%), 2 (50%)\n"
    assert [one["release"] for one in cli("versions", "poster", "--json", *shared).json["versions"]] == ["r1", "r1"]
    assert cli("show", "poster@2", "--json", *shared).json["version"] == 2
    assert "class Poster" in cli("client", "poster", *shared).out
    of_operator = cli("client", "shared/poster").out
    assert "    _is_shared = True\n" in of_operator
    assert "workflows client shared/poster`" in of_operator
    cli("rm", "poster", *shared)
    assert cli("ls", "--json").json == {"workflows": []}
    assert cli("show", "poster", *shared).status == 1


def test_the_operator_takes_back_what_is_shared_and_shares_it_again(cli: Cli, operators: ApiWorld) -> None:
    stack = ["--stack", "mine"]
    cli("push", "poster", "poster.json", "--shared", *stack)
    first, again = (cli("unshare", "poster", *stack) for _ in range(2))
    assert (first.status, again.status, first.out + again.out) == (0, 0, "")
    assert first.err.startswith("poster is not shared any more: new runs of others are refused; jobs that were taken")
    assert "workflows share poster" in first.err
    assert again.err == "poster is not shared: nobody else may run it.\n"
    assert cli("ls", "--json").json == {"workflows": []}
    assert cli("show", "shared/poster").status == 1
    assert [one["source"] for one in cli("ls", "--json", "--shared", *stack).json["workflows"]] == ["own"]
    assert cli("promote", "poster", "1", "--shared", *stack).status == 0
    assert cli("ls", "--json").json == {"workflows": []}, "a move shares nothing"
    assert cli("share", "poster", "--json", *stack).json == {"name": "poster", "is_shared": True}
    assert cli("share", "poster", *stack).err == "poster is shared already: everybody who has a key may run it.\n"
    assert [one["source"] for one in cli("ls", "--json").json["workflows"]] == ["operator"]
    assert cli("unshare", "poster", "--json", *stack).json == {"name": "poster", "is_shared": False}


@pytest.mark.parametrize("action", ["share", "unshare"])
def test_only_what_the_operator_has_is_shared_or_taken_back(cli: Cli, operators: ApiWorld, action: str) -> None:
    cli("push", "poster", "poster.json")
    cli("push", "retired", "poster.json", "--shared", "--stack", "mine")
    cli("rm", "retired", "--shared", "--stack", "mine")
    for name in ("poster", "nowhere", "retired"):
        done = cli(action, name, "--stack", "mine")
        assert (done.status, done.out) == (1, "")
        assert f"the operator has no workflow '{name}': `workflows ls --shared` shows those there are" in done.err
    assert [one["source"] for one in cli("ls", "--json").json["workflows"]] == ["own"]
    with pytest.raises(SystemExit) as caught:
        cli(action, "poster")
    assert caught.value.code == 2


def test_an_owner_changes_nothing_of_the_operators(cli: Cli, operators: ApiWorld) -> None:
    operators.services.workflows.push(Version(name="poster", number=0, owner="", graph=GRAPH))
    operators.services.workflows.share("poster")
    for action in (["promote", "poster", "1"], ["rollback", "poster"], ["rm", "poster"]):
        assert "changed by the operator" in cli(*action).err


def test_what_no_worker_has_is_looked_at_by_what_the_file_says(
    cli: Cli, tmp_path: Path, operators: ApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = node(1, "Odd", ["a fox", 7], [], [link_out([7])])
    one["widgets_values_named"] = {"text": "a fox", "seed": 7}
    odd = saved([one, node(2, "SaveImage", ["x"], [link_in("images", 7)])], [[7, 1, 0, 2, 0, "IMAGE"]])
    (tmp_path / "odd.json").write_text(json.dumps(odd))
    for where in ((), ("--shared", "--stack", "mine")):
        done = cli("push", "odd", "odd.json", "--dry-run", *where)
        assert done.status == 0, done.err
        assert "note: nobody has declared the class 'Odd' (node 1)" in done.err
        assert "breaks: " in done.err
        assert [line.split()[0] for line in done.out.splitlines()[1:3]] == ["text", "seed"]
        refused = cli("push", "odd", "odd.json", *where)
        assert refused.status == 1
        assert "--dry-run shows what it would take" in refused.err
    done = cli("push", "odd", "odd.json", "--write-inputs", "odd.yaml")
    assert '"text":' in (tmp_path / "odd.yaml").read_text()


def test_the_operators_file_of_the_editor_is_converted_by_what_the_workers_have(
    cli: Cli, operators: ApiWorld, tmp_path: Path
) -> None:
    (tmp_path / "editor.json").write_text(json.dumps(PLAIN))
    assert cli("push", "plain", "editor.json", "--shared", "--stack", "mine").status == 0
    nobody = OfOperator(operators.services.workflows, lambda: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack, "operators_workflows", lambda _: nobody)
        done = cli("push", "plain", "editor.json", "--shared", "--stack", "mine")
    assert done.status == 1
    assert "set COMFYUI_URL" in done.err


def test_the_operators_ask_for_a_stack(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli("ls", "--shared")
    assert "--stack NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["split", "p", "1"], ["split", "p", "a=1"], ["promote", "p", "two"], ["push", "p", "f", "--input", "x"]],
    ids=" ".join,
)
def test_wrong_usage_says_the_form(cli: Cli, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli(*arguments)
    assert caught.value.code == 2
    assert "e.g." in (err := capsys.readouterr().err) or "of the form" in err


def test_rm_of_an_alias_drops_it_alone(cli: Cli, world: ApiWorld) -> None:
    cli("push", "poster", "poster.json")
    cli("promote", "poster", "1", "--alias", "staging")
    done = cli("rm", "poster@staging")
    assert (done.status, "aliases: live 1" in done.err) == (0, True)
    assert "staging" in cli("rm", "poster@staging").err
    assert live(world) == {1: 1}


def test_a_version_is_no_alias_to_be_dropped(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli("rm", "poster@3")
    assert "never removed" in capsys.readouterr().err


@pytest.mark.parametrize("whose", [(), ("--shared", "--stack", "mine")])
def test_expected_refuses_what_somebody_else_has_changed(
    cli: Cli, operators: ApiWorld, tmp_path: Path, whose: tuple[str, ...]
) -> None:
    assert cli("push", "poster", "poster.json", "--expected", "0", *whose).status == 0
    again = cli("push", "poster", "poster.json", "--expected", "0", "--note", "x", *whose)
    assert (again.status, "is 1, not 0" in again.err) == (1, True)
    cli("push", "poster", "poster.json", "--description", "other", *whose)
    assert cli("promote", "poster", "2", "--expected", "1", *whose).status == 0
    assert cli("promote", "poster", "2", "--expected", "1", *whose).status == 1
    assert cli("promote", "poster", "1", "--alias", "staging", "--expected", "0", *whose).status == 0
    assert cli("split", "poster", "1=90", "2=10", "--expected", "2", *whose).status == 0
    assert cli("rollback", "poster", "--expected", "1=1,2=1", *whose).status == 1
    assert cli("rollback", "poster", "--expected", "1=90,2=10", *whose).status == 0


def test_the_operators_is_shown_whatever_the_owner_has_of_that_name(cli: Cli, operators: ApiWorld) -> None:
    cli("push", "poster", "poster.json", "--description", "theirs", "--shared", "--stack", "mine")
    cli("push", "poster", "poster.json", "--description", "mine")
    assert "mine" in cli("show", "poster").out
    shown = cli("show", "shared/poster").out
    assert "theirs" in shown
    assert "run shared/poster --help" in shown
    assert "/runs?source=operator" in shown
    assert cli("show", "folder/poster").status == 1


def test_what_is_shown_of_an_alias_runs_that_alias(cli: Cli) -> None:
    cli("push", "poster", "poster.json", "--alias", "staging")
    shown = cli("show", "poster@staging").out
    assert "run poster@staging --help" in shown
    assert "/runs?alias=staging" in shown


def test_what_would_fail_on_the_workers_is_pushed_only_by_force(cli: Cli, tmp_path: Path) -> None:
    broken = {**GRAPH, "3": {"class_type": "NobodyHasThis", "inputs": {}}}
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    refused = cli("push", "poster", "broken.json")
    assert refused.status == 1
    assert "NobodyHasThis" in refused.err
    assert "--force" in refused.err
    forced = cli("push", "poster", "broken.json", "--force")
    assert forced.status == 0
    assert "breaks: node 3 is of the class NobodyHasThis" in forced.err


def test_the_operators_are_held_against_what_is_deployed_too(cli: Cli, operators: ApiWorld, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text(json.dumps({"3": {"class_type": "NobodyHasThis", "inputs": {}}}))
    words = ("push", "poster", "broken.json", "--shared", "--stack", "mine")
    assert "NobodyHasThis" in cli(*words).err
    assert operators.services.workflows.head("", "poster") is None
    assert cli(*words, "--force").status == 0


def test_doctor_says_what_was_found_without_anybody_asking(cli: Cli, world: ApiWorld) -> None:
    assert "by itself" not in cli("doctor").err
    broken = [{"name": "poster", "version": 3, "aliases": ["live"], "message": "its model is gone"}]
    found = Found(begun=1, release_version="0123456789ab", versions=2, breaks=1, is_over=True, broken=broken)
    found.write(world.services.table, "ana")
    told = cli("doctor")
    assert "on release 0123456789ab: 1 version would fail: poster (3)." in told.err
    assert told.status == 0, "they may have been mended since"
    assert cli("doctor", "--json").json["last_check"]["broken"] == broken


def test_doctor_says_which_would_fail_and_ends_with_1(cli: Cli, tmp_path: Path) -> None:
    assert cli("push", "poster", "poster.json").status == 0
    healthy = cli("doctor")
    assert (healthy.status, healthy.out) == (0, "")
    assert "1 version that runs can get: none would fail on default" in healthy.err
    (tmp_path / "broken.json").write_text(json.dumps({**GRAPH, "3": {"class_type": "NobodyHasThis", "inputs": {}}}))
    cli("push", "broken", "broken.json", "--force")
    ill = cli("doctor")
    assert ill.status == 1
    assert "NobodyHasThis" in ill.out
    assert "1 of 2 versions would fail on default" in ill.err
    assert cli("doctor", "poster").status == 0
    told = cli("doctor", "broken", "--json").json
    assert (told["breaks"], told["versions"][0]["name"]) == (1, "broken")
    assert "there is no release 'next'" in cli("doctor", "--release", "next").err
