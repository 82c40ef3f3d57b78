"""A file larger than a function reads, from the command line to a job that uses it, in what `make dev` starts."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_serverless.table.asset_names import MAX_READ_BYTES
from local.aws.template import name_of
from local.dev import DevStack
from tests.patience import PATIENCE_S
from tests.unit.worker.test_model_store import safetensors

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[2]


def bring_a_model(stack: DevStack, folder: Path) -> None:
    """To the store of that stack, as to one on AWS: whole, with its entry, and the second time not at all."""
    model = folder / "fox.safetensors"
    model.write_bytes(safetensors(20 << 20))
    entry = {
        "url": f"s3://{name_of('InputBucket')}/models/loras/fox.safetensors",
        "folder": "loras",
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }
    for was_sent in (True, False):
        added = command(stack, "models", "add", str(model), "--folder", "loras", "--manifest", folder / "models.json")
        assert (added["entry"], added["was_sent"]) == (entry, was_sent)
    [listed] = command(stack, "models", "ls")["models"]
    assert (listed["url"], listed["sha256"]) == (entry["url"], entry["sha256"])
    assert json.loads((folder / "models.json").read_text()) == [entry]
    stack.aws.client().put_object(Bucket=name_of("InputBucket"), Key="models/vae/bear.safetensors", Body=safetensors())
    unsaid = [
        {"url": entry["url"], "folder": "loras"},
        {"url": f"s3://{name_of('InputBucket')}/models/vae/bear.safetensors", "folder": "vae"},
    ]
    workflow = json.loads((ROOT / "workflows" / "thumbnail.json").read_text())
    (folder / "job.json").write_text(json.dumps({"workflow": workflow, "models": unsaid}))
    given = ("--input", f"image={ROOT / 'events' / 'photo.jpg'}", "--out", folder / "out")
    done = command(stack, "run", folder / "job.json", "--remote", *given)
    said = " ".join(done["warnings"])
    assert all(word in said for word in (entry["sha256"], "as S3 says", "when it was first fetched")), done


def command(stack: DevStack, *arguments: str | Path) -> dict[str, Any]:
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "comfy_serverless.cli", *arguments, "--json"],
        env={**os.environ, **stack.client_variables, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def test_a_large_file_is_uploaded_under_the_permissions_of_the_template(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    film = tmp_path / "film.bin"
    film.write_bytes(os.urandom(1 << 20) * (MAX_READ_BYTES // (1 << 20) + 2))
    digest = hashlib.sha256(film.read_bytes()).hexdigest()
    environment = {"ALLOW_UNPINNED_MODELS": "true"}
    with DevStack(log_folder=tmp_path_factory.mktemp("dev"), environment=environment) as stack:
        asset = command(stack, "upload", film)
        assert (asset["hash"], asset["sha256"], asset["size_bytes"]) == (None, digest, film.stat().st_size)
        assert hashlib.sha256(requests.get(asset["url"], timeout=PATIENCE_S).content).hexdigest() == digest
        stack.describe()
        bring_a_model(stack, tmp_path)
        kept = stack.aws.client().list_objects_v2(Bucket=name_of("AssetsBucket"), Prefix="blobs/")["Contents"]
        assert all(one["Key"].startswith("blobs/local/") for one in kept)
        assert stack.aws.client().list_objects_v2(Bucket=name_of("AssetsBucket"), Prefix="pins/")["KeyCount"] == 1
        assert stack.aws.usage().denials == []
