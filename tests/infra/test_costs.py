"""Images are scanned and forgotten, bills can be split, and no template has a null."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cfnlint.decode.cfn_yaml import load
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from tests.infra.stacks import EVERYTHING, ROOT, STACKS, Synthesized, every_stack, synthesize
from tests.unwanted import nulls, paid_extras

pytestmark = pytest.mark.timeout(600)
REPOSITORIES: dict[str, Any] = load(str(ROOT / "repositories.yaml"))
#: What each stack builds.
IMAGES = {"comfy-serverless-sagemaker": ["api", "worker"], "comfy-serverless-lambda-gpu": ["worker"]}


@pytest.fixture(params=STACKS)
def template(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = every_stack()[request.param]
    return found


def destinations(synthesized: Synthesized, stack: str) -> list[dict[str, str]]:
    """Where the images of a stack are pushed to."""
    manifest = json.loads((synthesized.folder / f"{stack}.assets.json").read_text(encoding="utf-8"))
    return [place for image in manifest["dockerImages"].values() for place in image["destinations"].values()]


@pytest.mark.parametrize("stack", IMAGES)
def test_images_go_to_the_repository_that_scans_and_forgets(stack: str, synthesized: Synthesized) -> None:
    gpu = REPOSITORIES["Resources"]["Gpu"]["Properties"]
    name = gpu["RepositoryName"]["Fn::Sub"].replace("${Name}", REPOSITORIES["Parameters"]["Name"]["Default"])
    pushed = destinations(synthesized, stack)
    assert {one["repositoryName"] for one in pushed} == {name}
    # CDK's own role may not push there.
    assert all("assumeRoleArn" not in one for one in pushed)


@pytest.mark.parametrize("stack", IMAGES)
def test_a_tag_says_which_image_it_is_so_that_each_kind_is_counted_by_itself(
    stack: str, synthesized: Synthesized
) -> None:
    rules = json.loads(REPOSITORIES["Resources"]["Gpu"]["Properties"]["LifecyclePolicy"]["LifecyclePolicyText"])[
        "rules"
    ]
    counted = {pattern for rule in rules for pattern in rule["selection"].get("tagPatternList", [])}
    kinds = sorted(one["imageTag"].partition("-")[0] for one in destinations(synthesized, stack))
    assert kinds == IMAGES[stack]
    assert counted == {"api-*", "worker-*"}


def test_functions_and_models_name_the_image_that_is_pushed(synthesized: Synthesized) -> None:
    for stack, template in (
        ("comfy-serverless-sagemaker", synthesized.sagemaker),
        ("comfy-serverless-lambda-gpu", synthesized.lambda_gpu),
    ):
        text = json.dumps(template["Resources"])
        for one in destinations(synthesized, stack):
            assert f"{one['repositoryName']}:{one['imageTag']}" in text


def test_a_stack_with_capitals_has_a_repository_without() -> None:
    made = synthesize(stack="Pictures")
    assert {one["repositoryName"] for one in destinations(made, "Pictures-lambda-gpu")} == {"pictures/gpu"}


def tags_of(properties: dict[str, Any], place: str) -> dict[str, str]:
    """The tags of a resource: most types have a list of them, some a mapping."""
    found = properties.get(place.removeprefix("/properties/"), [])
    return dict(found) if isinstance(found, dict) else {tag["Key"]: tag["Value"] for tag in found}


def taggable(template: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each resource that AWS can give tags to, with those that it has."""
    for name, entry in template["Resources"].items():
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", entry["Type"]).schema
        tagging = schema.get("tagging", {})
        if tagging.get("taggable") and "tagProperty" in tagging:
            yield f"{name} ({entry['Type']})", tags_of(entry.get("Properties", {}), tagging["tagProperty"])


@pytest.mark.parametrize("stack", STACKS)
def test_everything_says_whose_it_is(stack: str) -> None:
    wanted = {"app": "comfy-serverless", "stack": "comfy-serverless", "owner": "pictures"}
    found = dict(taggable(every_stack(**EVERYTHING)[stack]))
    assert len(found) > 10
    assert {name: tags for name, tags in found.items() if not wanted.items() <= tags.items()} == {}


def test_an_owner_that_is_not_named_is_no_tag(template: dict[str, Any]) -> None:
    assert not [name for name, tags in taggable(template) if "owner" in tags]


def test_cloudformation_finds_no_null(template: dict[str, Any]) -> None:
    """It refuses a template with one, anywhere; neither CDK nor a linter says so."""
    assert list(nulls(template)) == []


@pytest.mark.parametrize("stack", STACKS)
def test_cloudformation_finds_no_null_where_everything_is_set(stack: str) -> None:
    assert list(nulls(every_stack(**EVERYTHING)[stack])) == []


def test_nothing_makes_figures_or_copies_that_nobody_reads(template: dict[str, Any]) -> None:
    assert list(paid_extras(template["Resources"])) == []
