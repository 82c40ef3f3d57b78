"""Deploy: repositories for the images, the images, the stack; all of it with tags that bills can be split by.

    make deploy STACK=comfy-serverless TARGET=worker OWNER=pictures SET="MemorySize=10240 MaximumConcurrency=20"

What it runs is printed, and can be run by hand. Parameters that SET does not name stay as they are. SAM asks before it
changes anything (`DEPLOY_ARGS=--yes`: it does not). What nodes the worker's image has is told to the API, as `make
declarations` does, so that it knows them before a worker has run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from samcli.yamlhelper import yaml_parse

from comfy_serverless.errors import InvalidSetting
from comfy_serverless.jobs.engine_documents import Build
from comfy_serverless.settings import MORE, Settings, more_settings
from tools.declarations import BUCKET_OUTPUT, LEFT, WITH_COMFYUI, Left, NotTold, tell_stack
from tools.image_facts import copy_out

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

ROOT: Final = Path(__file__).parent.parent
PACKAGED: Final = "out/packaged.yaml"
#: The template as `sam build` leaves it: with the names of the images on this machine.
BUILT: Final = ".aws-sam/build/template.yaml"
#: The function that is deployed bit by bit, and the parameter that names its version (template.yaml).
STAGED, RELEASE = "ApiFunction", "ApiRelease"
#: The function whose versions are snapshots, with `SnapStart=all`, and its parameter.
SNAPPED, WORKER_RELEASE = "GenerateFunction", "WorkerRelease"
#: The parameters that decide what is in an image, beside ImageTarget.
BUILT_WITH: Final = frozenset({"ComfyuiRef"})
#: Outputs of repositories.yaml, by the targets of the Dockerfile.
_REPOSITORIES: Final = {"api": "ApiUri", "mcp": "McpUri"}
_NAMED = re.compile(r"\$\{(\w+)\}")


class NotDeployed(Exception):
    """A step was not taken; the message says which, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be deployed.

    Attributes:
        owner: who pays, as the tag `owner`; empty for no such tag.
        settings: parameters of template.yaml.
    """

    stack: str
    target: str
    owner: str = ""
    region: str | None = None
    asks: bool = True
    settings: Mapping[str, str]

    @property
    def repositories(self) -> str:
        """The stack of repositories.yaml."""
        return f"{self.stack}-repositories"

    @property
    def tags(self) -> list[str]:
        """The cost allocation tags. CloudFormation puts a stack's tags on all of its resources that can have any."""
        return ["app=comfy-serverless", f"stack={self.stack}", *([f"owner={self.owner}"] if self.owner else [])]

    def make_repositories(self) -> list[str]:
        """The command for the repositories, which changes nothing where they are."""
        return [
            *("sam", "deploy", "--template-file", "repositories.yaml", "--stack-name", self.repositories),
            *("--parameter-overrides", f"Name={self.stack.lower()}", "--no-fail-on-empty-changeset"),
            *("--no-confirm-changeset", *self._where(), "--tags", *self.tags),
        ]

    def build(self) -> list[str]:
        """The command that builds the images."""
        chosen = {
            "ImageTarget": self.target,
            **{name: self.settings[name] for name in BUILT_WITH & self.settings.keys()},
        }
        return ["sam", "build", "--parameter-overrides", *(_override(name, value) for name, value in chosen.items())]

    def package(self, images: Mapping[str, str]) -> list[str]:
        """The command that pushes the images."""
        return [
            *("sam", "package", "--output-template-file", PACKAGED, "--resolve-s3", *self._where()),
            *_repository_options(images),
        ]

    def deploy(self, images: Mapping[str, str], release: str, worker_release: str = "") -> list[str]:
        """The command that deploys the stack."""
        settings = {**self.settings, "ImageTarget": self.target, RELEASE: release}
        if worker_release:
            settings[WORKER_RELEASE] = worker_release
        return [
            *("sam", "deploy", "--template-file", PACKAGED, "--stack-name", self.stack, *self._where()),
            *("--capabilities", "CAPABILITY_IAM", "--resolve-s3", "--no-fail-on-empty-changeset"),
            "--confirm-changeset" if self.asks else "--no-confirm-changeset",
            *_repository_options(images),
            *("--parameter-overrides", *(_override(name, value) for name, value in settings.items())),
            *("--tags", *self.tags),
        ]

    def _where(self) -> list[str]:
        return ["--region", self.region] if self.region else []


