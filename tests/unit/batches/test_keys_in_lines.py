"""A line with a key is refused, and the key goes no further: neither into a part of the report nor into its files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping

import pytest

from tests.unit.batch_world import ASSETS, GRAPH, RESULTS, World
from tests.unit.jobs_table import aws

KEY = "hush-hush"
WITH_KEY: Mapping[str, object] = {
    "of Comfy": {"workflow": GRAPH, "extra_data": {"api_key_comfy_org": KEY}},
    "of another service": {"prompt": GRAPH, "extra_data": {"services": {"any": KEY}}},
    "of RunPod": {"input": {"workflow": GRAPH, "comfy_org_api_key": KEY}},
    "in a wrapped workflow": {"workflow": json.dumps({"prompt": GRAPH, "extra_data": {"headers": {"x": KEY}}})},
    "in a line that is wrong elsewhere": {"workflow": GRAPH, "deadlin_s": 5, "extra_data": {"mine": KEY}},
    "beside the workflow": {"workflow": GRAPH, "api_key_comfy_org": KEY},
    "in a line that breaks off": f'{{"workflow": {{}}, "extra_data": {{"mine": "{KEY}"}}',
    "with two workflows": {"workflow": GRAPH, "prompt": {"5": GRAPH["1"]}, "extra_data": {"api-key": KEY}},
}
WITHOUT: Mapping[str, object] = {
    "a slip": {"workflow": GRAPH, "deadlin_s": 5},
    "a slip, and what the editor saved": {"prompt": GRAPH, "extra_data": {"extra_pnginfo": {"a": 1}}, "metdata": {}},
    "no JSON": "{'workflow': 'a secret garden'}",
}


@pytest.fixture
def world() -> Iterator[World]:
    with aws() as session:
        yield World(session)


def test_a_refused_line_is_copied_unless_it_may_hold_a_key(world: World) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in [*WITH_KEY.values(), *WITHOUT.values()]]
    batch = world.begin("\n".join(texts).encode())
    world.read_all()
    world.look(batch)
    summary, rows, _ = world.report(batch)
    assert (summary["lines"], summary["bad_lines"]) == (len(texts), len(texts)), "each is told of"
    assert [row["status"] for row in rows] == ["bad"] * len(texts)
    files = {
        item["Key"]: world.s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        for bucket in (ASSETS, RESULTS)
        for item in world.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        if item["Key"] != f"requests/batches/{batch.id}.jsonl"  # our copy of the manifest
    }
    whole = {key: gzip.decompress(body) if key.endswith(".gz") else body for key, body in files.items()}
    assert len(whole) >= 6
    assert [key for key, body in whole.items() if KEY.encode() in body] == []
    [bad] = [body for key, body in whole.items() if key.endswith(".bad.jsonl")]
    assert bad.decode().splitlines() == texts[len(WITH_KEY) :]
    told = [one.message for one in world.batches.bad_lines(batch.id)]
    assert KEY not in " ".join(told)
    assert "`extra_data` has services" in told[1]
