"""The environment, read once into a typed `Settings`. A value that cannot be understood is named at start.

Kept free of third-party imports: `import comfy_serverless` must stay light.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any, Final

from comfy_serverless import setting_values as to
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.release_file import RELEASE_FILE, release_version, version_in

#: A variable with further settings, `NAME=value NAME=value`: where few variables can be given, as in a stack.
MORE = "MORE_SETTINGS"


def _env(
    variable: str, convert: Callable[[str], object], default: object, meaning: str, *, is_secret: bool = False
) -> Any:  # noqa: ANN401
    """A dataclass field that knows its environment variable. `meaning` becomes a row of docs/settings.md.

    Nothing shows the value of a secret.
    """
    facts = {"variable": variable, "convert": convert, "meaning": meaning, "is_secret": is_secret}
    return dataclass_field(default=default, repr=not is_secret, metadata=facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of the connector and of the jobs around it. `Settings.from_environment()` reads them."""

    # The connector: the names of the original ComfyConnector first.
    app_name: str = _env("APP_NAME", str, "COMFY_SERVERLESS", "Prefix of the websocket's client id")
    api_command_line: str | None = _env(
        "API_COMMAND_LINE", to.command, None, "Command that starts ComfyUI; `--port N` is added"
    )
    api_url: str = _env("API_URL", to.host, "127.0.0.1", "Host ComfyUI is reached at")
    initial_port: int = _env("INITIAL_PORT", to.port, 8188, "First port to try; the next free one is taken")
    test_payload: Path | None = _env(
        "TEST_PAYLOAD", to.file, None, "A workflow that must run before ComfyUI counts as started"
    )
    max_start_attempts: int = _env(
        "MAX_COMFY_START_ATTEMPTS", to.count, 120, "Together with the next: how long a start may take"
    )
    start_attempts_sleep_s: float = _env("COMFY_START_ATTEMPTS_SLEEP", to.seconds, 1.0, "Seconds an attempt counts for")
    comfyui_dir: Path | None = _env(
        "COMFYUI_DIR", to.checkout, None, "A ComfyUI checkout, started with `python main.py`"
    )
    comfyui_python: str | None = _env(
        "COMFYUI_PYTHON", to.python, None, "The Python of that checkout; its own `.venv` or `venv` is found by itself"
    )
    comfyui_args: str = _env("COMFYUI_ARGS", to.arguments, "", "Arguments for that checkout, e.g. `--cpu`")
    comfyui_url: str | None = _env(
        "COMFYUI_URL",
        to.engine_address,
        None,
        "A ComfyUI that runs already, e.g. `http://127.0.0.1:8188` or "
        "`https://user:password@host/path`; none is started",
        is_secret=True,
    )
    comfyui_token: str | None = _env(
        "COMFYUI_TOKEN",
        to.token,
        None,
        "Sent to that ComfyUI with every request, as `Authorization: Bearer …`",
        is_secret=True,
    )
    comfyui_headers: tuple[tuple[str, str], ...] = _env(
        "COMFYUI_HEADERS",
        to.headers,
        (),
        "Further headers for it: `Name: value`, one a line, or a JSON object",
        is_secret=True,
    )
    engine_environment: tuple[str, ...] = _env(
        "ENGINE_ENVIRONMENT",
        to.variables,
        (),
        "Variables of ours that ComfyUI gets too, e.g. `HF_TOKEN,MY_NODE_*`; those of AWS never pass",
    )
    stall_s: float = _env(
        "STALL_S", to.seconds, 600.0, "Seconds without event or processor time after which ComfyUI is replaced"
    )
    engine_growth_bytes: int | None = _env(
        "ENGINE_GROWTH_BYTES",
        to.count,
        None,
        "How much more memory, or memory of the GPU, ComfyUI may hold between two jobs than after its first ones "
        "before it is replaced; by default a quarter of what there is",
    )
    engine_max_jobs: int | None = _env(
        "ENGINE_MAX_JOBS", to.count, None, "How many jobs ComfyUI runs before it is replaced; by default any number"
    )

    # Jobs.
    output_bucket: str | None = _env(
        "OUTPUT_BUCKET", to.bucket, None, "Where results go unless a request says otherwise"
    )
    output_prefix: str = _env("OUTPUT_PREFIX", str, "", "Put before every key in the output bucket")
    max_listed_outputs: int = _env(
        "MAX_LISTED_OUTPUTS",
        to.count,
        1000,
        "How many outputs of a job its document lists; of more, all are listed in `outputs.jsonl` beside `result.json`",
    )
    thumbnails: bool = _env(
        "THUMBNAILS",
        to.boolean,
        True,
        "Whether a small WebP is made of each picture, and of each video's first frame, beside the output in its "
        "bucket",
    )
    keep_logs: to.KeepLogs = _env(
        "KEEP_LOGS",
        to.keep_logs,
        to.KeepLogs.FAILED,
        "Of which jobs the last lines that ComfyUI wrote are kept, as `log.txt` beside `result.json`: `failed`, `all` "
        "or `none`",
    )
    workflows_dir: Path | None = _env(
        "WORKFLOWS_DIR", to.folder, None, 'Folder of workflows a request may name: `"workflow": "name"`'
    )
    default_deadline_s: float = _env(
        "DEFAULT_DEADLINE_S", to.seconds, 600.0, "Deadline of a job that names none, in seconds"
    )
    max_receives: int = _env(
        "MAX_RECEIVES", to.count, 5, "The queue's `maxReceiveCount`: what fails at the last delivery is written down"
    )
    deadline_margin_s: float = _env(
        "DEADLINE_MARGIN_S", to.seconds, 15.0, "Seconds kept back at the end of an invocation to report"
    )
    max_input_bytes: int = _env("MAX_INPUT_BYTES", to.count, 200_000_000, "Largest input that is fetched")
    max_input_pixels: int = _env(
        "MAX_INPUT_PIXELS", to.count, 100_000_000, "Largest image, width x height of all frames"
    )
    input_cache_bytes: int = _env(
        "INPUT_CACHE_BYTES",
        to.count,
        2_000_000_000,
        "How much room the input files of jobs may take beside ComfyUI's folder; those of running jobs always may",
    )
    input_timeout_s: float = _env("INPUT_TIMEOUT_S", to.seconds, 60.0, "Longest fetch of one input")
    allow_private_addresses: bool = _env(
        "ALLOW_PRIVATE_ADDRESSES",
        to.boolean,
        False,
        "Whether inputs, models and webhooks may be in private networks, and on http; this machine itself never is",
    )
    allowed_input_buckets: tuple[str, ...] = _env(
        "ALLOWED_INPUT_BUCKETS", to.buckets, (), "Buckets `s3://` inputs may come from; empty: any the role may read"
    )
    allowed_output_buckets: tuple[str, ...] = _env(
        "ALLOWED_OUTPUT_BUCKETS",
        to.buckets,
        (),
        "Buckets that requests may name for their results, beside OUTPUT_BUCKET; empty: any the role may write to",
    )
    kept_output_bytes: int | None = _env(
        "KEPT_OUTPUT_BYTES",
        to.count,
        None,
        "How much room outputs that could not be stored may take; the oldest go first. By default 1/8 of the disk",
    )
    link_expiry_s: int = _env("LINK_EXPIRY_S", to.link_expiry, 3600, "How long presigned links are valid")

    # The API.
    jobs_table: str | None = _env("JOBS_TABLE", to.aws_name, None, "DynamoDB table of jobs, assets and keys")
    assets_bucket: str | None = _env("ASSETS_BUCKET", to.bucket, None, "Where uploads and requests of the API are kept")
    job_queue_url: str | None = _env("JOB_QUEUE_URL", to.queue, None, "SQS queue the API sends jobs to")
    batch_queue_url: str | None = _env(
        "BATCH_QUEUE_URL",
        to.queue,
        None,
        "SQS queue that jobs of batches are sent to, so that no caller waits for them",
    )
    manifest_queue_url: str | None = _env("MANIFEST_QUEUE_URL", to.queue, None, "SQS queue of orders about batches")
    drop_owner: str = _env("DROP_OWNER", str, "drops", "Owner of the jobs of dropped objects and manifests")
    batch_state_machine: str | None = _env(
        "BATCH_STATE_MACHINE",
        to.arn,
        None,
        "Step Functions state machine that reads large manifests, many ranges at once",
    )
    batch_map_bytes: int = _env(
        "BATCH_MAP_BYTES", to.count, 67_108_864, "That machine reads manifests of at least this size"
    )
    max_bad_lines: int = _env(
        "MAX_BAD_LINES",
        to.count,
        100_000,
        "After so many lines that are no requests, a manifest is read no further",
    )
    dispatch_parameter: str | None = _env(
        "DISPATCH_PARAMETER", to.aws_name, None, "SSM parameter in which a GPU stack says where jobs run instead"
    )
    endpoint_name: str | None = _env(
        "ENDPOINT_NAME", to.aws_name, None, "SageMaker endpoint that jobs of the queues are let through to"
    )
    worker_image: str = _env(
        "WORKER_IMAGE",
        str,
        "nodes",
        "Name of the workers' image: their list of node classes is kept under it, and the API reads that of the "
        "workers that jobs go to",
    )
    release_version: str = _env(
        "RELEASE_VERSION",
        release_version,
        "",
        "What the workers' image was built from: the hash of its lock. Jobs, logs and metrics tell it; by default as "
        "RELEASE_FILE says",
    )
    release_file: Path = _env(
        "RELEASE_FILE", to.path, RELEASE_FILE, "Where the image says it, as JSON with `release_version`"
    )
    waiting_per_instance: int = _env(
        "WAITING_PER_INSTANCE",
        to.count,
        2,
        "Jobs of batches that wait in an endpoint, for each of its instances; with callers' jobs one more",
    )
    otel_endpoint: str | None = _env(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        to.web_address,
        None,
        "Where spans of OpenTelemetry are sent, as OTLP over HTTP: `http://127.0.0.1:4318`, a collector beside the "
        "function. Without it there are none",
    )
    webhook_queue_url: str | None = _env("WEBHOOK_QUEUE_URL", to.queue, None, "SQS queue of webhooks to send")
    max_queued_jobs: int = _env(
        "MAX_QUEUED_JOBS", to.count, 1000, "Number of waiting jobs at which the API answers `queue_full`"
    )
    lease_s: float = _env(
        "LEASE_S", to.seconds, 30.0, "Seconds without a sign of life after which a worker counts as lost"
    )
    max_runs: int = _env("MAX_RUNS", to.count, 3, "How often a job of the API is run before it fails for good")
    poll_hold_s: float = _env(
        "POLL_HOLD_S",
        to.seconds_or_none,
        2.0,
        "Age of a job up to which `GET /api/v2/jobs/{id}` is answered only when it ends, a quarter of it while no "
        "worker has begun it; 0: at once, always",
    )
    events_hold_s: float = _env(
        "EVENTS_HOLD_S", to.seconds, 1.0, "How long an answer of `/events` waits for something new"
    )
    events_url: str | None = _env(
        "EVENTS_URL",
        to.base_address,
        None,
        "Where live events are streamed, e.g. `https://host/live`: the API signs links to it. Empty: `/events` of the "
        "API itself, which on AWS is a snapshot for each request",
    )
    events_link_s: int = _env(
        "EVENTS_LINK_S", to.events_link, 900, "How long such a link may be opened, in seconds; at most twelve hours"
    )
    streams_per_owner: int = _env(
        "STREAMS_PER_OWNER",
        to.count,
        10,
        "How many streams of live events an owner may have open at once; more are answered with `too_many_streams`",
    )
    max_upload_bytes: int = _env(
        "MAX_UPLOAD_BYTES",
        to.upload_size,
        1_000_000_000,
        "Largest file that may be uploaded through `/api/v2/uploads`, at most 5 GB; S3 must copy it in half a minute",
    )
    cors_origins: tuple[str, ...] = _env(
        "CORS_ORIGINS", to.origins, (), "Web pages that may call the API, e.g. `https://app.example`; empty: none"
    )

    # What it costs.
    usd_per_second: float | None = _env(
        "USD_PER_SECOND",
        to.price,
        None,
        "Price of a second of a worker, in US dollars: a job's `cost_usd` is estimated with it; unset: not known",
    )
    usd_per_gb_second: float | None = _env(
        "USD_PER_GB_SECOND", to.price, None, "The same for each 1,024 MB of WORKER_MEMORY_MB; USD_PER_SECOND goes first"
    )
    worker_memory_mb: int | None = _env("WORKER_MEMORY_MB", to.count, None, "Memory of the workers' function")
    usd_per_request: float | None = _env(
        "USD_PER_REQUEST", to.price, None, "Price of each job beside that, in US dollars"
    )

    # The container on SageMaker.
    port: int = _env("SAGEMAKER_BIND_TO_PORT", to.port, 8080, "Port of `/ping` and `/invocations`")
    in_flight: int = _env(
        "IN_FLIGHT",
        to.count,
        3,
        "Invocations at once: one executes, others fetch and deliver; as the endpoint's configuration says",
    )
    model_data_dir: Path = _env(
        "MODEL_DATA_DIR", to.path, Path("/opt/ml/model"), "Where SageMaker puts the endpoint's models"
    )

    # Models.
    models_manifest: str | None = _env(
        "MODELS_MANIFEST",
        to.file_or_object,
        None,
        "Models every job needs: a JSON file, or `s3://…` of one; kept for good",
    )
    model_store_dir: Path | None = _env(
        "MODEL_STORE_DIR", to.new_folder, None, "Where fetched models are kept; by default below the temporary files"
    )
    model_store_bytes: int | None = _env(
        "MODEL_STORE_BYTES", to.count, None, "How much room they may take; by default half of the disk"
    )
    allow_pickled_models: bool = _env(
        "ALLOW_PICKLED_MODELS",
        to.boolean,
        False,
        "Whether models other than safetensors are fetched: `.ckpt` and `.pt` can run code",
    )
    allow_unpinned_models: bool = _env(
        "ALLOW_UNPINNED_MODELS",
        to.boolean,
        False,
        "Whether a model is fetched whose SHA-256 neither the request nor its host says; what comes first is held to",
    )
    hf_token: str | None = _env(
        "HF_TOKEN", to.token, None, "Token for models on Hugging Face; sent to huggingface.co only", is_secret=True
    )
    civitai_token: str | None = _env(
        "CIVITAI_TOKEN", to.token, None, "Token for models on CivitAI; sent to civitai.com only", is_secret=True
    )
    hugging_face_token_parameter: str | None = _env(
        "HUGGING_FACE_TOKEN_PARAMETER",
        to.secret_place,
        None,
        "Where AWS keeps that token instead: an SSM parameter (`/comfy/hf-token`), or the ARN of a secret",
        is_secret=True,  # it is none, but somebody may give the token itself
    )
    civitai_token_parameter: str | None = _env(
        "CIVITAI_TOKEN_PARAMETER", to.secret_place, None, "The same for CivitAI's token", is_secret=True
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings. An empty variable counts as unset. MORE_SETTINGS can hold any that have no variable.

        Raises:
            InvalidSetting: a value cannot be used; the message names the variable and what it should be.
        """
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        if more := environment.get(MORE, ""):
            environment = {**environment, **more_settings(more, environment)}
        for setting in fields(cls):
            if text := environment.get(setting.metadata["variable"], ""):
                values[setting.name] = _read(text, setting.metadata)
        values.setdefault("release_version", _of_release(values.get("release_file", RELEASE_FILE)))
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


def more_settings(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that MORE_SETTINGS stands for: words as a shell reads them.

    Raises:
        InvalidSetting: it cannot be read, names no setting, or one that the environment has, too.
    """
    try:
        words = [word.partition("=") for word in shlex.split(text)]
    except ValueError as error:
        raise InvalidSetting(f"{MORE} cannot be read: {error}. Write NAME=value NAME='two words'") from error
    known = {setting.metadata["variable"] for setting in fields(Settings)}
    for name, equals, _ in words:
        if name not in known or not equals:
            raise InvalidSetting(
                f"{MORE} cannot be used: {to.shown(name)!r} is no NAME=value of a setting (docs/settings.md)"
            )
        if environment.get(name):
            raise InvalidSetting(f"{MORE} cannot be used: {name} has a value of its own here. Change it where that is")
    return {name: value for name, _, value in words}


#: `docker run --env-file` and systemd keep what a shell would take away.
_QUOTED: Final = ". It begins with a quotation mark: a file of variables that no shell reads has values without them"


def _read(text: str, facts: Mapping[str, Any]) -> object:
    """The value that a variable's text means."""
    is_secret = facts["is_secret"]
    try:
        return facts["convert"](text if facts["convert"] in (to.headers, to.engine_address) else to.visible(text))
    except ValueError as error:
        value = "" if is_secret and facts["convert"] is not to.engine_address else f"={to.shown(text)!r}"
        hint = _QUOTED if text.strip().startswith(('"', "'")) else ""
        raise InvalidSetting(f"{facts['variable']}{value} cannot be used: {error}{hint}") from error


def _of_release(path: Path) -> str:
    """The version that the image's own file tells."""
    try:
        return version_in(path)
    except ValueError as error:
        raise InvalidSetting(f"RELEASE_FILE={to.shown(str(path))!r} cannot be used: {error}") from error
