"""Dependencies point one way: handlers -> jobs -> connector. Read from the source, and seen at import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path("lambda")
AWS = ("boto3", "botocore", "aws_lambda_powertools", "mypy_boto3_s3", "awslambdaric", "pydantic")


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def offenders(folder: str, forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{path}: {name}"
        for path in sorted((SOURCE / folder).rglob("*.py"))
        for name in imports_of(path)
        if any(name == word or name.startswith(f"{word}.") for word in forbidden)
    ]


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("comfy_serverless/connector", (*AWS, "comfy_serverless.jobs", "comfy_serverless.handlers", "comfy_lite")),
        ("comfy_serverless/jobs", ("comfy_serverless.handlers", "comfy_lite")),
        ("comfy_serverless/handlers", ("comfy_lite",)),
        ("comfy_lite", (*AWS, "comfy_serverless")),
    ],
)
def test_nothing_imports_what_stands_above_it(folder: str, forbidden: tuple[str, ...]) -> None:
    assert list((SOURCE / folder).rglob("*.py"))
    assert offenders(folder, forbidden) == []


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
