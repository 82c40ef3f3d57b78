"""The stack is deployed, deleted and deployed again, on an emulator of CloudFormation, as the docs say.

The emulator (MiniStack) has neither CodeDeploy nor saved queries, nor alarms that calculate: these are left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from local.aws.processes import LOOPBACK, LocalProcess, clean_environment, free_port
from local.aws.server import REGION
from tests.unit.template.processed import ROOT, defaults, is_true, parse, processed
from tools import adopt, undeploy
from tools.deploy import Before, Plan, images_of
from tools.retained import NoStack, find

STACK = "comfy-serverless"
UNKNOWN_TO_IT = ("AWS::CodeDeploy::", "AWS::Logs::QueryDefinition")
KEPT = ["AssetsBucket", "InputBucket", "JobsTable", "OutputBucket"]


@dataclass
class Cloud:
    """An account in an emulator."""

    url: str

    def client(self, service: Any) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )

    @property
    def account(self) -> undeploy.Account:
        return undeploy.Account(*(self.client(name) for name in ("cloudformation", "s3", "dynamodb", "ssm")))

    def deploy(self, **parameters: str) -> str:
        """Create or update the stack, as `sam deploy` does; returns its state."""
        template = as_the_emulator_takes_it(processed(parameters), parameters)
        self.client("s3").put_object(Bucket="templates", Key="processed.json", Body=json.dumps(template).encode())
        cloudformation = self.client("cloudformation")
        arguments: dict[str, Any] = {
            "StackName": STACK,
            "TemplateURL": f"{self.url}/templates/processed.json",
            "Capabilities": ["CAPABILITY_IAM"],
            "Parameters": [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        }
        try:
            status = find(cloudformation, STACK).status
        except NoStack:
            status = None
        (cloudformation.update_stack if status else cloudformation.create_stack)(**arguments)
        return self.settled()

    def settled(self) -> str:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            (stack,) = self.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
            if not stack["StackStatus"].endswith("IN_PROGRESS"):
                return str(stack["StackStatus"])
            time.sleep(0.1)
        raise TimeoutError("the stack does not settle")

    def undeploy(self, *names: str, only_tell: bool = False) -> None:
        undeploy.undeploy(self.account, STACK, delete_data=names, only_tell=only_tell, agreed=lambda _: True)

    def names(self) -> dict[str, str]:
        """What holds data in the stack, by its name in the template."""
        return {one.logical_id: one.name for one in find(self.client("cloudformation"), STACK).kept}

    def made(self) -> set[str]:
        """The names in the template of all that the stack has now."""
        pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK)
        summaries = [entry for page in pages for entry in page["StackResourceSummaries"]]
        return {entry["LogicalResourceId"] for entry in summaries if entry["ResourceStatus"] != "DELETE_COMPLETE"}

    def put_data(self) -> None:
        """One object, and one item."""
        names = self.names()
        self.client("s3").put_object(Bucket=names["OutputBucket"], Key="fox/result.json", Body=b"{}")
        item = {"pk": {"S": "job#fox"}, "sk": {"S": "job"}}
        self.client("dynamodb").put_item(TableName=names["JobsTable"], Item=item)

    def has_data(self) -> bool:
        """Whether both are in what the stack has now."""
        names = self.names()
        objects = self.client("s3").list_objects_v2(Bucket=names["OutputBucket"])
        items = self.client("dynamodb").scan(TableName=names["JobsTable"])
        return (objects["KeyCount"], items["Count"]) == (1, 1)


def as_the_emulator_takes_it(template: dict[str, Any], parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The template without the resources that MiniStack does not know, and without what names them.

    Its conditions are what they come to: MiniStack joins and splits nothing in them.
    """
    kept = {
        name: {key: value for key, value in entry.items() if key != "UpdatePolicy"}
        for name, entry in template["Resources"].items()
        if not entry["Type"].startswith(UNKNOWN_TO_IT) and "Metrics" not in entry.get("Properties", {})
    }
    values = {**defaults(), **(parameters or {})}
    conditions = {
        name: {"Fn::Equals": [str(is_true(template, condition, values)), "True"]}
        for name, condition in template["Conditions"].items()
    }
    return {**template, "Resources": kept, "Conditions": conditions}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home, port = tmp_path_factory.mktemp("ministack"), free_port()
    environment = {**clean_environment(), "BIND_HOST": LOOPBACK, "GATEWAY_PORT": str(port), "HOME": str(home)}
    command = [str(Path(sys.executable).parent / "ministack")]
    with LocalProcess(command, environment, name="ministack", log_path=home / "log") as process:
        process.wait_until_listening(port, timeout_s=60)
        yield f"http://{LOOPBACK}:{port}"


