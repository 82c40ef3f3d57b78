"""The parameter that says where jobs run: `infra/` writes it by hand, and `table/target.py` reads it."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from comfy_serverless.table.target import EndpointTarget, QueueTarget, parse_target

INFRA = Path(__file__).resolve().parents[3] / "infra"


def announced(stack: str) -> dict[str, str]:
    """The value that a stack of `infra/` writes, with the source of each expression in place of its value."""
    (call,) = (
        node
        for node in ast.walk(ast.parse((INFRA / stack).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "announce"
    )
    (written,) = call.args
    assert isinstance(written, ast.Dict)
    return {
        str(ast.literal_eval(name)): str(value.value) if isinstance(value, ast.Constant) else ast.unparse(value)
        for name, value in zip(written.keys, written.values, strict=True)
        if name is not None
    }


@pytest.mark.parametrize(
    ("stack", "kind"), [("sagemaker_stack.py", EndpointTarget), ("lambda_gpu_stack.py", QueueTarget)]
)
def test_a_gpu_stack_writes_what_senders_of_jobs_read(stack: str, kind: type) -> None:
    written = announced(stack)
    target = parse_target(json.dumps(written))
    assert isinstance(target, kind)
    assert json.loads(target.to_text()) == written
