"""Measures how long the API's function takes under the real Lambda runtime emulator: cold, and warm by operation.

    python -m benchmarks.api_latency [--rounds N]

The floor in the same run: cold, a function that only imports the libraries of ours and answers at once; warm, one that
only makes the same calls to the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from examples.sdk_tour import PAINT
from local.aws.lambda_emulator import SOURCE_ROOT, LambdaEmulator
from local.aws.server import LocalAws
from local.aws.stack import LocalStack

FLOOR = """
    import json, os
    import boto3, pydantic
    from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
    from botocore.config import Config
    clients = [boto3.client(name) for name in ("dynamodb", "s3", "sqs")]
    app = APIGatewayHttpResolver(enable_validation=True)

    @app.get("/api/v2/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/api/v2/jobs/<id>")
    def job(id: str) -> dict[str, int]:
        found = clients[0].query(
            TableName=os.environ["JOBS_TABLE"],
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"job#{id}"}},
            ConsistentRead=True,
        )
        return {"items": found["Count"]}

    def handler(event, context):
        return app.resolve(event, context)
"""


def event(method: str, path: str, body: str | None = None) -> dict[str, Any]:
    """A request in the form that API Gateway sends."""
    made: dict[str, Any] = {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/json", "host": "local"},
        "requestContext": {
            "http": {"method": method, "path": path},
            "stage": "$default",
            "requestId": "1",
            "authorizer": {"lambda": {"owner": "bench", "key_id": "bench"}},
        },
        "isBase64Encoded": False,
    }
    return made | ({"body": body} if body is not None else {})


def cold_ms(handler: str, environment: Mapping[str, str], source_root: Path, rounds: int) -> float:
    """The time to the first answer of a new process, the best of some."""
    times = []
    for _ in range(rounds):
        with LambdaEmulator(handler, environment, source_root=source_root) as emulator:
            begun = time.perf_counter()
            answer = emulator.invoke(event("GET", "/api/v2/health"))
            times.append((time.perf_counter() - begun) * 1000)
            assert answer["statusCode"] == 200
    return min(times)


def warm_ms(invoke: Callable[[Any], Any], make: Callable[[], dict[str, Any]], status: int, rounds: int) -> float:
    """The median time of many answers."""
    times = []
    for _ in range(rounds):
        asked = make()
        begun = time.perf_counter()
        answer = invoke(asked)
        times.append((time.perf_counter() - begun) * 1000)
        assert answer["statusCode"] == status, answer
    return statistics.median(times)


def main() -> None:
    """Measure, and print the table."""

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.api_latency", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=100, help="requests of each kind (default: 100)")
    rounds = parser.parse_args().rounds
    ours = "comfy_serverless.handlers.api.handler"
    table = Table("what", "ours (ms)", "floor (ms)", "ratio")

    def row(what: str, measured: float, floor: float) -> None:
        table.add_row(what, f"{measured:.1f}", f"{floor:.1f}", f"x {measured / floor:.2f}")

    with LocalAws() as aws, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "floor.py").write_text(textwrap.dedent(FLOOR), encoding="utf-8")
        environment = {**LocalStack.create(aws).environment, "POWERTOOLS_LOG_LEVEL": "ERROR"}
        row(
            "cold: first answer",
            cold_ms(ours, environment, SOURCE_ROOT, 5),
            cold_ms("floor.handler", environment, Path(folder), 5),
        )
        body = json.dumps({"workflow": PAINT})
        with (
            LambdaEmulator(ours, environment) as api,
            LambdaEmulator("floor.handler", environment, source_root=Path(folder)) as floor,
        ):
            job = json.loads(api.invoke(event("POST", "/api/v2/jobs", body))["body"])
            path = f"/api/v2/jobs/{job['id']}"
            floor.invoke(event("GET", path))
            floor_get = warm_ms(floor.invoke, lambda: event("GET", path), 200, rounds)
            row("warm: GET /jobs/{id}", warm_ms(api.invoke, lambda: event("GET", path), 200, rounds), floor_get)
            submit = warm_ms(api.invoke, lambda: event("POST", "/api/v2/jobs", body), 201, rounds)
            row("warm: POST /jobs (over one read)", submit, floor_get)
            listed = warm_ms(api.invoke, lambda: event("GET", "/api/v2/jobs"), 200, rounds)
            row("warm: GET /jobs (over one read)", listed, floor_get)
    Console().print(table)


if __name__ == "__main__":
    main()
