"""The buckets of template.yaml: what is deleted there, who else's buckets may be used, and which web pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.aws.permissions import Access
from local.aws.roles import roles
from local.aws.template import OWN_BUCKETS, name_of, resolve
from tests.unit.template.processed import parse

ROOT = Path(__file__).parents[3]
TEMPLATE: dict[str, Any] = parse()
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
BUCKETS = {name: entry["Properties"] for name, entry in RESOURCES.items() if entry["Type"] == "AWS::S3::Bucket"}
#: What a rule deletes objects by, in whatever way.
DELETES = {
    "ExpirationInDays",
    "ExpirationDate",
    "NoncurrentVersionExpiration",
    "NoncurrentVersionExpirationInDays",
    "Transition",
    "Transitions",
}
#: What must stay in the input bucket for as long as jobs name it: docs/models.md and docs/a-job.md put it there.
NEEDED = (
    "models/checkpoints/flux.safetensors",
    "models.json",
    "manifests/models.json",
    "photo.jpg",
    "workflows/w.json",
)
#: The beginnings of keys that drops have: the bucket's own notifications.
DROPS = ("jobs/", "images/", "batches/")
#: What `batch submit --upload` sends along with a manifest.
ALONG = ("uploads/",)
(PHOTOS,), (RESULTS,) = OWN_BUCKETS["InputBuckets"], OWN_BUCKETS["OutputBuckets"]


def rules() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, bucket in BUCKETS.items():
        for rule in bucket["LifecycleConfiguration"]["Rules"]:
            yield name, rule


def deleted_from(bucket: str) -> list[str]:
    """The beginnings of the keys that some rule of a bucket deletes."""
    return [rule["Prefix"] for name, rule in rules() if name == bucket and rule.keys() & DELETES]


def name_of_case(value: Any) -> str:
    return str(value["Id"] if isinstance(value, dict) else value)


@pytest.mark.parametrize(("bucket", "rule"), list(rules()), ids=name_of_case)
def test_a_lifecycle_rule_names_the_keys_it_is_for(bucket: str, rule: dict[str, Any]) -> None:
    assert rule.keys() - {"Id", "Status", "Prefix"} <= DELETES | {"AbortIncompleteMultipartUpload"}, bucket
    assert isinstance(rule["Prefix"], str)
    if rule.keys() & DELETES and bucket != "OutputBucket":  # where all is results
        assert re.fullmatch(r"[a-z]+/", rule["Prefix"])


def test_of_the_input_bucket_drops_are_deleted_and_nothing_that_is_still_needed() -> None:
    assert sorted(deleted_from("InputBucket")) == sorted(DROPS + ALONG)
    notified = {
        rule["Value"]
        for queue in BUCKETS["InputBucket"]["NotificationConfiguration"]["QueueConfigurations"]
        for rule in queue["Filter"]["S3Key"]["Rules"]
        if rule["Name"] == "prefix"
    }
    assert notified == set(DROPS)
    assert [key for key in NEEDED if key.startswith(tuple(deleted_from("InputBucket")))] == []


def test_of_the_assets_bucket_goes_what_is_of_use_for_days_only() -> None:
    assert deleted_from("AssetsBucket") == ["uploads/", "requests/", "engine/"]  # not blobs/


@pytest.mark.parametrize(
    ("manifest", "is_taken"),
    [
        ("", True),
        ("s3://comfy-serverless-input-123456789012-eu-central-1/models.json", True),
        ("s3://comfy-serverless-input-123456789012-eu-central-1/models/all.json", True),
        ("s3://my-models/flux/models.json", True),
        ("s3://my-models/jobs.json", True),
        *(
            (f"s3://comfy-serverless-input-123456789012-eu-central-1/{drop}models.json", False)
            for drop in DROPS + ALONG
        ),
        ("s3://comfy-serverless-output-123456789012-eu-central-1/models.json", False),
        ("s3://comfy-serverless-assets-123456789012-eu-central-1/models.json", False),
        ("models.json", False),
        ("s3://bucket", False),
    ],
)
def test_the_manifest_of_models_cannot_be_where_objects_are_deleted(manifest: str, *, is_taken: bool) -> None:
    pattern = TEMPLATE["Parameters"]["ModelsManifest"]["AllowedPattern"]
    assert (re.fullmatch(pattern, manifest) is not None) is is_taken


# Buckets of one's own


@pytest.mark.parametrize("parameter", ["InputBuckets", "OutputBuckets"])
@pytest.mark.parametrize(
    ("name", "is_taken"),
    [
        *((name, True) for name in ("", "my-photos", "a.b-c")),
        *((name, False) for name in ("s3://my-photos", "My", "x/*", "*", "a*b")),
    ],
)
def test_a_bucket_of_ones_own_is_named_and_no_pattern(parameter: str, name: str, *, is_taken: bool) -> None:
    described = TEMPLATE["Parameters"][parameter]
    assert (described["Type"], described["Default"]) == ("CommaDelimitedList", "")
    assert (re.fullmatch(described["AllowedPattern"], name) is not None) is is_taken


def may(role: str, action: str, resource: str) -> bool:
    return roles()[role].allows(Access(action=f"s3:{action}", resource=f"arn:aws:s3:::{resource}"))


def test_who_reads_inputs_may_read_buckets_of_ones_own_and_nobody_else_may() -> None:
    photo = f"{PHOTOS}/a/b.png"
    for action, resource in (("GetObject", photo), ("GetObjectVersion", photo), ("ListBucket", PHOTOS)):
        assert {role for role in roles() if may(role, action, resource)} == {"GenerateRole", "ApiRole"}
    for action in ("PutObject", "DeleteObject", "AbortMultipartUpload"):
        assert not [role for role in roles() if may(role, action, f"{PHOTOS}/a")]


def test_the_worker_writes_to_output_buckets_of_ones_own_and_who_looks_at_results_reads_there() -> None:
    result = f"{RESULTS}/job/result.json"
    for action in ("PutObject", "AbortMultipartUpload"):
        assert {role for role in roles() if may(role, action, result)} == {"GenerateRole"}
    readers = {"GenerateRole", "ApiRole", "McpRole", "CaretakerRole", "OutcomeRole", "EventsRole"}
    assert {role for role in roles() if may(role, "GetObject", result)} == readers
    assert {role for role in roles() if may(role, "ListBucket", RESULTS)} == {"GenerateRole"}
    assert not [role for role in roles() if may(role, "DeleteObject", result)]


def test_a_name_that_begins_like_a_listed_one_is_another_bucket() -> None:
    for action in ("GetObject", "PutObject"):
        assert not [role for role in roles() if may(role, action, f"{RESULTS}-of-others/x")]
        assert not [role for role in roles() if may(role, action, "somebodys/x")]


@pytest.mark.parametrize("name", ["ReadInputBuckets", "WriteOutputBuckets", "ReadOutputBuckets"])
def test_without_buckets_of_ones_own_there_are_no_policies_for_them(name: str) -> None:
    condition = TEMPLATE["Conditions"][RESOURCES[name]["Condition"]]
    (parameter,) = {"InputBuckets", "OutputBuckets"} & set(re.findall(r"\w+", str(condition)))
    is_empty = condition["Fn::Not"][0]["Fn::Equals"]
    assert resolve(is_empty[0], **{parameter: [""]}) == is_empty[1]
    assert resolve(is_empty[0], **{parameter: ["one", "two"]}) != is_empty[1]


def test_policies_beside_the_roles_allow_named_actions_in_listed_buckets_only() -> None:
    policies = {name: RESOURCES[name] for name in ("ReadInputBuckets", "WriteOutputBuckets")}
    given = {"InputBuckets": ["one", "two"], "OutputBuckets": ["one", "two"]}
    for name, policy in policies.items():
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            assert statement.keys() == {"Sid", "Effect", "Action", "Resource"}, name
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            assert statement["Effect"] == "Allow"
            assert not [action for action in actions if "*" in action], name
            arns = {arn.removesuffix("/*") for arn in resolve(statement["Resource"], **given)}
            assert arns == {"arn:*:s3:::one", "arn:*:s3:::two"}, name


def test_several_buckets_become_several_arns() -> None:
    statements = RESOURCES["WriteOutputBuckets"]["Properties"]["PolicyDocument"]["Statement"]
    objects, buckets = (resolve(entry["Resource"], OutputBuckets=["one", "two", "three"]) for entry in statements)
    assert objects == ["arn:*:s3:::one/*", "arn:*:s3:::two/*", "arn:*:s3:::three/*"]
    assert buckets == ["arn:*:s3:::one", "arn:*:s3:::two", "arn:*:s3:::three"]


def environment(function: str) -> dict[str, Any]:
    variables: dict[str, Any] = RESOURCES[function]["Properties"]["Environment"]["Variables"]
    return variables


@pytest.mark.parametrize(
    ("function", "variable", "own", "parameter"),
    [
        *(
            (function, "ALLOWED_INPUT_BUCKETS", ("InputBucket", "OutputBucket", "AssetsBucket"), "InputBuckets")
            for function in ("GenerateFunction", "IngestFunction")
        ),
        *((f"{name}Function", "ALLOWED_INPUT_BUCKETS", ("InputBucket",), "InputBuckets") for name in ("Api", "Mcp")),
        *(
            (function, "ALLOWED_OUTPUT_BUCKETS", ("OutputBucket",), "OutputBuckets")
            for function in ("GenerateFunction", "IngestFunction")
        ),
    ],
)
def test_every_door_knows_the_buckets(function: str, variable: str, own: tuple[str, ...], parameter: str) -> None:
    value = environment(function)[variable]
    for given in ([""], ["one"], ["one", "two"]):
        names = [name for name in resolve(value, **{parameter: given}).split(",") if name]
        assert names == [*map(name_of, own), *filter(None, given)]


# Web pages


@pytest.mark.parametrize("name", BUCKETS)
def test_the_console_and_pages_that_are_named_are_let_in_where_the_api_sends_them(name: str) -> None:
    configuration = BUCKETS[name].get("CorsConfiguration")
    if name == "InputBucket":  # nobody has a link to it
        assert configuration is None
        return
    (rule,) = configuration["CorsRules"]
    condition, with_others, console_alone = rule["AllowedOrigins"]["Fn::If"]
    assert condition == "HasCorsOrigins"
    origins = ["https://a.example", "https://b.example"]
    # "null" is what a browser sends after a redirect of the API to the bucket.
    console = "https://${HttpApi}.execute-api.${AWS::Region}.${AWS::URLSuffix}"
    assert console_alone == [{"Fn::Sub": console}, "null"]
    *others, own, redirected = resolve(with_others, CorsOrigins=origins)
    assert others == origins
    assert (own, redirected) == (resolve({"Fn::Sub": console}), "null")
    writes = {"PUT", "POST"} if name == "AssetsBucket" else set()
    assert set(rule["AllowedMethods"]) == {"GET", "HEAD"} | writes
    assert {"ETag", "Content-Range"} <= set(rule["ExposedHeaders"])


def test_the_api_and_the_buckets_let_the_same_pages_in() -> None:
    value = environment("ApiFunction")["CORS_ORIGINS"]
    assert (
        resolve(value, CorsOrigins=["https://a.example", "https://b.example"]) == "https://a.example,https://b.example"
    )
    condition = TEMPLATE["Conditions"]["HasCorsOrigins"]["Fn::Not"][0]["Fn::Equals"]
    assert resolve(condition[0], CorsOrigins=[""]) == condition[1]


def test_the_policy_in_the_documentation_allows_what_the_role_is_allowed() -> None:
    page = (ROOT / "docs" / "deploy-lambda.md").read_text(encoding="utf-8")
    policy = json.loads(page[page.index('{"Version"') : page.index("```", page.index('{"Version"'))])
    own = RESOURCES["WriteOutputBuckets"]["Properties"]["PolicyDocument"]["Statement"]
    assert [one["Action"] for one in policy["Statement"]] == [one["Action"] for one in own]
    # As the role's own statements: first the objects, then the bucket.
    assert [one["Resource"] for one in policy["Statement"]] == ["arn:aws:s3:::my-results/*", "arn:aws:s3:::my-results"]