@dataclass(frozen=True, slots=True)
class Before:
    """A stack as it is; empty if there is none."""

    parameters: Mapping[str, str]
    outputs: Mapping[str, str]
    tags: Mapping[str, str]

    @classmethod
    def of(cls, cloudformation: CloudFormationClient, stack: str) -> Before:
        """Look at it."""
        try:
            described: Any = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in str(error):
                return cls({}, {}, {})
            raise
        return cls(
            {entry["ParameterKey"]: entry["ParameterValue"] for entry in described.get("Parameters", [])},
            {entry["OutputKey"]: entry["OutputValue"] for entry in described.get("Outputs", [])},
            {entry["Key"]: entry["Value"] for entry in described.get("Tags", [])},
        )


def images_of(template: Mapping[str, Any], repositories: Mapping[str, str]) -> dict[str, str]:
    """The repository of each function, by its image: those of `_REPOSITORIES`, and the worker's, which is chosen."""
    return {
        name: repositories[_REPOSITORIES.get(str(entry["Metadata"]["DockerBuildTarget"]), "WorkerUri")]
        for name, entry in template["Resources"].items()
        if entry["Type"] == "AWS::Serverless::Function"
    }


def release_of(template: Mapping[str, Any], parameters: Mapping[str, str], function: str = STAGED) -> str:
    """What the next version of a function is known by: its image, and the parameters that it is made with.

    Another image and another parameter make another one, the same ones the same: then no version is published.
    """
    properties = template["Resources"][function]["Properties"]
    named = _parameters_in([properties, template.get("Globals", {})], template) - {RELEASE, WORKER_RELEASE}
    known = {name: parameters[name] for name in sorted(named)}
    return hashlib.sha256(json.dumps([properties["ImageUri"], known]).encode()).hexdigest()[:16]


def parameters_of(
    template: Mapping[str, Any], before: Mapping[str, str], settings: Mapping[str, str]
) -> dict[str, str]:
    """All parameters, as they will be: named now, or as before, or by default. (`sam deploy` does the same.)

    Raises:
        NotDeployed: there is no parameter of a name.
    """
    defaults = {name: str(entry["Default"]) for name, entry in template["Parameters"].items()}
    if unknown := sorted(settings.keys() - defaults.keys()):
        raise NotDeployed(f"template.yaml has no parameter {', '.join(unknown)}. It has: {', '.join(sorted(defaults))}")
    return {**defaults, **{name: before[name] for name in defaults.keys() & before.keys()}, **settings}


def check_more_settings(template: Mapping[str, Any], parameters: Mapping[str, str]) -> None:
    """Read MoreSettings as the functions will: they would not start with what they cannot use.

    Raises:
        NotDeployed: it cannot be used; the message names the setting.
    """
    functions = (entry for entry in template["Resources"].values() if entry["Type"] == "AWS::Serverless::Function")
    variables = {
        name: "set by the template"
        for function in functions
        for name, value in function["Properties"].get("Environment", {}).get("Variables", {}).items()
        if value and "Fn::If" not in value
    }
    try:
        more_settings(parameters["MoreSettings"], variables)
        Settings.from_environment({MORE: parameters["MoreSettings"]})
    except InvalidSetting as error:
        raise NotDeployed(f"MoreSettings: {error.message}") from error


