"""What a batch has made comes into a folder: whole, under its own name, and over nothing that is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

import pytest

from comfy_serverless.batches.results import Row
from comfy_serverless.cli.batches import download as downloads
from comfy_serverless.cli.batches.download import Download, Downloaded
from comfy_serverless.cli.batches.names import NameTemplate
from comfy_serverless.cli.batches.of_stack import OfReport
from tests.unit.cli.batches.result_world import BUCKET, png, put_line
from tests.unit.jobs_table import REGION, aws

RED, BLUE, GREEN = png("red"), png("blue"), png("green")

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class Counted:
    """An S3 that counts what is read, and can break off."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3
        self.read: list[str] = []
        self.interrupt_at = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)

    @property
    def client(self) -> S3Client:
        """It, as what it stands for."""
        return cast("S3Client", self)

    def get_object(self, **request: Any) -> Any:
        self.read.append(request["Key"])
        if self.interrupt_at and request["Key"].endswith(self.interrupt_at):
            raise KeyboardInterrupt
        return self._s3.get_object(**request)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    monkeypatch.setattr(downloads, "_PAUSES_S", (0.0,))
    with aws() as session:
        client = session.client("s3")
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield Counted(client)


def fetched(s3: Any, rows: Sequence[Row], folder: Path, template: str = "{input}") -> Downloaded:
    return Download(source=OfReport(s3.client), folder=folder, template=NameTemplate.parse(template), batch="b").run(
        iter(rows)
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_files_are_named_after_their_lines(s3: Counted, tmp_path: Path) -> None:
    rows = [
        put_line(s3, 1, {"a_00001_.png": RED}, metadata={"sku": "A/1"}, source="s3://b/fox.jpg"),
        put_line(s3, 2, {"a_00001_.png": BLUE}, metadata={"sku": "B"}, source="s3://b/owl.jpg"),
    ]
    done = fetched(s3, rows, tmp_path, "{batch}/{metadata.sku}_{input}_{line:3}_{output}_{node}_{title}_{index}")
    assert contents(tmp_path) == {
        "b/A_1_fox_001_a_9_Save_0.png": RED,
        "b/B_owl_002_a_9_Save_0.png": BLUE,
    }
    assert [file.is_new for file in done.files] == [True, True]
    assert done.failed == []


def test_the_same_again_fetches_nothing_and_goes_on_where_it_was(s3: Counted, tmp_path: Path) -> None:
    rows = [put_line(s3, line, {"x.png": png("red", (line, 9))}, source="s3://b/same.jpg") for line in range(1, 4)]
    fetched(s3, rows, tmp_path)
    before = contents(tmp_path)
    assert list(before) == ["same-2.png", "same-3.png", "same.png"]
    (tmp_path / "same-2.png").unlink()
    s3.read.clear()
    done = fetched(s3, rows, tmp_path)
    assert contents(tmp_path) == before
    assert [file.is_new for file in done.files] == [False, True, False]
    assert [key for key in s3.read if not key.endswith("result.json")] == ["job-2/9/x.png"]


def test_another_file_is_never_replaced(s3: Counted, tmp_path: Path) -> None:
    (tmp_path / "fox.png").write_bytes(b"mine")
    (tmp_path / "fox-2.png").mkdir()
    (tmp_path / "fox-3.png").symlink_to(tmp_path / "nowhere")
    row = put_line(s3, 1, {"x.png": RED}, source="s3://b/fox.jpg")
    for _ in range(2):  # the same place again
        done = fetched(s3, [row], tmp_path)
        assert [str(file.path) for file in done.files] == ["fox-4.png"]
    assert (tmp_path / "fox.png").read_bytes() == b"mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_cut_short_is_not_taken_for_the_whole(s3: Counted, tmp_path: Path) -> None:
    (tmp_path / "fox.png").write_bytes(RED[:-1])
    row = put_line(s3, 1, {"x.png": RED}, source="s3://b/fox.jpg")
    fetched(s3, [row], tmp_path)
    assert contents(tmp_path) == {"fox.png": RED[:-1], "fox-2.png": RED}


def test_what_is_not_as_its_result_tells_is_named_and_leaves_nothing(s3: Counted, tmp_path: Path) -> None:
    good, changed, gone, lost = (
        put_line(s3, line, {"x.png": png("red", (9, line))}, source=f"s3://b/{line}.jpg") for line in range(1, 5)
    )
    s3.put_object(Bucket=BUCKET, Key="job-2/9/x.png", Body=b"other")
    s3.delete_object(Bucket=BUCKET, Key="job-3/9/x.png")
    s3.delete_object(Bucket=BUCKET, Key="job-4/result.json")
    done = fetched(s3, [good, changed, gone, lost], tmp_path)
    assert list(contents(tmp_path)) == ["1.png"]
    reasons = {failed.line: failed.reason for failed in done.failed}
    assert "SHA-256" in reasons[2]
    assert "does not exist" in reasons[3]
    assert "does not exist any more" in reasons[4]


def test_ctrl_c_leaves_whole_files_alone(s3: Counted, tmp_path: Path) -> None:
    rows = [put_line(s3, line, {"x.png": png("red", (9, line))}, source=f"s3://b/{line}.jpg") for line in range(1, 9)]
    s3.interrupt_at = "job-5/result.json"
    with pytest.raises(KeyboardInterrupt):
        fetched(s3, rows, tmp_path)
    assert not [name for name in contents(tmp_path) if "part" in name]
    s3.interrupt_at = ""
    fetched(s3, rows, tmp_path)
    assert len(contents(tmp_path)) == 8


def test_lines_without_results_and_repeated_ones_have_no_files(s3: Counted, tmp_path: Path) -> None:
    row = put_line(s3, 1, {"x.png": RED}, source="s3://b/fox.jpg")
    rows = [row, Row(line=2, job_id="job-1", status="succeeded", result=row.result, duplicate_of=1)]
    rows += [Row(line=3, job_id="job-3", status="failed", result=f"s3://{BUCKET}/job-3/result.json")]
    rows += [Row(line=4, status="bad")]
    done = fetched(s3, rows, tmp_path)
    assert [file.row.line for file in done.files] == [1]


def test_a_field_that_lines_lack_is_counted(s3: Counted, tmp_path: Path) -> None:
    rows = [put_line(s3, 1, {"x.png": RED}, metadata={"sku": "A"}), put_line(s3, 2, {"x.png": BLUE, "y.png": GREEN})]
    done = fetched(s3, rows, tmp_path, "{metadata.sku}")
    assert done.missing == {"metadata.sku": 2}
    assert sorted(contents(tmp_path)) == ["A.png", "none-2.png", "none.png"]


def test_reserved_names_stay_free(s3: Counted, tmp_path: Path) -> None:
    row = put_line(s3, 1, {"x.png": RED}, source="s3://b/contact-sheet.jpg")
    download = Download(
        source=OfReport(s3.client),
        folder=tmp_path,
        template=NameTemplate.parse("{input}"),
        batch="b",
        reserved=(PurePosixPath("contact-sheet.png"),),
    )
    download.run(iter([row]))
    assert list(contents(tmp_path)) == ["contact-sheet-2.png"]


def test_an_output_without_an_address_and_one_with_a_wild_ending_cost_the_others_nothing(
    s3: Counted, tmp_path: Path
) -> None:
    rows = [put_line(s3, line, {"x.p|n:g": RED}, source=f"s3://b/{line}.jpg") for line in (1, 2)]
    stored = s3.get_object(Bucket=BUCKET, Key="job-1/result.json")["Body"].read()
    moved = stored.replace(b"s3://results-bucket/job-1/9/x.p|n:g", b"s3://results-bucket/job-1/")
    s3.put_object(Bucket=BUCKET, Key="job-1/result.json", Body=moved)
    done = fetched(s3, rows, tmp_path)
    assert list(contents(tmp_path)) == ["2"]
    assert [failed.line for failed in done.failed] == [1]
