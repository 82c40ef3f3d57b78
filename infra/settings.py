"""The settings of the GPU stacks: the context of cdk.json, or `-c name=value` on the command line."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Self

from constructs import Construct
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from infra.instances import Environment, vcpus
from infra.logs import RETENTION_DAYS

#: What the release without a name is called (table/live.py).
DEFAULT_RELEASE = "default"
#: Of the stack's name, and of a release's with it: an endpoint's name, made of them, has at most 63 characters.
_LONGEST_STACK = 50
#: SQS hides a message for at most 12 hours, and AWS advises six times the function's timeout.
_LONGEST_FUNCTION_S = 5400
#: The most vCPUs a capacity provider may have, and the fewest that CDK allows.
_MOST_VCPUS, _FEWEST_VCPUS = 15_000, 12

Words = Annotated[tuple[str, ...], Field(max_length=16)]
BucketNames = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")], ...], Field(max_length=16)
]


#: Where the SAM stack's InputRetentionDays and OutputRetentionDays delete: the same as its pattern of ModelsManifest.
_DELETED = re.compile(r"s3://([a-z0-9-]+-(output|assets)-[0-9]{12}-|[^/]+/(jobs|images|batches|uploads)/)")


#: The same as the SAM stack's pattern of its parameters for tokens, which no token matches.
_KEPT_AT = r"^(/[A-Za-z0-9_./-]+|arn:[a-z-]+:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+)?$"


class InvalidContext(ValueError):
    """A value of the context cannot be used; the message names it and says why."""


class GpuSettings(BaseModel):
    """All settings, with defaults that suit a first deployment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stack: str = Field(default="comfy-serverless", pattern=r"^[a-zA-Z][a-zA-Z0-9-]{0,49}$")
    """Name of the SAM stack that the GPUs work for. The endpoint's name, made of it, has at most 63 characters."""
    release: str = Field(default="", pattern=r"^([a-z0-9](-?[a-z0-9]){0,19})?$")
    """A name for these workers, to stand beside others (docs/releases.md); empty for those that jobs go to at once."""
    owner: str = Field(default="", max_length=256)
    """Who pays: the cost allocation tag `owner` of everything; empty for no such tag."""
    alarm_topic_arn: str = ""
    """SNS topic that alarms are sent to; empty for none."""
    log_retention_days: int = 30
    torch_index_url: str = Field(default="", pattern="^(https://.+)?$")
    """Index of another build of torch, such as `https://download.pytorch.org/whl/cu126`; empty for PyPI's, locked."""
    comfyui_ref: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._/-]{0,99})?$")
    """A tag, a branch or a commit of ComfyUI that runs with the locked libraries; empty for the pinned one."""
    comfyui_args: str = ""
    """Arguments for ComfyUI, such as `--highvram`."""
    models_manifest: str = Field(default="", pattern="^(s3://.+)?$")
    """Models every job needs, as a JSON file in the input bucket; empty for none."""

    hugging_face_token_parameter: str = Field(default="", pattern=_KEPT_AT)
    """Where a token for models on Hugging Face is kept: an SSM parameter (`/comfy/hf-token`), or the ARN of a secret of
    Secrets Manager; empty for none. Never the token itself."""
    civitai_token_parameter: str = Field(default="", pattern=_KEPT_AT)
    """The same for models on CivitAI."""

    more_settings: str = Field(default="", max_length=1000, pattern=r"^([A-Z][A-Z0-9_]*=.*)?$")
    """Any other settings of docs/settings.md, for the worker: `ENGINE_MAX_JOBS=500 MAX_LISTED_OUTPUTS=200`."""

    usd_per_second: float | None = Field(default=None, ge=0, le=1000)
    """Price of a second of a worker, in US dollars, with which jobs' costs are estimated; by default that of the first
    instance type in us-east-1, if we know it."""

    input_buckets: BucketNames = ()
    """Buckets of your own that jobs may read from, beside the SAM stack's: the same as its parameter InputBuckets."""
    output_buckets: BucketNames = ()
    """Buckets of your own that jobs may name for their results: the same as its parameter OutputBuckets."""

    # SageMaker
    instance_types: Words = ("ml.g6.xlarge", "ml.g5.xlarge", "ml.g6.2xlarge")
    """In the order in which they are tried: if one is not available, the next is used."""
    max_instances: int = Field(default=4, ge=1, le=1000)
    in_flight: int = Field(default=3, ge=1, le=16)
    """Jobs in a container at once: one executes, the others fetch their inputs and deliver."""
    backlog_per_instance: int = Field(default=4, ge=1)
    """Waiting jobs per instance above which instances are added."""
    scale_in_cooldown_s: int = Field(default=300, ge=0, le=7200)
    """Pause between scale-ins; the first comes after 15 minutes with less to do (AWS's alarm)."""
    models: str = Field(default="", pattern="^(s3://[a-z0-9][a-z0-9.-]+/(.+/)?)?$")
    """A folder in S3, uncompressed, laid out as ComfyUI's models/; ends with a slash. Empty for none."""
    startup_timeout_s: int = Field(default=1200, ge=60, le=3600)
    models_timeout_s: int = Field(default=1800, ge=60, le=3600)

    # Lambda, without a GPU
    cpu_memory_mb: int = Field(default=10_240, ge=2048, le=10_240)
    """Memory of a release's function on processors, which come with it."""

    # Lambda
    accelerator_memory_gb: int = 24
    """Memory of the GPU: Lambda finds an instance with as much."""
    lambda_instance_types: Words = ("g6.2xlarge", "g5.2xlarge", "g6.4xlarge", "g5.4xlarge")
    """The EC2 instances that Lambda may start: without them it takes any that fits, even one sized for many jobs."""
    memory_mb: int = Field(default=16_384, ge=4096, le=32_768)
    temporary_storage_mb: int = Field(default=32_768, ge=512, le=32_768)
    min_environments: int = Field(default=0, ge=0)
    """Jobs at once that always have GPUs, even while nothing waits."""
    max_environments: int = Field(default=8, ge=4, le=1000)
    """Most jobs at once, one on each GPU."""
    max_batch_environments: int = Field(default=4, ge=2)
    """How many of those run jobs of batches: the others are for jobs whose callers wait."""
    vpc_id: str = Field(default="", pattern="^(vpc-[0-9a-f]+)?$")
    """An existing VPC; empty for the stack's own."""
    subnet_ids: Words = ()
    """Private subnets in it, with a route to S3, DynamoDB, SQS and the sources of inputs."""
    availability_zones: Words = ()
    """The zones of the stack's own VPC; empty for the region's first two. Not every zone has every instance."""

    @field_validator("instance_types")
    @classmethod
    def _one_to_five(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not 1 <= len(value) <= 5 or not all(name.startswith("ml.") for name in value):
            raise ValueError("one to five types, such as ml.g6.xlarge")
        return value

    @field_validator("lambda_instance_types")
    @classmethod
    def _of_a_known_size(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("at least one type, such as g6.2xlarge")
        for name in value:
            vcpus(name)
        return value

    @field_validator("models", "models_manifest")
    @classmethod
    def _where_nothing_is_deleted(cls, value: str) -> str:
        if _DELETED.match(value):
            raise ValueError(
                "not below jobs/, images/ or batches/, nor in the stack's output or assets bucket: objects expire there"
            )
        return value

    @field_validator("log_retention_days")
    @classmethod
    def _days_there_are(cls, value: int) -> int:
        if value not in RETENTION_DAYS:
            raise ValueError(f"one of {', '.join(map(str, RETENTION_DAYS))}")
        return value

    @field_validator("accelerator_memory_gb")
    @classmethod
    def _a_size_there_is(cls, value: int) -> int:
        if value not in (sizes := (3, 6, 12, 16, 24, 48)):
            raise ValueError(f"one of {', '.join(map(str, sizes))}")
        return value

    @model_validator(mode="after")
    def _may_be_called_so(self) -> Self:
        if self.release == DEFAULT_RELEASE:
            raise ValueError(f"release must not be {DEFAULT_RELEASE}: so the one without a name is called")
        if len(self.stack + self.suffix) > _LONGEST_STACK:
            raise ValueError(f"the names of stack and release must not have more than {_LONGEST_STACK - 1} characters")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.max_environments - self.max_batch_environments < 2:
            raise ValueError("max_batch_environments must leave two of max_environments, the fewest a queue can have")
        if bool(self.vpc_id) != bool(self.subnet_ids):
            raise ValueError("vpc_id and subnet_ids belong together")
        if self.vpc_id and self.availability_zones:
            raise ValueError("availability_zones are for the stack's own VPC: subnet_ids have their own")
        if self.min_environments > self.max_environments:
            raise ValueError("min_environments must not be more than max_environments")
        if self.max_vcpus > _MOST_VCPUS:
            raise ValueError(f"max_environments of these instances have more than {_MOST_VCPUS} vCPUs")
        environment = Environment(self.memory_mb, self.accelerator_memory_gb)
        if misfits := [misfit for name in self.lambda_instance_types if (misfit := environment.misfit(name))]:
            raise ValueError(f"lambda_instance_types: {'; '.join(misfits)}")
        return self

    @property
    def repository(self) -> str:
        """The repository of the images, which `make deploy` makes (repositories.yaml)."""
        return f"{self.stack.lower()}/gpu"

    @property
    def suffix(self) -> str:
        """What the names of a release's resources end in."""
        return f"-{self.release}" if self.release else ""

    def queue_name(self, kind: str) -> str:
        """The name of the queue of `jobs` or `batches`: the SAM stack may send to those that are called so."""
        return f"{self.stack}-release-{self.release}-{kind}" if self.release else f"{self.stack}-gpu-{kind}"

    @property
    def endpoint_name(self) -> str:
        """The endpoint's name, which depends on its instance types: SageMaker cannot change those if it scales."""
        types = hashlib.sha256(",".join(self.instance_types).encode()).hexdigest()
        return f"{self.stack}-gpu{self.suffix}-{types[:8]}"

    @property
    def endpoint_names(self) -> str:
        """A pattern of all names it can have, for IAM: while one endpoint replaces another, both work."""
        return f"{self.stack}-gpu{self.suffix}-{8 * '?'}"

    @property
    def max_vcpus(self) -> int:
        """Enough vCPUs for `max_environments` GPUs, whichever instances are available.

        Must be right when the capacity provider is made: if too few keep the function's first version from being
        published, the provider can no longer be changed.
        """
        return max(_FEWEST_VCPUS, self.max_environments * max(map(vcpus, self.lambda_instance_types)))

    @property
    def function_timeout_s(self) -> int:
        """The longest that a function on managed instances behind a queue may run."""
        return _LONGEST_FUNCTION_S

    @classmethod
    def of(cls, app: Construct) -> Self:
        """Read the app's context.

        Raises:
            InvalidContext: a value cannot be used.
        """
        values = {
            name: _value(text, is_list="tuple" in str(setting.annotation))
            for name, setting in cls.model_fields.items()
            if (text := app.node.try_get_context(name)) is not None
        }
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'context'}: {problem['msg']}" for problem in error.errors()
            )
            raise InvalidContext(f"infra/cdk.json or `-c name=value`: {problems}") from error


def _value(given: Any, *, is_list: bool) -> Any:  # noqa: ANN401
    """Parse a value: the command line only passes text, in which a list is `a,b` or JSON."""
    if not (is_list and isinstance(given, str)):
        return given
    if given.startswith("["):
        return json.loads(given)
    return [word for word in given.split(",") if word]
