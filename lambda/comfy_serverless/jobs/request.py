"""`JobRequest` and its parts, the same for every way in. No IO."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from comfy_serverless.connector.model_folders import EMBEDDINGS, MODEL_FOLDERS, RENAMED_FOLDERS
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.files import MODEL_ENDINGS
from comfy_serverless.graph.file_inputs import is_address, scheme_of
from comfy_serverless.graph.workflow import MAX_DEPTH, is_shallow
from comfy_serverless.jobs.document import MAX_ERROR_TEXT, clean, first_warnings
from comfy_serverless.jobs.extra_data import check_extra_data
from comfy_serverless.jobs.shapes import MAX_ADDRESSES, shape
from comfy_serverless.uncollected import uncollected

if TYPE_CHECKING:
    from comfy_serverless.jobs.known_files import KnownFiles

JOB_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
#: S3 accepts keys of 1,024 bytes; the part after the prefix may have half of them.
MAX_PREFIX_BYTES = 512
MAX_LABELS = 50
MAX_LABEL_CHARACTERS = 1024
#: For all names and values of a job's labels together: they are written into the table, and listed.
MAX_LABELS_BYTES = 16_000
MAX_MODELS = 50
MAX_MODEL_SUBFOLDERS = 4
MAX_MODEL_NAME_BYTES = 200
MAX_MODEL_URL_CHARACTERS = 8192
#: How many wrong fields are named; the others of a huge request only cost time.
MAX_REQUEST_ERRORS = 100


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    size_bytes = sum(len(text.encode("utf-8", "replace")) for label in labels.items() for text in label)
    if size_bytes > MAX_LABELS_BYTES:
        raise ValueError(f"has {size_bytes:,} bytes of labels; at most {MAX_LABELS_BYTES:,} are kept")
    return labels


Label = Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS)]
Labels = Annotated[dict[Label, Label], Field(max_length=MAX_LABELS), AfterValidator(_check_labels)]
ReplyMode = Literal["auto", "inline", "links"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


#: What is wrong with an input that is not plain.
NOT_PLAIN = "should be a string, or a list of strings for a batch of images"


def is_plain_input(value: object) -> bool:
    """Whether a value is one that any workflow takes in `inputs`: a file, or a list of files."""
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
    )


def _check_input(value: object, info: ValidationInfo) -> object:
    """Return the value. Of a named workflow it may be any: what its inputs are is known when the name is looked up."""
    if is_plain_input(value):
        return value
    if not _is_name(info.data.get("workflow")):
        raise ValueError(NOT_PLAIN)
    if not is_shallow({"": value}):
        raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")
    return value


def _is_name(workflow: object) -> bool:
    return isinstance(workflow, str) and not is_address(workflow)


InputValue = Annotated[Any, BeforeValidator(_check_input)]


class OutputTarget(_Request):
    """Where results go instead of `OUTPUT_BUCKET` and `OUTPUT_PREFIX`."""

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = None
    prefix: str | None = None

    @field_validator("prefix")
    @classmethod
    def _check_prefix(cls, prefix: str | None) -> str | None:
        if prefix is None:
            return None
        if len(prefix.encode()) > MAX_PREFIX_BYTES:
            raise ValueError(f"should have at most {MAX_PREFIX_BYTES} bytes")
        if not prefix.isprintable() or any(part in {".", ".."} for part in prefix.split("/")) or "//" in prefix:
            raise ValueError("must be a plain folder like 'team/results': no '.', '..', '//' or control characters")
        return prefix


class ModelRequest(_Request):
    """A model that must be there before the workflow runs.

    Attributes:
        url: `s3://…` or `https://…`.
        folder: one of ComfyUI's model folders, e.g. "checkpoints", or a subfolder of one: "loras/styles".
        name: the file name; by default the url's last part.
        sha256: the hash of its content, in hex. Without one, its host is asked; see `worker.model_store.hashes`.
    """

    url: Annotated[str, Field(max_length=MAX_MODEL_URL_CHARACTERS)]
    folder: str
    name: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        # http:// is judged where the address is used: ALLOW_PRIVATE_ADDRESSES lets it pass.
        if not is_address(url) or scheme_of(url) == "data":
            raise ValueError("must be s3://bucket/key or https://…")
        return url

    @field_validator("folder")
    @classmethod
    def _check_folder(cls, folder: str) -> str:
        first, *inner = folder.split("/")
        if first not in MODEL_FOLDERS:
            near = difflib.get_close_matches(first[:100], MODEL_FOLDERS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(MODEL_FOLDERS)}"
            raise ValueError(f"is not a model folder of ComfyUI ({hint})")
        if len(inner) > MAX_MODEL_SUBFOLDERS or not all(map(_is_plain_name, inner)):
            raise ValueError("must be a model folder or a plain subfolder of one, like 'loras/styles'")
        like_a_file = next((part for part in inner if part.lower().endswith(MODEL_ENDINGS)), None)
        if like_a_file is not None:
            raise ValueError(f"{like_a_file!r} is the name of a file, not of a folder: the file's goes into `name`")
        return folder

    @field_validator("sha256")
    @classmethod
    def _lower(cls, sha256: str | None) -> str | None:
        return sha256.lower() if sha256 is not None else None

    @model_validator(mode="after")
    def _check_name(self) -> Self:
        if not _is_plain_name(self.file_name):
            raise ValueError(f"{self.file_name[:100]!r} is no plain file name; give the model a `name`")
        return self

    @property
    def file_name(self) -> str:
        """The file's name in its folder."""
        if self.name is not None:
            return self.name
        path = self.url if scheme_of(self.url) == "s3" else unquote(urlsplit(self.url).path)
        return path.rpartition("/")[2]

    @property
    def path(self) -> str:
        """Folder and name, below the folder of all models. Folders have ComfyUI's present names."""
        first, *inner = self.folder.split("/")
        return "/".join((RENAMED_FOLDERS.get(first, first), *inner, self.file_name))

    @property
    def called(self) -> str:
        """What a workflow calls it by: its path, for an embedding without the ending, which ComfyUI adds by itself."""
        ending = next((ending for ending in MODEL_ENDINGS if self.path.lower().endswith(ending)), "")
        return self.path[: len(self.path) - len(ending)] if self.path.startswith(f"{EMBEDDINGS}/") else self.path


