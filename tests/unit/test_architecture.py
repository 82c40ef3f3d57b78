"""What an import loads, and what each module says it is for. Who may import whom is import-linter's (`make lint`)."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_serverless.settings import Settings

SOURCE = Path("lambda")
AWS = ("boto3", "botocore", "aws_lambda_powertools", "mypy_boto3_s3", "awslambdaric", "pydantic")


#: What makes a client of AWS. Besides, nobody else builds what keeps its state there: `keepers` finds those classes.
BUILDERS = frozenset({"s3_client", "sqs_client", "dynamodb_client"})
#: What a class takes that keeps its state in AWS.
KEPT_IN = frozenset({"Table", "DynamoDBClient", "SQSClient", "SSMClient", "SageMakerRuntimeClient"})
#: Where such a class is built as a part of another one of its file.
PARTS = {"table/jobs.py: Turns", "table/dispatch.py: JobQueue"}
#: Who may call them, and who asks boto3 for a client.
WIRING = ("handlers/wiring", "cli/stack.py", "aws/")
PACKAGE = SOURCE / "comfy_serverless"
#: What a handler does not load with its import, beside what every Lambda function waits for anyway.
NOT_AT_START = {
    "generate": {
        "table",
        "batches",
        "api",
        "webhooks",
        "aws.dynamodb",
        "aws.sqs",
        "worker.journal",
        "worker.model_store",
    }
    | {"worker.inputs", "connector.connector", "jobs.node_list", "fetch.web"},
    "sagemaker_server": {"batches", "api", "webhooks", "worker.model_store", "worker.inputs", "connector.connector"},
    "authorizer": {"api", "batches", "connector", "jobs", "worker"},
    "caretaker": {"api", "batches.store", "batches.keeper", "worker", "connector.connector"},
    "forward": {"api", "worker", "connector"},
    "ingest": {"api", "connector.connector", "worker.worker", "worker.journal", "webhooks"},
    "outcome": {"api", "batches", "worker", "webhooks"},
    "webhooks": {"api", "batches", "worker"},
}
#: The same of what is made at the start of a Lambda function.
NOT_MADE_AT_START = {
    "forward": {"graph.workflow", "jobs.line_ids", "workflows.finding"},
    "ingest": {"jobs.declarations", "workflows.finding"},
    "caretaker": {"graph.workflow", "workflows.finding"},
    "webhooks": {"workflows.finding"},
}
STARTED_BY = {
    **{name: f"{name.lower()}-bucket" for name in ("ASSETS_BUCKET", "OUTPUT_BUCKET")},
    **{name: f"https://sqs.eu-central-1.amazonaws.com/1/{name}" for name in ("JOB_QUEUE_URL", "BATCH_QUEUE_URL")},
    "MANIFEST_QUEUE_URL": "https://sqs.eu-central-1.amazonaws.com/1/manifests",
    "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "JOBS_TABLE": "jobs",
    "ENDPOINT_NAME": "gpus",
}
LIBRARIES_NOT_AT_START = {"PIL", "websocket", "numpy", "aiohttp", "requests", "aws_lambda_powertools.event_handler"}


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = loaded_by("import comfy_serverless")
    assert not loaded & {"requests", "PIL", "websocket", "numpy", "rich", *AWS}


def test_the_connector_runs_without_aws_libraries() -> None:
    loaded = loaded_by("from comfy_serverless import ComfyConnector; ComfyConnector.load_payload")
    assert not loaded & {*AWS, "numpy", "rich"}


def test_what_decodes_is_loaded_by_the_child_of_the_sandbox_only() -> None:
    loaded = loaded_by("from comfy_serverless.worker.inputs import fetcher; from comfy_serverless.worker import put")
    assert not loaded & {"PIL", "numpy", "comfy_serverless.sandbox.images", "comfy_serverless.sandbox.masks"}


def test_every_public_name_is_there() -> None:
    import comfy_serverless

    for name in comfy_serverless.__all__:
        assert getattr(comfy_serverless, name)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=str)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} has no docstring"


@pytest.mark.parametrize("handler", NOT_AT_START)
def test_a_handler_loads_nothing_that_only_some_of_its_jobs_need(handler: str) -> None:
    loaded = loaded_by(f"import comfy_serverless.handlers.{handler}")
    assert not loaded & {f"comfy_serverless.{name}" for name in NOT_AT_START[handler]}
    assert not loaded & LIBRARIES_NOT_AT_START


@pytest.mark.parametrize("handler", NOT_MADE_AT_START)
def test_a_function_starts_without_what_only_some_of_its_events_need(handler: str) -> None:
    loaded = loaded_by(f"import os; os.environ.update({STARTED_BY!r}); import comfy_serverless.handlers.{handler}")
    assert "boto3" in loaded, "it has made its clients"
    assert not loaded & {f"comfy_serverless.{name}" for name in NOT_MADE_AT_START[handler]}


def test_what_converts_is_loaded_with_the_first_workflow_of_the_editor() -> None:
    loaded = loaded_by("import comfy_serverless.api.app, comfy_serverless.worker.worker")
    loaded |= loaded_by("import comfy_serverless.connector.connector, comfy_serverless.worker.model_store")
    late = ("comfy_serverless.graph.convert", "comfy_serverless.graph.needs")
    assert [name for name in loaded if name.startswith(late)] == []


def test_importing_the_wiring_loads_no_library() -> None:
    assert not loaded_by("from comfy_serverless.handlers import wiring_api, wiring_ingest, wiring_worker") & {
        *AWS,
        *LIBRARIES_NOT_AT_START,
    }


def calls_in(path: Path) -> list[str]:
    """What a module calls: `boto3.client`, `Table`; the last two names of each call."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    return [ast.unparse(function) for function in calls]


