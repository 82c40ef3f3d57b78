"""Makes a job's request of a version and the values that a caller has given by name. The only place. No IO.

    {"workflow": "poster", "inputs": {"prompt": "a fox", "photo": "s3://…"}}
        ──►  {"workflow": {graph}, "set": {"6.text": "a fox"}, "inputs": {"10.image": "s3://…"}, "metadata": {…}}

Nothing of the version is in the request itself, only copies: whatever a job does to its graph, the next one gets the
version as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.copies import refuse_copies
from comfy_serverless.graph.file_inputs import as_address, is_address
from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.graph.lookup import MAX_ADDRESS_LENGTH, NodeLookup, NothingMeant
from comfy_serverless.graph.near import Guesses
from comfy_serverless.graph.nodes import SEED_INPUTS
from comfy_serverless.graph.workflow import SEED_LIMIT, is_link
from comfy_serverless.graph.wrappers import merged
from comfy_serverless.jobs.document import MAX_ERROR_TEXT
from comfy_serverless.jobs.request import (
    MAX_LABELS,
    MAX_LABELS_BYTES,
    MAX_REQUEST_ERRORS,
    NOT_PLAIN,
    JobRequest,
    is_plain_input,
)
from comfy_serverless.workflows.targets import place_of
from comfy_serverless.workflows.version import NamedInput, Version

if TYPE_CHECKING:
    from comfy_serverless.workflows.schema import InputCheck

#: The labels that say what a job ran.
WORKFLOW_LABEL: Final = "workflow"
VERSION_LABEL: Final = "version"
#: An input of the loaders of images that no graph has: see `worker.inputs`.
_MASK: Final = ".mask"
_MOST_SHOWN: Final = 20


def expand(request: JobRequest, version: Version, *, check: InputCheck, strict: bool, seed: str = "") -> JobRequest:
    """The request with the version's graph in it, its values where they belong, and labels that say what it runs.

    Args:
        check: of this version.
        strict: whether `inputs` may have names only. Otherwise what is no name is an address, as for any workflow.
        seed: decides what is rolled, if the request has no `job_id` yet.

    Raises:
        InvalidRequest: values do not fit, or there are too many labels; `details["errors"]` has every problem.
        InvalidWorkflow: a long value would go to very many places.
    """
    values = _Values(version, request, strict=strict, seed=request.job_id or seed)
    problems = values.problems(check)
    labels = {**request.metadata, **labels_of(version)}
    size_bytes = sum(len(text.encode("utf-8", "replace")) for label in labels.items() for text in label)
    if len(labels) > MAX_LABELS or size_bytes > MAX_LABELS_BYTES:
        problems["metadata"] = (
            f"has {len(request.metadata)} labels, and with those that say what runs at most {MAX_LABELS} of "
            f"{MAX_LABELS_BYTES:,} bytes are kept"
        )
    if problems:
        raise _refusal(version, problems)
    values.place()
    refuse_copies([(value, 1) for value in values.files.values()])
    replaced = [
        f"the label {name!r} says which workflow the job runs: yours, {request.metadata[name][:100]!r}, was left out"
        for name, value in labels_of(version).items()
        if request.metadata.get(name, value) != value
    ]
    copies = version.copies
    along = copies.along()
    expanded = request.model_copy(
        update={
            "workflow": copies.workflow(),
            "values": values.set,
            "inputs": values.files,
            "metadata": labels,
            "extra_data": merged(request.extra_data or {}, along) if along else request.extra_data,
        }
    )
    warnings = [*request.warnings, *replaced, *values.drawn, *copies.warnings]
    return expanded.with_warnings(warnings) if warnings != list(request.warnings) else expanded


def check_values(request: JobRequest, version: Version, *, check: InputCheck, strict: bool) -> None:
    """Raise InvalidRequest if `expand` would for the values."""
    values = _Values(version, request, strict=strict, seed="")
    if problems := values.problems(check):
        raise _refusal(version, problems)


def labels_of(version: Version) -> dict[str, str]:
    """The labels of a job that runs this version."""
    return {WORKFLOW_LABEL: version.name, VERSION_LABEL: str(version.number)}


class _Values:
    """The values of a request, and where they go.

    Attributes:
        set, files: what the job has as `set` and as `inputs`.
        drawn: which seeds were drawn here, for people.
    """

    def __init__(self, version: Version, request: JobRequest, *, strict: bool, seed: str) -> None:
        self.set: dict[str, Any] = dict(request.values)
        self.files: dict[str, Any] = {}
        self.drawn: list[str] = []
        self._version = version
        self._request = request
        self._strict = strict
        self._seed = seed
        self._inputs = {one.name: one for one in version.inputs}
        self._lookup: NodeLookup | None = None

    def problems(self, check: InputCheck) -> dict[str, str]:
        """What is wrong, by field."""
        given = self._request.inputs
        named = {name: value for name, value in given.items() if self._strict or name in self._inputs}
        problems: dict[str, str] = {}
        reached = self._judge_addresses({name: given[name] for name in given.keys() - named.keys()}, problems)
        reached |= self._set_targets()
        for told in check.problems(named):
            # What is missing may have been given by its address.
            if told.field in given or not reached.issuperset(self._inputs[told.field].targets):
                problems[f"inputs.{told.field[:MAX_ADDRESS_LENGTH]}"] = told.problem
        for name in named.keys() & self._inputs.keys():
            if problem := self._misplaced(self._inputs[name], given[name]):
                problems.setdefault(f"inputs.{name}", problem)
        return problems

    def _misplaced(self, one: NamedInput, value: object) -> str:
        """Why a good value cannot be put where it belongs; "" if it can."""
        if clash := next((target for target in one.targets if target in self._request.values), None):
            return f"is given twice: `set` has {clash!r}, which is the same input"
        files = value if one.kind is InputKind.FILE and isinstance(value, list) and len(value) > 1 else ()
        wrong = next((number for number, each in enumerate(files, 1) if not _is_address(each)), None)
        if wrong is None or all(isinstance(each, Mapping) for each in files):
            return ""
        return (
            f"has several files, and number {wrong} is none: several are given all by s3://, https:// or data: "
            "addresses, or all as files that were uploaded (core/ASSET)"
        )

    def _judge_addresses(self, given: Mapping[str, Any], problems: dict[str, str]) -> set[str]:
        """Note what is wrong with `inputs` that are no names; return which inputs they set."""
        guesses, reached = Guesses(), set()
        for address, value in given.items():
            problem = "" if is_plain_input(value) else NOT_PLAIN
            # Without a graph, and of what no graph has, the worker judges.
            if not problem and self._version.graph and not address.endswith(_MASK):
                try:
                    reached |= set(map(".".join, self._nodes.resolve(address)[1]))
                except NothingMeant as nothing:
                    if not self._version.number and "." in address:
                        continue  # an address in a file of the image: refused as that of any graph is
                    problem = f"{nothing}{self._nodes.suggestion(address)}"
            if problem:
                near = guesses.near(address, self._inputs)
                hint = f"is no input of this workflow (did you mean {near[0]!r}?)" if near else problem
                problems[f"inputs.{address[:MAX_ADDRESS_LENGTH]}"] = hint
        return reached

    def _set_targets(self) -> set[str]:
        """The inputs that the request's `set` sets, as far as they are known."""
        if not self._request.values or not self._version.graph:
            return set()
        meanings, _ = self._nodes.resolve_all(self._request.values)
        return {".".join(target) for meaning in meanings for target in meaning.targets}

    @property
    def _nodes(self) -> NodeLookup:
        if self._lookup is None:
            self._lookup = NodeLookup(self._version.graph)
        return self._lookup

    def place(self) -> None:
        """Put every value where it belongs."""
        taken = self._set_targets()
        for name, value in self._request.inputs.items():
            one = self._inputs.get(name)
            if one is None:
                self.files[name] = value
            elif one.kind is InputKind.FILE:
                self._place_file(one, value)
            else:
                self._place_value(one, value)
        for one in self._inputs.values():
            is_set = one.name in self._request.inputs or not taken.isdisjoint(one.targets)
            if one.default is not None and not is_set and not self._has(one, one.default):
                place = self._place_file if one.kind is InputKind.FILE else self._place_value
                place(one, one.default)
        if self._version.number:  # the texts of a file are rolled when it is read
            self._roll({at: text for at, text in self._version.rolled.items() if at not in taken | self.set.keys()})

    def _roll(self, texts: Mapping[str, str]) -> None:
        if not texts:
            return
        from comfy_serverless.graph.convert.texts import Dice, choose  # seldom needed, and takes a while to load

        for address, text in texts.items():
            self.set[address] = choose(text, Dice(self._seed or None, address)).text

    def _has(self, one: NamedInput, value: object) -> bool:
        """Whether the graph has this default, as it mostly has, and a worker sees that it is a seed, if it is one."""
        if one.role is Role.SEED and _is_minus_one(value) and not _is_drawn_by_worker(one):
            return False
        stands = [self._standing(target) for target in one.targets]
        return all(found == value or is_link(found) for found in stands)

    def _standing(self, target: str) -> object:
        place = place_of(self._version.graph, target)
        return None if place is None else self._version.graph[place[0]]["inputs"].get(place[1])

    def _place_file(self, one: NamedInput, value: Any) -> None:  # noqa: ANN401  (any JSON value)
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        meant = [_as_meant(each) for each in value] if isinstance(value, list) else _as_meant(value)
        first = meant[0] if isinstance(meant, list) else meant
        place = self.files if _is_address(first) else self.set
        for target in one.targets:
            place[target] = meant

    def _place_value(self, one: NamedInput, value: Any) -> None:  # noqa: ANN401  (any JSON value)
        if one.kind is InputKind.INTEGER and isinstance(value, float):
            value = int(value)
        if one.role is Role.SEED and _is_minus_one(value) and not _is_drawn_by_worker(one):
            value = self._draw(one)
            self.drawn.append(f"the seed {one.name!r} was drawn: {value}")
        for target in one.targets:
            self.set.setdefault(target, value)

    def _draw(self, one: NamedInput) -> int:
        """A seed: the same for the same job, whoever asks."""
        least = max(0, int(one.minimum or 0))
        most = min(SEED_LIMIT - 1, int(one.maximum) if one.maximum is not None else SEED_LIMIT - 1)
        digest = hashlib.sha256(f"{self._seed}\n{one.name}".encode("utf-8", "replace")).digest()
        return least + int.from_bytes(digest[:16], "big") % max(1, most - least + 1)


def _is_drawn_by_worker(one: NamedInput) -> bool:
    """Whether a worker draws a seed of -1: a number for each, of inputs whose name says that they are one."""
    return len(one.targets) == 1 and one.targets[0].rpartition(".")[2] in SEED_INPUTS


def _is_address(value: object) -> bool:
    return isinstance(value, str) and is_address(as_address(value))


def _as_meant(value: object) -> object:
    return as_address(value) if isinstance(value, str) and _is_address(value) else value


def _is_minus_one(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == -1


def _refusal(version: Version, problems: Mapping[str, str]) -> InvalidRequest:
    errors = [{"field": name, "problem": problem} for name, problem in problems.items()][:MAX_REQUEST_ERRORS]
    listing = "; ".join(f"{one['field']}: {one['problem']}" for one in errors[:_MOST_SHOWN])
    return InvalidRequest(
        f"The workflow {version.name!r} (version {version.number}) cannot run so: {listing}."[:MAX_ERROR_TEXT],
        details={"errors": errors, WORKFLOW_LABEL: version.name, VERSION_LABEL: version.number},
    )