def _is_plain_name(name: str) -> bool:
    return (
        0 < len(name.encode("utf-8", "replace")) <= MAX_MODEL_NAME_BYTES
        and name.isprintable()
        and clean(name) == name
        and name[0] not in ". ~-"
        and name[-1] not in ". "
        and not set(name) & set('/\\:*?"<>|')
    )


def _check_models(models: object) -> object:
    """Make a list a tuple: JSON has only lists, and strict validation would refuse them."""
    if not isinstance(models, list | tuple):
        raise ValueError("should be a list of models")  # noqa: TRY004 - pydantic makes a report of ValueErrors only
    return tuple(models)


def _check_names(models: tuple[ModelRequest, ...]) -> tuple[ModelRequest, ...]:
    contents: dict[str, str] = {}
    for model in models:
        content = model.sha256 or model.url  # one without a sha256 is the same only if it comes from the same place
        if contents.setdefault(model.called, content) != content:
            raise ValueError(
                f"{model.called!r} is asked for with two different sha256, or from two places; give one another `name`"
            )
    paths = {model.path for model in models}
    within = next((model for model in models if paths & set(map(str, PurePosixPath(model.path).parents))), None)
    if within is not None:
        raise ValueError(f"{within.path!r} is in a folder that another one has for its name; give that another `name`")
    return models


#: The models of a request or a manifest.
ModelList = Annotated[
    tuple[ModelRequest, ...], Field(max_length=MAX_MODELS), BeforeValidator(_check_models), AfterValidator(_check_names)
]