@pytest.fixture
def cloud(emulator: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An empty account."""
    for module in (adopt, undeploy):
        monkeypatch.setattr(module, "_POLL_S", 1)
    made = Cloud(emulator)
    made.client("s3").create_bucket(Bucket="templates", CreateBucketConfiguration={"LocationConstraint": REGION})
    yield made
    reset = urllib.request.Request(f"{emulator}/_ministack/reset", method="POST")
    urllib.request.urlopen(reset).close()


def test_make_deploy_makes_repositories_that_scan_and_forget(cloud: Cloud) -> None:
    """The command itself, run twice as every deployment does."""
    plan = Plan(stack=STACK, target="worker-lite", owner="pictures", region=REGION, settings={})
    environment = {
        **clean_environment(),
        "AWS_ENDPOINT_URL": cloud.url,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "SAM_CLI_TELEMETRY": "0",
        "HOME": "/nonexistent",
    }
    command = [str(Path(sys.executable).parent / "sam"), *plan.make_repositories()[1:]]
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    ecr = cloud.client("ecr")
    repositories = {one["repositoryName"]: one for one in ecr.describe_repositories()["repositories"]}
    assert sorted(repositories) == [f"{STACK}/api", f"{STACK}/gpu", f"{STACK}/mcp", f"{STACK}/worker"]
    for name, repository in repositories.items():
        assert repository["imageScanningConfiguration"] == {"scanOnPush": True}
        assert json.loads(ecr.get_lifecycle_policy(repositoryName=name)["lifecyclePolicyText"])["rules"]
    made = Before.of(cloud.client("cloudformation"), plan.repositories)
    assert made.tags == {"app": "comfy-serverless", "stack": STACK, "owner": "pictures"}
    assert {uri.partition("/")[2] for uri in made.outputs.values()} == set(repositories)
    assert images_of(parse(), made.outputs)["ApiFunction"] == repositories[f"{STACK}/api"]["repositoryUri"]
    assert Before.of(cloud.client("cloudformation"), "another") == Before({}, {}, {})


def test_the_whole_template_is_deployed_and_gone_again_but_for_what_holds_data(cloud: Cloud) -> None:
    assert cloud.deploy() == "CREATE_COMPLETE"
    wanted = as_the_emulator_takes_it(processed())["Resources"]
    assert cloud.made() == {name for name, entry in wanted.items() if "Condition" not in entry}
    assert sorted(cloud.names()) == KEPT
    cloud.put_data()
    cloud.undeploy()
    assert find(cloud.client("cloudformation"), STACK).status is None
    assert sorted(cloud.names()) == KEPT
    assert cloud.has_data()


def test_a_second_deployment_with_other_parameters_replaces_nothing_that_holds_data(cloud: Cloud) -> None:
    cloud.deploy()
    cloud.put_data()
    before = cloud.names()
    other = {
        "CorsOrigins": "https://app.example",
        "MaximumConcurrency": "20",
        "MemorySize": "10240",
        "OutputRetentionDays": "30",
        "LogRetentionDays": "7",
    }
    assert cloud.deploy(**other) == "UPDATE_COMPLETE"
    assert cloud.names() == before
    assert cloud.has_data()


def test_live_events_come_and_go_and_nothing_that_holds_data_is_replaced(cloud: Cloud) -> None:
    cloud.deploy()
    cloud.put_data()
    before, without = cloud.names(), cloud.made()
    live = {name for name, entry in processed()["Resources"].items() if entry.get("Condition") == "HasLiveEvents"}
    assert {"EventsApi", "EventsFunction", "EventsPermission", "EventsRole", "EventsLogGroup"} <= live
    assert not live & without
    for _ in range(2):  # what goes is in nobody's way when it comes back
        assert cloud.deploy(LiveEvents="true") == "UPDATE_COMPLETE"
        assert cloud.made() - without == live
        assert cloud.deploy(LiveEvents="false") == "UPDATE_COMPLETE"
        assert cloud.made() == without
    assert cloud.names() == before
    assert cloud.has_data()


def test_what_was_left_is_in_the_way_of_a_stack_with_the_same_names(cloud: Cloud) -> None:
    """Why there are three ways to go on. Should CloudFormation adopt it by itself some day, they can go."""
    cloud.deploy()
    cloud.undeploy()
    assert cloud.deploy() == "ROLLBACK_COMPLETE"


def test_adopted_the_data_is_in_the_new_stack(cloud: Cloud) -> None:
    cloud.deploy()
    cloud.put_data()
    before = cloud.names()
    cloud.undeploy()
    adopted = adopt.adopt(cloud.account, STACK)
    assert {one.logical_id: one.name for one in adopted} == before
    assert adopt.prefix_of(adopted) == "comfy-serverless"
    assert cloud.deploy() == "UPDATE_COMPLETE"
    assert cloud.names() == before
    assert cloud.has_data()
    assert cloud.client("s3").get_public_access_block(Bucket=before["InputBucket"])
    with pytest.raises(adopt.NotAdopted, match="is there"):
        adopt.adopt(cloud.account, STACK)


def test_a_failed_attempt_has_to_go_before_there_is_something_to_adopt(cloud: Cloud) -> None:
    cloud.deploy()
    cloud.undeploy()
    assert cloud.deploy() == "ROLLBACK_COMPLETE"
    with pytest.raises(adopt.NotAdopted, match="if it has failed, delete it"):
        adopt.adopt(cloud.account, STACK)


def test_what_was_deleted_since_is_made_anew(cloud: Cloud) -> None:
    cloud.deploy()
    cloud.put_data()
    table = cloud.names()["JobsTable"]
    cloud.undeploy(table)
    assert [one.logical_id for one in adopt.adopt(cloud.account, STACK)] == [
        name for name in KEPT if name != "JobsTable"
    ]
    assert cloud.deploy() == "UPDATE_COMPLETE"
    assert sorted(cloud.names()) == KEPT


def test_an_import_that_is_refused_says_why(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.deploy()
    names = cloud.names()
    cloud.undeploy(names["JobsTable"])
    monkeypatch.setattr(undeploy.Account, "has", lambda *_: True)
    with pytest.raises(adopt.NotAdopted, match="does not import it: .*" + names["JobsTable"]):
        adopt.adopt(cloud.account, STACK)


def test_with_another_prefix_the_old_data_stays_beside_the_new_stack(cloud: Cloud) -> None:
    cloud.deploy()
    cloud.put_data()
    before = cloud.names()
    cloud.undeploy()
    assert cloud.deploy(BucketPrefix="another-one") == "CREATE_COMPLETE"
    # The table's name is generated: anew on AWS, alike in the emulator.
    now = {name for logical_id, name in cloud.names().items() if logical_id != "JobsTable"}
    assert len(now - set(before.values())) == 3
    old = cloud.client("s3").list_objects_v2(Bucket=before["OutputBucket"])
    assert [entry["Key"] for entry in old["Contents"]] == ["fox/result.json"]


def test_named_data_goes_with_the_stack_or_after_it_and_the_names_are_free(cloud: Cloud) -> None:
    cloud.deploy()
    cloud.put_data()
    names = cloud.names()
    table = names.pop("JobsTable")
    cloud.undeploy(table)
    cloud.undeploy(*names.values())
    assert cloud.client("dynamodb").list_tables()["TableNames"] == []
    assert [bucket["Name"] for bucket in cloud.client("s3").list_buckets()["Buckets"]] == ["templates"]
    assert cloud.deploy() == "CREATE_COMPLETE"


def test_it_says_what_stays_and_what_can_be_done_with_it(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.deploy()
    cloud.put_data()
    cloud.client("dynamodb").update_continuous_backups(  # the emulator does not, although the template says so
        TableName=cloud.names()["JobsTable"], PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
    )
    cloud.undeploy(only_tell=True)
    said = capsys.readouterr().out
    for name in cloud.names().values():
        assert f"--delete-data {name}" in said
    assert "1 objects" in said
    assert "point-in-time recovery among it" in said
    assert f"make adopt STACK={STACK}" in said
    assert "BucketPrefix=" in said
    assert find(cloud.client("cloudformation"), STACK).status == "CREATE_COMPLETE"


@pytest.mark.parametrize("name", ["templates", "comfy-serverless", ""])
def test_it_deletes_nothing_that_is_not_of_the_stack(cloud: Cloud, name: str) -> None:
    cloud.deploy()
    cloud.client("s3").put_object(Bucket="templates", Key="mine", Body=b"mine")
    with pytest.raises(undeploy.Refused, match="not of this stack"):
        cloud.undeploy(name)
    assert find(cloud.client("cloudformation"), STACK).status == "CREATE_COMPLETE"
    assert cloud.client("s3").get_object(Bucket="templates", Key="mine")


def test_it_deletes_nothing_while_gpus_work_for_the_stack_or_nobody_agrees(cloud: Cloud) -> None:
    cloud.deploy()
    with pytest.raises(undeploy.Refused, match="not agreed"):
        undeploy.undeploy(cloud.account, STACK, only_tell=False, agreed=lambda _: False)
    cloud.client("ssm").put_parameter(Name=f"/comfy-serverless/{STACK}/dispatch", Value="{}", Type="String")
    with pytest.raises(undeploy.Refused, match="GPU stack"):
        cloud.undeploy()
    assert find(cloud.client("cloudformation"), STACK).status == "CREATE_COMPLETE"