def classes_in(path: Path) -> dict[str, tuple[set[str], set[str]]]:
    """The classes of a module: what their constructors take, by type, and their bases."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            taken = [each.annotation for each in node.body if isinstance(each, ast.AnnAssign)]
            for each in node.body:
                if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                    taken += [one.annotation for one in [*each.args.args, *each.args.kwonlyargs] if one.annotation]
            names = {part.strip() for one in taken for part in ast.unparse(one).split("|")}
            found[node.name] = (names, {ast.unparse(base) for base in node.bases})
    return found


@functools.cache
def keepers() -> frozenset[str]:
    """The classes that take the table or a client, and those that are made of them by inheritance."""
    classes = {name: each for path in PACKAGE.rglob("*.py") for name, each in classes_in(path).items()}
    found = {name for name, (taken, _) in classes.items() if taken & KEPT_IN}
    found |= {name for name, (_, bases) in classes.items() if bases & found}
    return frozenset(found)


def builds(call: str) -> bool:
    return call.startswith("boto3.") or call.rpartition(".")[2] in BUILDERS | keepers()


def test_clients_and_stores_are_built_in_one_place() -> None:
    assert {"Table", "JobStore", "BatchStore", "AssetStore", "WorkflowStore", "UsageStore", "JobQueue"} <= keepers()
    elsewhere = {
        f"{name}: {call}"
        for path in PACKAGE.rglob("*.py")
        if not (name := path.relative_to(PACKAGE).as_posix()).startswith(WIRING)
        for call in calls_in(path)
        if builds(call)
    }
    assert elsewhere == PARTS
    assert any(builds(call) for call in calls_in(PACKAGE / "handlers" / "wiring.py"))


def test_no_client_of_a_function_waits_as_long_as_boto3_does_by_itself() -> None:
    """A minute for an answer, and four more tries: longer than most invocations. Commands may wait."""
    without = {
        f"{path.relative_to(PACKAGE)}: {ast.unparse(node)}"
        for folder in ("aws", "handlers", "table", "batches")
        for path in (PACKAGE / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "boto3.client"
        if "config" not in {keyword.arg for keyword in node.keywords}
    }
    assert not without


#: What modules ask of the package itself, which loads names of any room: import-linter cannot see where that leads.
THROUGH_THE_FRONT = {("connector/connector.py", "workflow_here")}


def test_no_room_reaches_another_through_the_package_itself() -> None:
    """The connector alone does, for workflows that are named: `ComfyConnector.run("name")`, in programs of users."""
    rooms = {path.stem for path in PACKAGE.iterdir()}
    asked = {
        (path.relative_to(PACKAGE).as_posix(), name.name)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name
        for name in node.names
        if name.name not in rooms
    }
    assert asked == THROUGH_THE_FRONT


def test_no_setting_that_may_be_missing_becomes_the_text_none() -> None:
    """`str(settings.x)` asks AWS for a table called "None"; `Settings.require` returns texts."""
    optional = {name for name, kind in Settings.__annotations__.items() if kind == "str | None"}
    assert "jobs_table" in optional
    found = [
        f"{path}: {ast.unparse(node)}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "str"
        and node.args
        and isinstance(node.args[0], ast.Attribute)
        and node.args[0].attr in optional
        and ast.unparse(node.args[0].value).rpartition(".")[2].strip("_()") == "settings"
    ]
    assert not found