class JobRequest(_Request):
    """A request for a job.

    Attributes:
        job_id: names the job; the same id never runs twice. If absent, it is random or derived from the event.
        workflow: a graph in API format or what the editor saved, `s3://bucket/key.json` of either, or a name: of a
            named workflow (`poster`, `poster@staging`, `poster@3`), or of a file in `WORKFLOWS_DIR`.
        values: `set` in JSON: `{"3.seed": 42}`, put into the graph before it runs.
        inputs: `{"10.image": "s3://…"}`, fetched and given to the node; several in a list are a batch. Of a named
            workflow also any value by the input's name: `{"prompt": "a fox"}`.
        models: fetched before the workflow runs.
        deadline_s: how many seconds the job may take once a worker has begun it.
        reply: whether the reply carries the outputs themselves ("inline"), links to them ("links"), or small
            images and texts inline and links to everything ("auto").
        metadata: labels that come back with the job.
        extra_data: what ComfyUI gets beside the workflow, e.g. `{"extra_pnginfo": {…}}`; see `jobs.extra_data`.
    """

    job_id: Annotated[str, Field(pattern=JOB_ID_PATTERN)] | None = None
    workflow: dict[str, Any] | str
    values: dict[str, Any] = Field(default_factory=dict, alias="set", max_length=MAX_ADDRESSES)
    inputs: dict[str, InputValue] = Field(default_factory=dict, max_length=MAX_ADDRESSES)
    models: ModelList = ()
    output: OutputTarget = Field(default_factory=OutputTarget)
    deadline_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    reply: ReplyMode = "auto"
    metadata: Labels = Field(default_factory=dict)
    extra_data: Annotated[dict[str, Any], AfterValidator(check_extra_data)] | None = Field(default=None, repr=False)
    _warnings: tuple[str, ...] = PrivateAttr(default=())
    _files: KnownFiles | None = PrivateAttr(default=None)

    @property
    def is_named(self) -> bool:
        """Whether the workflow is a name, which somebody has to look up (`jobs.named`)."""
        return _is_name(self.workflow)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was left out of what was sent, for people."""
        return self._warnings

    def with_warnings(self, warnings: Iterable[str]) -> Self:
        """The request with these warnings, or the first of them."""
        copy = self.model_copy()
        copy._warnings = first_warnings(warnings)
        return copy

    def digest(self) -> str:
        """SHA-256 of what is asked for, in hex: labels, place and patience make no other request."""
        with uncollected():
            asked = self.model_dump(mode="json", by_alias=True, include={"workflow", "values", "inputs", "models"})
        return hashlib.sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def files(self) -> KnownFiles | None:
        """The files that an editor's workflow names, as the API has looked them up for the worker that converts it."""
        return self._files

    def with_files(self, files: KnownFiles) -> Self:
        """The request with these."""
        copy = self.model_copy()
        copy._files = files
        return copy

    @classmethod
    def field_names(cls) -> list[str]:
        """The names of its fields, as they are sent."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @field_validator("workflow", mode="before")
    @classmethod
    def _check_workflow(cls, workflow: object) -> object:
        if isinstance(workflow, dict) or (isinstance(workflow, str) and workflow):
            return workflow
        raise ValueError("must be a workflow, an s3:// address of one, or the name of one in WORKFLOWS_DIR")

    @classmethod
    def parse(cls, payload: object) -> Self:
        """Read a request of a caller, strictly, in any of the shapes that `jobs.shapes` knows.

        Raises:
            InvalidRequest: naming every field that is wrong or unknown, in `details["errors"]` too.
        """
        return cls._read(payload, extra="forbid")

    @classmethod
    def stored(cls, payload: object) -> Self:
        """Read a request that any release has stored: unknown fields are ignored. Raises as `parse`."""
        return cls._read(payload, extra="ignore")

    @classmethod
    def _read(cls, payload: object, *, extra: Literal["forbid", "ignore"]) -> Self:
        shaped = shape(payload, known=cls.field_names())
        with uncollected():  # there may be an error for each of its fields
            try:
                request = cls.model_validate(shaped.fields, extra=extra)
            except ValidationError as error:
                raise _invalid_request(error, shaped.fields) from None
        return request.with_warnings(shaped.warnings) if shaped.warnings else request


def parse_manifest(entries: object, *, source: str) -> tuple[ModelRequest, ...]:
    """The models in a list of entries as in a request's `models`. Raises InvalidRequest, naming every wrong field."""
    try:
        return TypeAdapter(ModelList).validate_python(entries)
    except ValidationError as error:
        problems = "; ".join(
            f"{_field_name(location)}: {_problem(entry['type'], entry['msg'], location)}"
            for entry in error.errors(include_url=False, include_context=False, include_input=False)[:20]
            for location in [("models", *entry["loc"])]
        )
        raise InvalidRequest(f"{source} (MODELS_MANIFEST) cannot be used: {problems}."[:MAX_ERROR_TEXT]) from None


def _invalid_request(error: ValidationError, payload: Mapping[str, Any]) -> InvalidRequest:
    entries = error.errors(include_url=False, include_context=False, include_input=False)
    reported = {  # a field may be wrong in several ways: one is enough
        _field_name(entry["loc"]): _problem(entry["type"], entry["msg"], entry["loc"])
        for entry in entries[:MAX_REQUEST_ERRORS]
    }
    problems = [{"field": field, "problem": problem} for field, problem in reported.items()]
    listing = "; ".join(f"{problem['field']}: {problem['problem']}" for problem in problems[:20])
    job_id = payload.get("job_id")
    return InvalidRequest(
        f"The job request cannot be used: {listing}."[:MAX_ERROR_TEXT],
        details={"errors": problems, **({"job_id": job_id} if isinstance(job_id, str) else {})},
    )


def _field_name(location: tuple[int | str, ...]) -> str:
    parts = [str(part) for part in location if part not in {"dict[str,any]", "str", "[key]"}]
    return ".".join(parts)[:200] or "request"


def _problem(kind: str, message: str, location: tuple[int | str, ...]) -> str:
    return unknown_field(location, JobRequest) if kind == "extra_forbidden" else problem_in_words(kind, message)


def unknown_field(location: Sequence[int | str], model: type[BaseModel]) -> str:
    """A sentence on a field that a body does not have, with the name that was probably meant.

    Args:
        location: the way to it, from the body on.
        model: of the body.
    """
    inner: dict[str, type[BaseModel]] = {"output": OutputTarget, "models": ModelRequest}
    if len(location) > 1:
        field = model.model_fields.get(str(location[0]))
        parts = get_args(field.annotation) if field is not None else ()
        own = next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), model)
        model = inner.get(str(location[0]), own)
    names = [field.alias or name for name, field in model.model_fields.items()]
    near = difflib.get_close_matches(str(location[-1])[:100], names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
    return f"is not a field of a request ({hint})"


def problem_in_words(kind: str, message: str) -> str:
    """A field's problem in our words: the end of a sentence that begins with the field's name.

    Args:
        kind: pydantic's name of the problem.
        message: pydantic's own message.
    """
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return "is not a field of this request"
    if kind in {"dict_type", "model_type", "model_attributes_type", "dataclass_type"}:
        return "should be an object: {…}"
    return message.removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")[:300]