def settings_of(words: Sequence[str]) -> dict[str, str]:
    """`["MemorySize=10240"]` as a mapping.

    Raises:
        NotDeployed: a word is no `Name=value`.
    """
    if wrong := [word for word in words if not re.match(r"\w+=", word)]:
        raise NotDeployed(f"{wrong[0]!r} is no Parameter=value")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def deploy(plan: Plan, written: Mapping[str, Any], cloudformation: CloudFormationClient, before: Before) -> None:
    """Take all steps.

    Raises:
        NotDeployed: one has failed.
    """
    parameters = parameters_of(written, before.parameters, plan.settings)
    check_more_settings(written, parameters)
    _run(plan.make_repositories())
    images = images_of(written, Before.of(cloudformation, plan.repositories).outputs)
    _run(plan.build())
    (ROOT / PACKAGED).parent.mkdir(exist_ok=True)
    _run(plan.package(images))
    packaged = yaml_parse((ROOT / PACKAGED).read_text(encoding="utf-8"))
    known = {**parameters, "ImageTarget": plan.target}
    left = _left_by(plan)
    is_new = BUCKET_OUTPUT not in before.outputs
    if left is not None and not is_new:
        _tell(left, plan, before.outputs)  # before it is asked: of what is not deployed it says nothing
    _run(plan.deploy(images, release_of(packaged, known), release_of(packaged, known, SNAPPED)))
    if left is not None and is_new:
        _tell(left, plan, Before.of(cloudformation, plan.stack).outputs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Deploy; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="make deploy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stack", required=True)
    parser.add_argument("--target", choices=("worker-lite", "worker"), help="the worker's image; by default as it is")
    parser.add_argument("--owner", help="who pays: the tag `owner`; by default as it is")
    parser.add_argument("--region", default=os.environ.get("AWS_REGION"), help="AWS_REGION, or your profile's")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("settings", nargs="*", metavar="Parameter=value", help="parameters of template.yaml")
    options = parser.parse_args(arguments)
    try:
        written = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))
        cloudformation = boto3.client("cloudformation", region_name=options.region)
        before = Before.of(cloudformation, options.stack)
        settings = settings_of(options.settings)
        # The template that is built is not the stack's: it does not know what was chosen before.
        settings = {**{name: before.parameters[name] for name in BUILT_WITH & before.parameters.keys()}, **settings}
        plan = Plan(
            stack=options.stack,
            target=options.target or parameters_of(written, before.parameters, settings)["ImageTarget"],
            owner=before.tags.get("owner", "") if options.owner is None else options.owner,
            region=options.region,
            asks=not options.yes,
            settings=settings,
        )
        deploy(plan, written, cloudformation, before)
    except (NotDeployed, BotoCoreError, ClientError) as error:
        print(f"Not deployed: {error}", file=sys.stderr)
        return 1
    return 0


def _left_by(plan: Plan) -> Left | None:
    """What the build of the worker's image has left in it; None if that is not ComfyUI's, or says nothing of itself."""
    if plan.target != WITH_COMFYUI:
        return None
    built = yaml_parse((ROOT / BUILT).read_text(encoding="utf-8"))
    try:
        copy_out(str(built["Resources"][SNAPPED]["Properties"]["ImageUri"]), ROOT / LEFT)
        return Left.in_folder(ROOT / LEFT)
    except (NotTold, OSError, subprocess.CalledProcessError) as error:
        _say_untold(error)
        return None


def _tell(left: Left, plan: Plan, outputs: Mapping[str, str]) -> None:
    """Tell the API what nodes the image has, and say which named workflows would fail on it.

    A stack that is deployed without it works, so this never ends it.
    """
    try:
        for line in tell_stack(left, outputs, [Build(plan.target, left.release)], region=plan.region):
            print(line, flush=True)
    except (NotTold, BotoCoreError, ClientError) as error:
        _say_untold(error)


def _say_untold(error: Exception) -> None:
    print(f"The API is not told what nodes the image has: {error}. A worker's first job tells it.", file=sys.stderr)


def _repository_options(images: Mapping[str, str]) -> list[str]:
    return [word for name, uri in images.items() for word in ("--image-repositories", f"{name}={uri}")]


def _override(name: str, value: str) -> str:
    """A parameter as SAM reads it: in quotes where it would not know the end of the value otherwise."""
    return f'{name}="{value}"' if not value or " " in value else f"{name}={value}"


def _parameters_in(value: Any, template: Mapping[str, Any]) -> set[str]:  # noqa: ANN401
    """The parameters that a value is made with, also by way of conditions."""
    known = set(template["Parameters"])
    match value:
        case {"Ref": str(name)}:
            return {name} & known
        case {"Fn::If": [str(condition), yes, no]}:
            return _parameters_in([template["Conditions"][condition], yes, no], template)
        case {"Condition": str(condition)}:
            return _parameters_in(template["Conditions"][condition], template)
        case str():
            return set(_NAMED.findall(value)) & known
        case dict():
            return {name for entry in value.values() for name in _parameters_in(entry, template)}
        case list():
            return {name for entry in value for name in _parameters_in(entry, template)}
    return set()


def _run(command: Sequence[str]) -> None:
    print(f"\n$ {shlex.join(command)}", flush=True)
    program = str(Path(sys.executable).parent / command[0])
    done = subprocess.run([program, *command[1:]], cwd=ROOT, check=False)
    if done.returncode:
        raise NotDeployed(f"`{' '.join(command[:2])}` has failed (exit code {done.returncode}); what it said is above")


if __name__ == "__main__":
    sys.exit(main())
