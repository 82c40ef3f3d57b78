"""Presigned links: the same as botocore's own, for a small part of its work."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from comfy_serverless.aws.presign import LinkSigner
from comfy_serverless.aws.s3_clock import ServerClock
from comfy_serverless.jobs.document import Output
from comfy_serverless.jobs.links import Links
from tests.unit.fakes import OUT

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PARAMETERS = {
    "response-content-type": "image/png",
    "response-content-disposition": "inline; filename*=UTF-8''a%20b.png",
}


def output(number: int, bucket: str = OUT) -> Output:
    uri = f"s3://{bucket}/owners/team/job/{number}/text.txt"
    return Output(
        node_id=str(number),
        name="text.txt",
        type="text",
        content_type="text/plain",
        size_bytes=3,
        id=f"{number:032}",
        job_id="job",
        s3_uri=uri,
        sha256="0" * 64,
    )


def parts(url: str) -> tuple[str, dict[str, str]]:
    split = urlsplit(url)
    return f"{split.scheme}://{split.netloc}{split.path}", dict(parse_qsl(split.query))


@pytest.mark.parametrize("key", ["a.png", "owners/team/ä b~!*'().png", "a//b/../c?d#e&f=+%41", "\U0001f98a/x,=@.png"])
def test_a_link_is_the_one_that_botocore_makes(s3: S3Client, key: str) -> None:
    asked: dict[str, Any] = {
        "Bucket": OUT,
        "Key": key,
        "ResponseContentType": PARAMETERS["response-content-type"],
        "ResponseContentDisposition": PARAMETERS["response-content-disposition"],
    }
    for _ in range(3):  # both are of the same second at last
        theirs = parts(s3.generate_presigned_url("get_object", Params=asked, ExpiresIn=600))
        ours = parts(LinkSigner(s3, OUT, expiry_s=600).link(key, PARAMETERS))
        if ours[1]["X-Amz-Date"] == theirs[1]["X-Amz-Date"]:
            break
    assert ours == theirs


def test_links_are_signed_with_the_clock_of_s3(s3: S3Client) -> None:
    clock = ServerClock()
    clock.offset = timedelta(days=-400)
    clock.attach(s3)
    _, query = parts(LinkSigner(s3, OUT, expiry_s=600).link("a.png", PARAMETERS))
    _, right = parts(s3.generate_presigned_url("get_object", Params={"Bucket": OUT, "Key": "a.png"}))
    assert query["X-Amz-Date"][:8] == right["X-Amz-Date"][:8]


def test_a_thousand_links_ask_the_client_once_for_each_bucket(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    whole = s3.generate_presigned_url

    def counted(operation: str, **given: Any) -> str:
        asked.append(given["Params"]["Bucket"])
        return whole(operation, **given)

    monkeypatch.setattr(s3, "generate_presigned_url", counted)
    made = Links(s3, 600).of_outputs(
        [output(number, OUT if number % 2 else "another-bucket") for number in range(1000)]
    )
    assert sorted(asked) == ["another-bucket", OUT]
    assert len({one.url for one in made}) == 1000


def test_an_output_that_is_not_in_s3_has_no_link(s3: S3Client) -> None:
    [made] = Links(s3, 600).of_outputs([output(1).model_copy(update={"s3_uri": None})])
    assert made.url is None
