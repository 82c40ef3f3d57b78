"""Tokens of hosts of models: the stack knows where they are, the workers alone may read them there, nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest

from comfy_serverless.errors import InvalidSetting
from comfy_serverless.settings import Settings
from local.aws.template import template

RESOURCES: dict[str, dict[str, Any]] = template()["Resources"]
NAMES = ("HuggingFaceToken", "CivitaiToken")
VARIABLES = {"HuggingFaceToken": "HUGGING_FACE_TOKEN_PARAMETER", "CivitaiToken": "CIVITAI_TOKEN_PARAMETER"}
SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:comfy/hf-AbCdEf"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("place", "is_taken"),
    [
        *((place, True) for place in ("", "/hf", "/comfy/hf-token", SECRET, SECRET.replace("aws", "aws-us-gov", 1))),
        *((place, False) for place in ("hf_abcdefghijklmnopqrstuvwx", "0123456789abcdef" * 2, "arn:aws:s3:::x", "*")),
        *((place, False) for place in ("/a*", f"{SECRET}*", "/a b", "arn:aws:secretsmanager:*:123456789012:secret:x")),
    ],
)
def test_a_place_is_named_and_no_token_passes_for_one(name: str, place: str, *, is_taken: bool) -> None:
    pattern = template()["Parameters"][f"{name}Parameter"]["AllowedPattern"]
    assert (re.fullmatch(pattern, place) is not None) is is_taken
    if not is_taken:
        with pytest.raises(InvalidSetting) as caught:
            Settings.from_environment({VARIABLES[name]: place})
        assert place not in str(caught.value)
    elif place:
        assert place not in repr(Settings.from_environment({VARIABLES[name]: place}))


@pytest.mark.parametrize("name", NAMES)
def test_only_the_worker_may_read_it_and_only_it(name: str) -> None:
    parameter, secret = RESOURCES[f"Read{name}Parameter"], RESOURCES[f"Read{name}Secret"]
    for policy, kind in ((parameter, "Parameter"), (secret, "Secret")):
        assert policy["Condition"] == f"{name}Is{kind}"
        assert policy["Properties"]["Roles"] == [{"Ref": "GenerateRole"}]
    [by_name] = parameter["Properties"]["PolicyDocument"]["Statement"]
    [by_arn] = secret["Properties"]["PolicyDocument"]["Statement"]
    place = "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter${" + f"{name}Parameter" + "}"
    assert (by_name["Action"], by_name["Resource"]) == ("ssm:GetParameter", {"Fn::Sub": place})
    assert (by_arn["Action"], by_arn["Resource"]) == ("secretsmanager:GetSecretValue", {"Ref": f"{name}Parameter"})


def test_no_other_function_is_told_where_it_is() -> None:
    told = {
        resource
        for resource, entry in RESOURCES.items()
        for variable in entry["Properties"].get("Environment", {}).get("Variables", {})
        if variable in VARIABLES.values()
    }
    assert told == {"GenerateFunction"}
