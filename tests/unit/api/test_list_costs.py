"""What a page of a list costs in processor time with all that it can show, beside one without."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.unit.api.test_job_lists import ALL, end, make
from tests.unit.api_world import ApiWorld, api_world
from tests.unit.table.test_job_store import output

JOBS, PICTURES = 40, 4


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


def test_what_a_page_shows_of_its_jobs_costs_a_few_times_the_page_without(api: ApiWorld) -> None:
    for number in range(JOBS):
        pictures = tuple(
            picture.model_copy(update={"thumb_uri": f"{picture.s3_uri}.thumb.webp"})
            for picture in (output(f"{place}.png") for place in range(PICTURES))
        )
        end(api, make(api, f"job-{number:02}", at_s=number), outputs=pictures)
    shown = api.request("GET", f"/api/v2/jobs?limit=100&{ALL}").text
    assert shown.count("X-Amz-Signature") == JOBS * PICTURES * 2
    plain_s, whole_s = (processor_s(api, f"/api/v2/jobs?limit=100{more}") for more in ("", f"&{ALL}"))
    # Two reads of the table in place of one, and eight links a job. It is 2.8 times; with botocore's signer it was 6.2.
    assert whole_s < 4.5 * plain_s, f"{whole_s:.3f} s, and {plain_s:.3f} s without"


def processor_s(api: ApiWorld, path: str) -> float:
    """The processor time of an answer, moto's included: the best of seven, as a busy machine adds to the others."""
    took = []
    for _ in range(7):
        begun = time.process_time()
        api.request("GET", path)
        took.append(time.process_time() - begun)
    return min(took)
