"""What is no batch, and names that no batch has: nothing is written, so that all ask one world."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.api.test_api_batches import ROUTES
from tests.unit.owned_batches import URL, Batches, batches_world, line


@pytest.fixture(scope="module")
def empty() -> Iterator[Batches]:
    with pytest.MonkeyPatch.context() as patch, batches_world(patch) as made:
        yield made


@pytest.mark.parametrize("name", ["%2E%2E%2Fx", "a%2Fb", "a%23b", "b%C3%A4r", "%00", "x" * 3000, "batch%23", "%FF"])
@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_a_hostile_name_finds_nothing(empty: Batches, method: str, route: str, name: str) -> None:
    assert empty.request(method, f"{URL}/{name}{route}").status == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "x"}, 422),
        ({"name": "x", "lines": []}, 422),
        ({"name": "x", "lines": {}}, 422),
        ({"name": "x", "manifest": "\n \n"}, 422),
        ({"name": "x", "manifest": "[1, 2"}, 422),
        ({"name": "x", "lines": [line(1)], "manifest": "{}"}, 422),
        ({"name": "x", "lines": [line(1)], "extra": 1}, 422),
        ({"name": "x", "upload_id": "../x"}, 404),
        ({"name": "x", "manifest": "x" * 4_000_001}, 413),
        ({"name": "x", "manifest": "{}\n" * 10_001}, 413),
        ([], 422),
    ],
)
def test_what_is_no_batch_is_refused(empty: Batches, body: Any, status: int) -> None:
    answer = empty.post(body)
    assert answer.status == status, answer.text
    assert empty.request("GET", URL).json == {"batches": []}
