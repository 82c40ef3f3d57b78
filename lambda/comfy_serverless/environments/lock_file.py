"""`comfy-build.lock`: what an environment is, to the byte. Machines write and read it; it is committed.

JSON with sorted keys, so that two locks are compared line by line. It has no times, no paths of a machine and no
address of an index: the same inputs make the same bytes, whoever locks them. Every key of the classes below is there,
null where there is nothing to say; other keys, of an older or a newer release, are not read. Standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, get_args

from comfy_serverless.errors import InvalidLock

SCHEMA: Final = "comfy-serverless-lock/1"
#: What the image has: see the Dockerfile.
#: Beside the build file: libraries that packs need and do not declare. See `locking.more_requirements`.
MORE_REQUIREMENTS: Final = "more-requirements.txt"
PYTHON: Final = "3.11"
PLATFORM: Final = "x86_64-manylinux_2_36"

PackSource = Literal["registry", "git", "local"]
RequirementKind = Literal["wheel", "sdist", "git", "url"]
_VERSION_DIGITS: Final = 12
#: What pip, apt and git are given. The build reads locks by itself (comfyui/lock_reading.py), before our code is there,
#: and by the same forms: tests/unit/image/test_lock_readings.py.
NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
SHA256: Final = re.compile(r"[0-9a-f]{64}")
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
PACK: Final = re.compile(r"[^\s/\\:*?\"<>|\x00-\x1f][^/\\:*?\"<>|\x00-\x1f]*")
APT: Final = re.compile(r"[a-z0-9][a-z0-9+.:=~-]+")
URL: Final = re.compile(r"(?:git\+)?(?:https?|file|ssh)://[^\s'\"]+")
_AT_A_COMMIT: Final = re.compile(r"@[0-9a-f]{40}(?:#\S*)?$")
_Entry = TypeVar("_Entry")


@dataclass(frozen=True, slots=True)
class ComfyUI:
    """ComfyUI itself.

    Attributes:
        ref: what was asked for: a tag, a branch or a commit.
        commit: what that was, 40 hexadecimal digits.
        version: its own, of `comfyui_version.py`.
    """

    repository: str
    ref: str
    commit: str
    version: str


@dataclass(frozen=True, slots=True)
class InstallScript:
    """A script of a pack that ComfyUI-Manager would run, and nothing here does.

    Attributes:
        fetches: addresses and commands that stand in it.
    """

    file: str
    fetches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LockedPack:
    """A pack of custom nodes.

    Attributes:
        name: its folder below `custom_nodes`.
        version: of the registry; None for the other sources.
        ref: what was asked for of a repository; `commit` is what that was.
        url: where the archive of the registry is.
        sha256: of the registry's archive, else of the ZIP that `tree_zip.write` makes of the tree.
        size: of that, in bytes.
        requirements: the lines of its requirements.txt that ask for a library, as declared.
    """

    name: str
    id: str | None
    source: PackSource
    version: str | None
    ref: str | None
    repository: str | None
    commit: str | None
    url: str | None
    sha256: str
    size: int
    requirements: tuple[str, ...]
    install_scripts: tuple[InstallScript, ...]


@dataclass(frozen=True, slots=True)
class LockedRequirement:
    """A library.

    Attributes:
        hashes: `sha256:…` of each file that may be installed; none of a repository, whose commit is its content.
        size: of the wheel (`sdist`, `url`: of that file), in bytes; None where nobody says.
        url: of kind `git` (`git+https://…@commit`) and `url` alone; an index is never named.
        declared_by: who asks for it: `ComfyUI: numpy>=1.25`, `pack-name: numpy<2`, `scipy 1.16.0: numpy>=1.25.2`.
    """

    name: str
    version: str
    hashes: tuple[str, ...]
    size: int | None
    kind: RequirementKind
    url: str | None
    declared_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LockedModel:
    """A model. `url` or `local_path` (below `models/` of the machine that has it) says where from."""

    filename: str
    type: str
    sha256: str | None
    size: int | None
    url: str | None
    local_path: str | None


@dataclass(frozen=True, slots=True)
class Lock:
    """The whole file.

    Attributes:
        inputs_sha256: over all that was asked: see `inputs_sha256`.
        torch: the versions of torch and its kin, which the image has from `requirements/torch*.txt`.
        apt: packages of Debian.
        build_requirements: what builds the libraries of kind `sdist`, `git` and (where it is no wheel) `url`.
        overrides: the lines of pipDependencies that were applied.
        more_requirements: the lines of more-requirements.txt; the key is missing where there are none.
    """

    inputs_sha256: str
    comfyui: ComfyUI
    torch: Mapping[str, str] = dataclasses.field(default_factory=dict)
    apt: tuple[str, ...] = ()
    packs: tuple[LockedPack, ...] = ()
    requirements: tuple[LockedRequirement, ...] = ()
    build_requirements: tuple[LockedRequirement, ...] = ()
    overrides: tuple[str, ...] = ()
    models: tuple[LockedModel, ...] = ()
    warnings: tuple[str, ...] = ()
    more_requirements: tuple[str, ...] = ()
    python: str = PYTHON
    platform: str = PLATFORM

    @classmethod
    def parse(cls, text: str, *, name: str = "comfy-build.lock") -> Lock:
        """Read a lock.

        Raises:
            InvalidLock: it is none, of another schema, or a value in it is of the wrong form; the message has the key.
        """
        document = _document(text, name)
        try:
            return _lock(document)
        except (_WrongForm, KeyError, TypeError) as error:
            what = f"the key {error}" if isinstance(error, KeyError) else str(error)
            why = f"{what} is missing" if isinstance(error, KeyError) else what
            raise InvalidLock(f"{name} is damaged: {why}. Make it anew: comfy-serverless env lock.") from error

    def to_text(self) -> str:
        """The file's text; entries are sorted, whatever their order here."""
        document = {
            **dataclasses.asdict(self),
            "schema": SCHEMA,
            "apt": sorted(self.apt),
            "packs": _sorted(self.packs),
            "requirements": _sorted(self.requirements),
            "build_requirements": _sorted(self.build_requirements),
            "overrides": sorted(self.overrides),
            "models": [dataclasses.asdict(model) for model in sorted(self.models, key=_model_place)],
            "more_requirements": sorted(self.more_requirements),
            "warnings": sorted(set(self.warnings)),
        }
        if not self.more_requirements:  # so that a lock of earlier days stays as it is
            del document["more_requirements"]
        return json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def release_version(text: str) -> str:
    """The name of what a lock builds: the first 12 hexadecimal digits of the SHA-256 of its bytes."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:_VERSION_DIGITS]


def inputs_sha256(asked: Mapping[str, Any], *, torch_in: str, apt_txt: str) -> str:
    """The SHA-256 of all that a lock is asked for; comments and blank lines of the two files do not count.

    Args:
        asked: what the build file says, as JSON that does not depend on the order of its entries.
        torch_in: the text of requirements/torch.in, `apt_txt` that of requirements/apt.txt.
    """
    inputs = {
        "schema": SCHEMA,
        "asked": asked,
        "torch": sorted(lines_of(torch_in)),
        "apt": sorted(lines_of(apt_txt)),
        "python": PYTHON,
        "platform": PLATFORM,
    }
    canonical = json.dumps(inputs, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def lines_of(text: str) -> list[str]:
    """The lines of a list, without comments and blank ones."""
    stripped = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in stripped if line]


class _WrongForm(Exception):
    """A value is not what it should be; the message names it."""


def _document(text: str, name: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        conflict = " It has marks of a merge: take either side, then lock anew." if "<<<<<<<" in text else ""
        raise InvalidLock(f"{name} is no JSON: {error}.{conflict} Make it anew: comfy-serverless env lock.") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else None
        raise InvalidLock(
            f"{name} is no lock that this version reads: its schema is {found!r} and not {SCHEMA!r}. "
            f"Make it anew: comfy-serverless env lock."
        )
    return document


def _lock(document: Mapping[str, Any]) -> Lock:
    comfyui = document["comfyui"]
    return Lock(
        inputs_sha256=_matching(document["inputs_sha256"], SHA256, "inputs_sha256"),
        python=_text(document["python"], "python"),
        platform=_text(document["platform"], "platform"),
        comfyui=ComfyUI(
            repository=_matching(comfyui["repository"], URL, "comfyui.repository", "address"),
            ref=_text(comfyui["ref"], "comfyui.ref"),
            commit=_matching(comfyui["commit"], COMMIT, "comfyui.commit"),
            version=_text(comfyui["version"], "comfyui.version"),
        ),
        torch={name: _text(version, f"torch.{name}") for name, version in document["torch"].items()},
        apt=tuple(_matching(name, APT, "apt", "package of Debian") for name in _texts(document["apt"], "apt")),
        packs=_each(document["packs"], "packs", _pack),
        requirements=_libraries(document, "requirements"),
        build_requirements=_libraries(document, "build_requirements"),
        overrides=_texts(document["overrides"], "overrides"),
        models=_each(document["models"], "models", _model),
        warnings=_texts(document["warnings"], "warnings"),
        more_requirements=_texts(document.get("more_requirements", []), "more_requirements"),
    )


def _pack(entry: Mapping[str, Any], where: str) -> LockedPack:
    name = _matching(entry["name"], PACK, f"{where}.name", "folder's name")
    if name in {".", ".."}:
        raise _WrongForm(f"{where}.name is {name!r}, which is no folder's name")
    commit, source = entry["commit"], _one_of(entry["source"], get_args(PackSource), f"{where}.source")
    if source == "git":
        _matching(commit, COMMIT, f"{where}.commit")
        _matching(entry["repository"], URL, f"{where}.repository", "address")
    if source == "registry":
        _matching(entry["url"], URL, f"{where}.url", "address")
    return LockedPack(
        name=name,
        id=_text_or_none(entry["id"], f"{where}.id"),
        source=source,
        version=_text_or_none(entry["version"], f"{where}.version"),
        ref=_text_or_none(entry["ref"], f"{where}.ref"),
        repository=_text_or_none(entry["repository"], f"{where}.repository"),
        commit=None if commit is None else _matching(commit, COMMIT, f"{where}.commit"),
        url=_text_or_none(entry["url"], f"{where}.url"),
        sha256=_matching(entry["sha256"], SHA256, f"{where}.sha256"),
        size=_size(entry["size"], f"{where}.size"),
        requirements=_texts(entry["requirements"], f"{where}.requirements"),
        install_scripts=_each(entry["install_scripts"], f"{where}.install_scripts", _install_script),
    )


def _install_script(entry: Mapping[str, Any], where: str) -> InstallScript:
    return InstallScript(_text(entry["file"], f"{where}.file"), _texts(entry["fetches"], f"{where}.fetches"))


def _libraries(document: Mapping[str, Any], key: str) -> tuple[LockedRequirement, ...]:
    found = _each(document[key], key, _requirement)
    seen: set[str] = set()
    for one in found:
        if (name := re.sub(r"[-_.]+", "-", one.name).lower()) in seen:
            raise _WrongForm(f"{key} has the library {name} twice")
        seen.add(name)
    return found


def _requirement(entry: Mapping[str, Any], where: str) -> LockedRequirement:
    hashes = _texts(entry["hashes"], f"{where}.hashes")
    for known in hashes:
        algorithm, _, digits = known.partition(":")
        if algorithm != "sha256":
            raise _WrongForm(f"{where}.hashes has {known!r}, and not sha256:…")
        _matching(digits, SHA256, f"{where}.hashes")
    kind = _one_of(entry["kind"], get_args(RequirementKind), f"{where}.kind")
    if kind != "git" and not hashes:
        raise _WrongForm(f"{where} has no hash")
    if kind in {"git", "url"}:
        url = _matching(entry["url"], URL, f"{where}.url", "address")
        if kind == "git" and _AT_A_COMMIT.search(url) is None:
            raise _WrongForm(f"{where}.url has no commit")
    return LockedRequirement(
        name=_matching(entry["name"], NAME, f"{where}.name", "library's name"),
        version=_matching(entry["version"], VERSION, f"{where}.version", "version"),
        hashes=hashes,
        size=None if entry["size"] is None else _size(entry["size"], f"{where}.size"),
        kind=kind,
        url=_text_or_none(entry["url"], f"{where}.url"),
        declared_by=_texts(entry["declared_by"], f"{where}.declared_by"),
    )


def _model(entry: Mapping[str, Any], where: str) -> LockedModel:
    sha256 = entry["sha256"]
    return LockedModel(
        filename=_text(entry["filename"], f"{where}.filename"),
        type=_text(entry["type"], f"{where}.type"),
        sha256=None if sha256 is None else _matching(sha256, SHA256, f"{where}.sha256"),
        size=None if entry["size"] is None else _size(entry["size"], f"{where}.size"),
        url=_text_or_none(entry["url"], f"{where}.url"),
        local_path=_text_or_none(entry["local_path"], f"{where}.local_path"),
    )


def _sorted(entries: Iterable[LockedPack | LockedRequirement]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(entry) for entry in sorted(entries, key=lambda entry: (entry.name.lower(), entry.name))]


def _model_place(model: LockedModel) -> tuple[str, str, str]:
    return model.type, model.filename, model.sha256 or ""


def _each(value: object, where: str, read: Callable[[Mapping[str, Any], str], _Entry]) -> tuple[_Entry, ...]:
    if not isinstance(value, list):
        raise _WrongForm(f"{where} is no list")
    return tuple(read(entry, f"{where}[{place}]") for place, entry in enumerate(value))


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _WrongForm(f"{where} is {value!r} and no text")
    return value


def _text_or_none(value: object, where: str) -> str | None:
    return None if value is None else _text(value, where)


def _texts(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _WrongForm(f"{where} is no list")
    return tuple(_text(text, where) for text in value)


def _size(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _WrongForm(f"{where} is {value!r} and no number of bytes")
    return value


def _matching(value: object, form: re.Pattern[str], where: str, what: str = "hash") -> str:
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise _WrongForm(f"{where} is {value!r}, which is no {what}")
    return value


def _one_of(value: object, known: Sequence[Any], where: str) -> Any:  # noqa: ANN401 - a Literal of the caller's
    if value not in known:
        raise _WrongForm(f"{where} is {value!r} and none of {', '.join(known)}")
    return value
