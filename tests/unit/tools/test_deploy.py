"""What `make deploy` runs: repositories of our own, tags on everything, a release for the API's version."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from samcli.cli.types import CfnParameterOverridesType, CfnTags
from samcli.commands.deploy.command import cli as sam_deploy
from samcli.commands.package.command import cli as sam_package

from tests.unit.template.processed import ROOT, defaults, parse, processed
from tools.deploy import (
    NotDeployed,
    Plan,
    check_more_settings,
    images_of,
    parameters_of,
    release_of,
    settings_of,
)

REPOSITORIES = {
    "ApiUri": "1.ecr/comfy/api",
    "McpUri": "1.ecr/comfy/mcp",
    "WorkerUri": "1.ecr/comfy/worker",
    "GpuUri": "1.ecr/comfy/gpu",
}
IMAGES = images_of(parse(), REPOSITORIES)
PLAN = Plan(
    stack="Comfy",
    target="worker",
    owner="pictures",
    settings={"CorsOrigins": "https://a.b,https://c.d", "ModelsManifest": ""},
)


def after(command: list[str], option: str) -> list[str]:
    """The words after an option, up to the next one."""
    rest = command[command.index(option) + 1 :]
    return rest[: next((index for index, word in enumerate(rest) if word.startswith("--")), len(rest))]


def packaged(**function: Any) -> dict[str, Any]:
    """The template as `sam package` writes it."""
    template = parse()
    template["Resources"]["ApiFunction"]["Properties"].update({"ImageUri": "1.ecr/comfy/api:1", **function})
    return template


@pytest.mark.parametrize(
    ("command", "sam"),
    [
        (PLAN.make_repositories(), sam_deploy),
        (PLAN.package(IMAGES), sam_package),
        (PLAN.deploy(IMAGES, "release"), sam_deploy),
        (
            Plan(stack="x", target="worker-lite", region="eu-central-1", asks=False, settings={}).deploy(
                IMAGES, "release"
            ),
            sam_deploy,
        ),
    ],
)
def test_sam_knows_every_option(command: list[str], sam: Any) -> None:
    known = {name for parameter in sam.params for name in [*parameter.opts, *parameter.secondary_opts]}
    assert {word for word in command if word.startswith("--")} <= known


def test_sam_is_not_told_of_repositories_of_its_own_too() -> None:
    """It takes one of the ways only, and reads this file whatever the command says."""
    settings = tomllib.loads((ROOT / "samconfig.toml").read_text(encoding="utf-8"))["default"]["deploy"]["parameters"]
    assert not {"resolve_image_repos", "image_repository", "image_repositories", "tags"} & settings.keys()


def test_every_function_has_a_repository_of_ours() -> None:
    assert IMAGES.pop("GenerateFunction") == "1.ecr/comfy/worker"
    assert IMAGES.pop("McpFunction") == "1.ecr/comfy/mcp"
    assert set(IMAGES.values()) == {"1.ecr/comfy/api"}
    IMAGES.update(GenerateFunction="1.ecr/comfy/worker", McpFunction="1.ecr/comfy/mcp")
    assert len(IMAGES) == len(
        [one for one in parse()["Resources"].values() if one["Type"] == "AWS::Serverless::Function"]
    )
    for command in (PLAN.package(IMAGES), PLAN.deploy(IMAGES, "release")):
        given = [command[index + 1] for index, word in enumerate(command) if word == "--image-repositories"]
        assert given == [f"{name}={uri}" for name, uri in IMAGES.items()]


@pytest.mark.parametrize("command", [PLAN.make_repositories(), PLAN.deploy(IMAGES, "release")])
def test_everything_says_whose_it_is(command: list[str]) -> None:
    tags = CfnTags().convert(" ".join(after(command, "--tags")), None, None)
    assert tags == {"app": "comfy-serverless", "stack": "Comfy", "owner": "pictures"}


def test_an_owner_that_is_not_named_is_no_tag() -> None:
    assert Plan(stack="x", target="worker-lite", settings={}).tags == ["app=comfy-serverless", "stack=x"]


def test_sam_reads_the_parameters_as_they_were_given() -> None:
    given = after(PLAN.deploy(IMAGES, "0123abcd"), "--parameter-overrides")
    assert CfnParameterOverridesType().convert(tuple(given), None, None) == {
        "CorsOrigins": "https://a.b,https://c.d",
        "ModelsManifest": "",
        "ImageTarget": "worker",
        "ApiRelease": "0123abcd",
    }


def test_a_release_is_known_by_the_image_and_by_what_the_api_is_made_with() -> None:
    known = {name: str(value) for name, value in defaults().items()}
    release = release_of(packaged(), known)
    assert release_of(packaged(), known) == release
    assert release_of(packaged(ImageUri="1.ecr/comfy/api:2"), known) != release
    # A plain setting, one of all functions, one that only a condition asks for, one that the workers' price is made of.
    for name in ("CorsOrigins", "LogLevel", "MaximumApiConcurrency", "MemorySize"):
        assert release_of(packaged(), {**known, name: "other"}) != release, name
    for name in ("TemporaryStorage", "OutputRetentionDays", "ApiRelease"):
        assert release_of(packaged(), {**known, name: "other"}) == release, name


def test_another_release_is_another_version() -> None:
    known = {name: str(value) for name, value in defaults().items()}
    changed = {**known, "CorsOrigins": "https://app.example"}
    versions = [
        [
            name
            for name in processed({"ApiRelease": release_of(packaged(), one)})["Resources"]
            if "ApiFunctionVersion" in name
        ]
        for one in (known, changed)
    ]
    assert versions[0] != versions[1]


def test_more_settings_are_read_before_anything_is_deployed() -> None:
    check_more_settings(parse(), {"MoreSettings": ""})
    check_more_settings(parse(), {"MoreSettings": "ENGINE_MAX_JOBS=5 INPUT_CACHE_BYTES=10 COMFYUI_ARGS='--cpu --x'"})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("ENGINE_MAX_JOB=500", "ENGINE_MAX_JOB"),
        ("ENGINE_MAX_JOBS=many", "ENGINE_MAX_JOBS='many'"),
        ("JOBS_TABLE=mine", "JOBS_TABLE has a value of its own"),
        ("MAX_QUEUED_JOBS=5", "MAX_QUEUED_JOBS has a value of its own"),
        ("COMFYUI_ARGS='--cpu", "No closing quotation"),
    ],
)
def test_more_settings_that_no_function_could_start_with_are_not_deployed(value: str, reason: str) -> None:
    with pytest.raises(NotDeployed, match=reason):
        check_more_settings(parse(), {"MoreSettings": value})


def test_what_is_not_named_stays_as_it_was() -> None:
    before = {"MemorySize": "10240", "LogLevel": "DEBUG", "GoneWithThisRelease": "1"}
    parameters = parameters_of(parse(), before, {"LogLevel": "INFO"})
    assert (parameters["MemorySize"], parameters["LogLevel"]) == ("10240", "INFO")
    assert parameters["MaximumConcurrency"] == "2"
    assert parameters.keys() == defaults().keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [(["MemorySise=1"], "no parameter MemorySise. It has: .*MemorySize"), (["MemorySize"], "'MemorySize' is no")],
)
def test_a_wrong_setting_is_named_before_anything_is_done(words: list[str], said: str) -> None:
    with pytest.raises(NotDeployed, match=said):
        parameters_of(parse(), {}, settings_of(words))
