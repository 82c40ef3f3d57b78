"""Results of a batch in a bucket, made by hand: what `batch download` and `batch sheet` find."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from comfy_serverless.batches.results import Row
from comfy_serverless.jobs.document import Output
from tests.unit.batch_world import ended

BUCKET = "results-bucket"


def png(colour: str, size: tuple[int, int] = (64, 48)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "PNG")
    return content.getvalue()


def put_line(
    s3: Any,
    line: int,
    contents: Mapping[str, bytes],
    *,
    kind: str = "image",
    metadata: Mapping[str, str] | None = None,
    source: str = "",
) -> Row:
    """The row of a line that has succeeded, with files of these names and contents."""
    job_id = f"job-{line}"
    outputs = []
    for index, (name, content) in enumerate(contents.items()):
        key = f"{job_id}/9/{name}"
        s3.put_object(Bucket=BUCKET, Key=key, Body=content)
        outputs.append(
            Output(
                node_id="9",
                name=name,
                type=kind,
                content_type="image/png",
                size_bytes=len(content),
                id=f"{job_id}-{index}",
                job_id=job_id,
                s3_uri=f"s3://{BUCKET}/{key}",
                title="Save",
                index=index,
                sha256=hashlib.sha256(content).hexdigest(),
            )
        )
    result = f"s3://{BUCKET}/{job_id}/result.json"
    job = ended(job_id, None).model_copy(update={"outputs": tuple(outputs)})
    s3.put_object(Bucket=BUCKET, Key=f"{job_id}/result.json", Body=job.to_stored_bytes())
    return Row(
        line=line,
        job_id=job_id,
        status="succeeded",
        result=result,
        metadata=metadata or {},
        inputs={"1.image": source} if source else {},
        outputs=tuple(str(output.s3_uri) for output in outputs),
    )
