"""What an import loads, and what each module says it is for. Who may import whom is import-linter's (`make lint`)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path("lambda")
AWS = ("boto3", "botocore", "aws_lambda_powertools", "mypy_boto3_s3", "awslambdaric", "pydantic")


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


def test_every_public_name_is_there() -> None:
    import comfy_serverless

    for name in comfy_serverless.__all__:
        assert getattr(comfy_serverless, name)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=str)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} has no docstring"
