"""Presigned links: the same as botocore's own, for a small part of its work."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import boto3
import pytest
from botocore.config import Config

from comfy_serverless.aws import presign
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


def test_a_link_of_credentials_for_a_while_is_the_one_that_botocore_makes() -> None:
    client = boto3.client(
        "s3",
        region_name="eu-central-1",
        aws_access_key_id="ASIA",
        aws_secret_access_key="a/secret+of=signs",
        aws_session_token="a/token+with=signs==",
        config=Config(signature_version="s3v4"),
    )
    for _ in range(3):
        theirs = parts(client.generate_presigned_url("get_object", Params={"Bucket": OUT, "Key": "k"}, ExpiresIn=60))
        ours = parts(LinkSigner(client, OUT, expiry_s=60).link("k", {}))
        if ours[1]["X-Amz-Date"] == theirs[1]["X-Amz-Date"]:
            break
    assert ours == theirs
    assert ours[1]["X-Amz-Security-Token"] == "a/token+with=signs=="


def test_what_cannot_be_signed_here_is_signed_by_botocore(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = parts(LinkSigner(s3, OUT, expiry_s=600).link("ä b.png", PARAMETERS))
    monkeypatch.setattr(presign, "_ALGORITHM", "AWS4-ECDSA-P256-SHA256")
    theirs = parts(LinkSigner(s3, OUT, expiry_s=600).link("ä b.png", PARAMETERS))
    assert ours[0] == theirs[0]
    assert ours[1].keys() == theirs[1].keys()
    assert theirs[1]["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"


def test_keys_that_were_renewed_in_the_middle_of_it_sign_nothing_wrong(
    s3: S3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presign, "_secret", lambda *_, **__: "the next one's")
    for _ in range(3):
        theirs = parts(s3.generate_presigned_url("get_object", Params={"Bucket": OUT, "Key": "k"}, ExpiresIn=600))
        ours = parts(LinkSigner(s3, OUT, expiry_s=600).link("k", {}))
        if ours[1]["X-Amz-Date"] == theirs[1]["X-Amz-Date"]:
            break
    assert ours == theirs


def test_nothing_private_of_botocore_is_used() -> None:
    source = inspect.getsource(presign)
    assert re.findall(r"(?:s3|client|signer|auth|request)(?:\"\])?\._\w+", source) == []
    assert "before-sign" in source


def test_links_of_several_threads_are_signed_as_each_of_them_has_asked(s3: S3Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: LinkSigner(s3, f"bucket-{number}", expiry_s=600).link("k", {}), range(40)))
    for number, link in enumerate(made):
        theirs = s3.generate_presigned_url("get_object", Params={"Bucket": f"bucket-{number}", "Key": "k"})
        assert parts(link)[0] == parts(theirs)[0]
        assert parts(link)[1]["X-Amz-Credential"] == parts(theirs)[1]["X-Amz-Credential"]


def test_a_link_costs_a_small_part_of_what_botocore_takes_for_it(s3: S3Client) -> None:
    signer = LinkSigner(s3, OUT, expiry_s=600)

    def ours() -> None:
        for number in range(100):
            signer.link(f"owners/team/{number}.png", PARAMETERS)

    def theirs() -> None:
        for number in range(10):
            s3.generate_presigned_url("get_object", Params={"Bucket": OUT, "Key": f"{number}.png"})

    assert processor_s(ours) / 100 < processor_s(theirs) / 10 / 5


def processor_s(act: Callable[[], None]) -> float:
    """The processor time of it, the best of five: a busy machine adds to the others."""
    took = []
    for _ in range(5):
        begun = time.process_time()
        act()
        took.append(time.process_time() - begun)
    return min(took)
