"""Texts for key holders: the account, its roles and the worker's folders are left out, and nothing else."""

from __future__ import annotations

import pytest

from comfy_serverless.errors import DeliveryFailed, EngineCrashed, InternalError, NodeExecutionError
from comfy_serverless.jobs.document import JobError
from comfy_serverless.jobs.outward import _error, outward, outward_details

DENIED = (
    "An error occurred (AccessDenied) when calling the PutObject operation: User: "
    "arn:aws:sts::123456789012:assumed-role/stack-GenerateRole-A1B2/generate is not authorized to perform: "
    's3:PutObject on resource: "arn:aws:s3:::comfy-output-123456789012-eu-central-1/owners/a" because no policy allows'
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://comfy-output-123456789012-eu-central-1/a.png is gone", "s3://comfy-output-…-eu-central-1/a.png is gone"),
        ("https://sqs.eu-central-1.amazonaws.com/123456789012/jobs", "https://sqs.eu-central-1.amazonaws.com/…/jobs"),
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com/x", "….dkr.ecr.eu-central-1.amazonaws.com/x"),
        ("of account 123456789012", "of account …"),
        ("no s3://sagemaker-eu-west-1-123456789012/x", "no s3://sagemaker-eu-west-1-…/x"),
        ("cannot read /app/ComfyUI/models/loras/a.safetensors", "cannot read …/a.safetensors"),
        ("cannot read '/ComfyUI/models/loras/a.safetensors'", "cannot read '…/a.safetensors'"),
        ("no C:\\Users\\me\\ComfyUI\\a.png, and 'd:\\\\data\\\\b.png'", "no …/a.png, and '…/b.png'"),
        ("no 'C:\\Users\\Jane Doe\\Program Files (x86)\\a.png'", "no '…/a.png'"),
        ("D:\\v1.5\\a.png is not in models\\b", "…/a.png is not in models\\b"),
        ("cannot read /tmp/comfyui/models/checkpoints/v1-5.safetensors.", "cannot read …/v1-5.safetensors."),
        ("'/opt/ml/model/a b.png' (/home/me/x)", "'…/a b.png' (…/x)"),
        ("arn:aws-cn:iam::123456789012:role/x, then", "arn:…, then"),
    ],
)
def test_what_tells_of_the_account_or_the_machine_is_left_out(text: str, shown: str) -> None:
    assert outward(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "send it with POST /api/v2/uploads: /docs lists what there is",
        "https://example.com/tmp/a.png and s3://my-bucket/home/x.png",
        "part-1-202611290501.png and a\\b of c: \\d",
        "seed 123456789012 is bigger than max",
        "photo-202611290501.png of node 9 (SaveImage)",
        "'d:\\w+\\s*', and 'Q:\\nis it?\\nA: no'",
        "1/2 of data:image/png;base64,AAAA/tmp/x",
        "file:///tmp/x is no address",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert outward(text) == text


def test_a_refusal_of_s3_keeps_what_was_refused() -> None:
    shown = outward(DENIED)
    assert "AccessDenied" in shown
    assert "is not authorized to perform: s3:PutObject" in shown
    assert not {"123456789012", "GenerateRole", "comfy-output"} & set(shown.replace("/", " ").split())
    assert "1234" not in shown


def test_a_traceback_keeps_its_paths_and_loses_the_account() -> None:
    traceback = f'File "/opt/comfyui/nodes.py", line 1, in save\n{DENIED}'
    error = JobError.of(NodeExecutionError("no /opt/comfyui/x.py", details={"traceback": traceback, "node_id": "9"}))
    shown = _error(error)
    assert shown.traceback is not None
    assert '"/opt/comfyui/nodes.py", line 1' in shown.traceback
    assert "1234" not in shown.traceback
    assert (shown.message, shown.node_id) == ("no …/x.py", "9")


def test_details_are_gone_through_and_the_engines_log_which_all_share_is_left_out() -> None:
    assert outward_details(
        {"outputs": [{"a": [DENIED, 1, None]}], "log_tail": "prompt of another", "exit_code": -9}
    ) == {
        "outputs": [{"a": [outward(DENIED), 1, None]}],
        "exit_code": -9,
    }
    error = JobError.of(EngineCrashed("it died", details={"log_tail": "x", "exit_code": -9}))
    assert _error(error).details == {"exit_code": -9}
    assert _error(JobError.of(DeliveryFailed("x"))).message == "x"


def test_our_own_mistake_tells_nothing_of_our_code() -> None:
    shown = _error(JobError.of(InternalError("KeyError: '/tmp/x'", details={"traceback": "…"})))
    assert (shown.code, shown.details, shown.traceback) == ("internal_error", {}, None)
    assert "the worker's log has the details" in shown.message
