"""The environment, read once into a typed `Settings`. A value that cannot be understood is named at start.

Kept free of third-party imports: `import comfy_serverless` must stay light.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

from comfy_serverless.errors import InvalidSetting

#: The longest a presigned link can be good for.
_LONGEST_LINK_S = 604_800


def _positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError("must be a positive number")
    return value


def _positive_int(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value <= 0:
        raise ValueError("must be a positive whole number")
    return value


def _port(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if not 1 <= value <= 65535:
        raise ValueError("must be a port between 1 and 65535")
    return value


def _link_expiry(text: str) -> int:
    value = _positive_int(text)
    if value > _LONGEST_LINK_S:
        raise ValueError(f"S3 signs links for at most {_LONGEST_LINK_S} seconds (a week)")
    return value


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise ValueError("there is no such file")
    return path


def _address(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return text


def _host(text: str) -> str:
    if "/" in text or text.count(":") == 1:
        raise ValueError("must be a host name or address alone, without http:// and port (see COMFYUI_URL)")
    return text


def _boolean(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise ValueError("must be true or false")
    return values[text.lower()]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _setting(variable: str, convert: Callable[[str], object], default: object, meaning: str) -> Any:  # noqa: ANN401
    """A dataclass field that knows its environment variable. `meaning` becomes a row of docs/settings.md."""
    return dataclass_field(default=default, metadata={"variable": variable, "convert": convert, "meaning": meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of the connector and of the jobs around it. `Settings.from_environment()` reads them."""

    # The connector: the names of the original ComfyConnector first.
    app_name: str = _setting("APP_NAME", str, "COMFY_SERVERLESS", "Prefix of the websocket's client id")
    api_command_line: str | None = _setting(
        "API_COMMAND_LINE", str, None, "Command that starts ComfyUI; `--port N` is added"
    )
    api_url: str = _setting("API_URL", _host, "127.0.0.1", "Host ComfyUI is reached at")
    initial_port: int = _setting("INITIAL_PORT", _port, 8188, "First port to try; the next free one is taken")
    test_payload: Path | None = _setting(
        "TEST_PAYLOAD", _file, None, "A workflow that must run before ComfyUI counts as started"
    )
    max_start_attempts: int = _setting(
        "MAX_COMFY_START_ATTEMPTS", _positive_int, 120, "Together with the next: how long a start may take"
    )
    start_attempts_sleep_s: float = _setting(
        "COMFY_START_ATTEMPTS_SLEEP", _positive_float, 1.0, "Seconds an attempt stands for"
    )
    comfyui_dir: Path | None = _setting("COMFYUI_DIR", Path, None, "A ComfyUI checkout, started with `python main.py`")
    comfyui_python: str | None = _setting(
        "COMFYUI_PYTHON",
        str,
        None,
        "The Python of that checkout; its own `.venv` or `venv` is found by itself",
    )
    comfyui_args: str = _setting("COMFYUI_ARGS", str, "", "Arguments for that checkout, e.g. `--cpu`")
    comfyui_url: str | None = _setting(
        "COMFYUI_URL", _address, None, "A ComfyUI that runs already, e.g. `http://127.0.0.1:8188`; none is started"
    )
    stall_s: float = _setting(
        "STALL_S",
        _positive_float,
        600.0,
        "Seconds without event or processor time after which ComfyUI is replaced",
    )

    # Jobs.
    output_bucket: str | None = _setting("OUTPUT_BUCKET", str, None, "Where results go unless a request says otherwise")
    output_prefix: str = _setting("OUTPUT_PREFIX", str, "", "Put before every key in the output bucket")
    workflows_dir: Path | None = _setting(
        "WORKFLOWS_DIR", Path, None, 'Folder of workflows a request may name: `"workflow": "name"`'
    )
    default_deadline_s: float = _setting(
        "DEFAULT_DEADLINE_S", _positive_float, 600.0, "Deadline of a job that names none, in seconds"
    )
    max_receives: int = _setting(
        "MAX_RECEIVES",
        _positive_int,
        5,
        "The queue's `maxReceiveCount`: what fails at the last delivery is written down",
    )
    deadline_margin_s: float = _setting(
        "DEADLINE_MARGIN_S", _positive_float, 15.0, "Seconds kept back at the end of an invocation to report"
    )
    max_input_bytes: int = _setting("MAX_INPUT_BYTES", _positive_int, 200_000_000, "Largest input that is fetched")
    max_input_pixels: int = _setting("MAX_INPUT_PIXELS", _positive_int, 100_000_000, "Largest image, width x height")
    input_cache_bytes: int = _setting(
        "INPUT_CACHE_BYTES",
        _positive_int,
        2_000_000_000,
        "How much room input files may take in ComfyUI's input folder; those of running jobs always may",
    )
    input_timeout_s: float = _setting("INPUT_TIMEOUT_S", _positive_float, 60.0, "Longest fetch of one input")
    allow_private_addresses: bool = _setting(
        "ALLOW_PRIVATE_ADDRESSES", _boolean, False, "Whether https inputs may come from private networks"
    )
    allowed_input_buckets: tuple[str, ...] = _setting(
        "ALLOWED_INPUT_BUCKETS",
        _words,
        (),
        "Buckets `s3://` inputs may come from; empty: any the role may read",
    )
    link_expiry_s: int = _setting("LINK_EXPIRY_S", _link_expiry, 3600, "How long presigned links are good for")

    # The API.
    jobs_table: str | None = _setting("JOBS_TABLE", str, None, "DynamoDB table of jobs, assets and keys")
    assets_bucket: str | None = _setting("ASSETS_BUCKET", str, None, "Where uploads and requests of the API are kept")
    job_queue_url: str | None = _setting("JOB_QUEUE_URL", str, None, "SQS queue the API sends jobs to")
    batch_queue_url: str | None = _setting(
        "BATCH_QUEUE_URL", str, None, "SQS queue that jobs of batches are sent to, so that they keep nobody waiting"
    )
    manifest_queue_url: str | None = _setting(
        "MANIFEST_QUEUE_URL", str, None, "SQS queue that is told what is to be done with batches"
    )
    drop_owner: str = _setting("DROP_OWNER", str, "drops", "Whose the jobs of dropped objects and manifests are")
    batch_state_machine: str | None = _setting(
        "BATCH_STATE_MACHINE", str, None, "Step Functions state machine that reads large manifests, many ranges at once"
    )
    batch_map_bytes: int = _setting(
        "BATCH_MAP_BYTES", _positive_int, 67_108_864, "Size of a manifest from which on that machine reads it"
    )
    dispatch_parameter: str | None = _setting(
        "DISPATCH_PARAMETER", str, None, "SSM parameter in which a GPU stack says where jobs are to be run instead"
    )
    endpoint_name: str | None = _setting(
        "ENDPOINT_NAME", str, None, "SageMaker endpoint a container is part of: jobs to be run again go there"
    )
    max_waiting_batch_jobs: int = _setting(
        "MAX_WAITING_BATCH_JOBS", _positive_int, 20, "Jobs of batches that wait in an endpoint, before those of callers"
    )
    webhook_queue_url: str | None = _setting("WEBHOOK_QUEUE_URL", str, None, "SQS queue of webhooks to be sent")
    max_queued_jobs: int = _setting(
        "MAX_QUEUED_JOBS", _positive_int, 1000, "Waiting jobs from which on the API answers `queue_full`"
    )
    lease_s: float = _setting(
        "LEASE_S", _positive_float, 30.0, "Seconds without a sign of life after which a worker counts as lost"
    )
    max_runs: int = _setting("MAX_RUNS", _positive_int, 3, "How often a job of the API is run before it fails for good")
    events_hold_s: float = _setting(
        "EVENTS_HOLD_S", _positive_float, 1.0, "How long an answer of `/events` waits for something new"
    )
    max_upload_bytes: int = _setting(
        "MAX_UPLOAD_BYTES", _positive_int, 1_000_000_000, "Largest file that may be uploaded through `/api/v2/uploads`"
    )
    cors_origins: tuple[str, ...] = _setting(
        "CORS_ORIGINS", _words, (), "Web pages that may call the API, e.g. `https://app.example`; empty: none"
    )

    # The container on SageMaker.
    port: int = _setting("SAGEMAKER_BIND_TO_PORT", _port, 8080, "Port of `/ping` and `/invocations`")
    in_flight: int = _setting(
        "IN_FLIGHT",
        _positive_int,
        3,
        "Invocations at once: one executes, others fetch and deliver; as the endpoint's configuration says",
    )
    model_data_dir: Path = _setting(
        "MODEL_DATA_DIR", Path, Path("/opt/ml/model"), "Where SageMaker puts the endpoint's models"
    )

    # Models.
    models_manifest: str | None = _setting(
        "MODELS_MANIFEST", str, None, "Models every job needs: a JSON file, or `s3://…` of one; kept for good"
    )
    model_store_dir: Path | None = _setting(
        "MODEL_STORE_DIR", Path, None, "Where fetched models are kept; by default below the temporary files"
    )
    model_store_bytes: int | None = _setting(
        "MODEL_STORE_BYTES", _positive_int, None, "How much room they may take; by default half of the disk"
    )
    allow_pickled_models: bool = _setting(
        "ALLOW_PICKLED_MODELS",
        _boolean,
        False,
        "Whether models other than safetensors are fetched: `.ckpt` and `.pt` can run code",
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings. An empty variable counts as unset.

        Raises:
            InvalidSetting: a value cannot be used; the message names the variable and what it should be.
        """
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for setting in fields(cls):
            variable = setting.metadata["variable"]
            text = environment.get(variable, "")
            if not text:
                continue
            try:
                values[setting.name] = setting.metadata["convert"](text)
            except ValueError as error:
                raise InvalidSetting(f"{variable}={text!r} cannot be used: {error}") from error
        return cls(**values)

    def require(self, *names: str) -> tuple[str, ...]:
        """Return the values of settings that this process cannot do without, in the order of the names.

        Raises:
            InvalidSetting: some of them are not set; the message names the variables of all that are missing.
        """
        variables = {setting.name: setting.metadata["variable"] for setting in fields(self)}
        values = {name: getattr(self, name) for name in names}
        if missing := [variables[name] for name, value in values.items() if value is None]:
            raise InvalidSetting(f"not set, and needed here: {', '.join(missing)}")
        return tuple(values.values())

    @property
    def start_timeout_s(self) -> float:
        """How long ComfyUI may take from its start to its first answer, in seconds."""
        return self.max_start_attempts * self.start_attempts_sleep_s
