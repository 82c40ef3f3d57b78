"""What a pack's requirements.txt asks for, read as pip reads it: markers, options, files that it names, any encoding.

Only the image's Python and platform count: a line for Windows asks for nothing. What pip would do beyond installing
libraries (another index, an editable folder) is not done, and told.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from comfy_serverless.environments.build_file import rules
from comfy_serverless.environments.lock_file import MORE_REQUIREMENTS, PYTHON
from comfy_serverless.redaction import redact_addresses

if TYPE_CHECKING:
    from packaging.requirements import Requirement

#: Of markers: https://packaging.python.org/en/latest/specifications/dependency-specifiers/
MARKERS: Final = {
    "implementation_name": "cpython",
    "implementation_version": f"{PYTHON}.2",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "python_full_version": f"{PYTHON}.2",
    "python_version": PYTHON,
    "sys_platform": "linux",
    "extra": "",
}
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CODING: Final = re.compile(rb"coding[:=]\s*([-\w.]+)")
_COMMENT: Final = re.compile(r"(^|\s+)#.*$")
_FILE_OPTION: Final = re.compile(
    r"(?:-r\s*|--requirement(?:\s+|=))(?P<file>.+)|(?:-c\s*|--constraint(?:\s+|=))(?P<limit>.+)"
)
_EDITABLE: Final = re.compile(r"(?:-e\s+|--editable(?:\s+|=))(?P<what>.+)")
_INDEX: Final = re.compile(r"(?:-i|--index-url|--extra-index-url|-f|--find-links|--no-index)\b")
_LINE_OPTION: Final = re.compile(r"\s+--(?P<name>[a-z-]+)(?:[= ]\s*(?P<value>\S+))?")
_VARIABLE: Final = re.compile(r"\$\{[A-Z0-9_]+\}")
_GIT: Final = re.compile(r"git\+(?:https|http|ssh|git|file)://\S+")
_WEB: Final = re.compile(r"https?://\S+")
_MOST_FILES: Final = 50


@dataclass(frozen=True, slots=True)
class Declared:
    """A line that asks for a library, or limits one.

    Attributes:
        source: who asks: "ComfyUI", a pack's folder, or a file of one's own.
        text: the line as declared, without comment.
        name: the library's, normalized; "" of an address that does not say it.
        requirement: what uv and pip are given.
        is_limit: whether it comes from a constraints file: it asks for nothing, and limits what others ask for.
        hashes: of `--hash` options, `sha256:…`.
    """

    source: str
    file: str
    line: int
    text: str
    name: str
    requirement: str
    is_limit: bool = False
    hashes: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Who and where, for messages."""
        return _place(self.source, self.file, self.line)

    def __str__(self) -> str:
        return f"{self.source}: {self.text}"


@dataclass(slots=True)
class Declarations:
    """What one source asks for.

    Attributes:
        warnings: what pip would have done beside, and is not done.
        problems: lines that nobody can install.
    """

    lines: list[Declared] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read(folder: Path, source: str, *, file: str = "requirements.txt") -> Declarations:
    """Read a requirements file below a folder, and those that it names. None there: nothing is asked for."""
    found = Declarations()
    path = _as_written(folder, file)
    if path is not None:
        _Reader(folder, source, found).read_file(path, is_limit=False)
    return found


def read_text(text: str, source: str, *, file: str = "") -> Declarations:
    """Read lines that belong to no folder: those of pipDependencies, and of more-requirements.txt."""
    found = Declarations()
    reader = _Reader(None, source, found)
    for number, line in _logical_lines(text):
        reader.read_line(line, file, number, is_limit=False)
    return found


def lines_in(text: str) -> list[str]:
    """The lines of a requirements file that say something, in their order, without comments."""
    return [line for _, line in _logical_lines(text)]


def decoded(content: bytes) -> str:
    """The text of a requirements file: a byte order mark, else `coding:` in its first two lines, else UTF-8."""
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return content.decode(encoding, "replace").removeprefix("\ufeff")
    for line in content.split(b"\n")[:2]:
        said = _CODING.search(line) if line.startswith(b"#") else None
        if said is not None:
            try:
                return content.decode(said[1].decode("ascii"))
            except (LookupError, UnicodeDecodeError):
                break
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def normalized(name: str) -> str:
    """`Foo_Bar` -> `foo-bar`."""
    return re.sub(r"[-_.]+", "-", name).lower()


@lru_cache(maxsize=4096)
def requirement_of(text: str) -> Requirement | None:
    """A line's meaning; None if it has none."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


def holds(text: str) -> bool:
    """Whether a line is for the image's Python and platform."""
    requirement = requirement_of(text)
    return requirement is None or requirement.marker is None or requirement.marker.evaluate(MARKERS)


def admits(text: str, version: str) -> bool:
    """Whether what is asked for includes a version; an address includes every one."""
    requirement = requirement_of(text)
    return (
        requirement is None or requirement.url is not None or requirement.specifier.contains(version, prereleases=True)
    )


class _Reader:
    def __init__(self, folder: Path | None, source: str, found: Declarations) -> None:
        self._folder, self._source, self._found = folder, source, found
        self._seen: set[tuple[Path, bool]] = set()

    def read_file(self, path: Path, *, is_limit: bool) -> None:
        if (path, is_limit) in self._seen or len(self._seen) >= _MOST_FILES or self._folder is None:
            return
        self._seen.add((path, is_limit))
        name = path.relative_to(self._folder).as_posix()
        for number, line in _logical_lines(decoded(path.read_bytes())):
            self.read_line(line, name, number, is_limit=is_limit)

    def read_line(self, line: str, file: str, number: int, *, is_limit: bool) -> None:
        where = _place(self._source, file, number)
        if _VARIABLE.search(line):
            self._problem(where, line, "has a variable of somebody's machine in it; nobody can say what it stands for")
        elif (other := _FILE_OPTION.fullmatch(line)) is not None:
            self._read_other(other["file"] or other["limit"], file, where, line, is_limit or other["limit"] is not None)
        elif (editable := _EDITABLE.fullmatch(line)) is not None and not editable["what"].startswith("git+"):
            self._local(where, line)
        elif _INDEX.match(line):
            self._found.warnings.append(
                f"{where} names an index of its own, `{redact_addresses(line)}`: it is not used. Where a library comes "
                "from there only, set UV_INDEX to it and lock anew."
            )
        elif line.startswith("-") and editable is None:
            self._found.warnings.append(
                f"{where} has an option for pip, `{redact_addresses(line)}`: it is not applied."
            )
        else:
            self._read_requirement(editable["what"] if editable else line, line, file, number, where, is_limit=is_limit)

    def _read_other(self, named: str, file: str, where: str, line: str, is_limit: bool) -> None:
        named = named.strip().strip("\"'")
        if self._folder is None:
            self._problem(where, line, "names another file: write the lines of that in its place")
            return
        if "://" in named:
            self._problem(where, line, "names a file that is not part of it, and may be another one tomorrow")
            return
        path = _as_written(self._folder, (Path(file).parent / named).as_posix())
        if path is None:
            self._problem(where, line, "names a file that is not there")
            return
        self.read_file(path, is_limit=is_limit)

    def _read_requirement(self, wanted: str, line: str, file: str, number: int, where: str, *, is_limit: bool) -> None:
        hashes = tuple(match["value"] for match in _LINE_OPTION.finditer(wanted) if match["name"] == "hash")
        others = sorted({match["name"] for match in _LINE_OPTION.finditer(wanted)} - {"hash"})
        wanted = _LINE_OPTION.sub("", wanted).strip()
        if others:
            self._found.warnings.append(f"{where} has options for pip, --{', --'.join(others)}: they are not applied.")
        made = _address(wanted)
        if made is None and _is_path(wanted):
            self._local(where, line)
            return
        requirement = requirement_of(made or wanted)
        if requirement is None and not (made and _unnamed(made)):
            self._problem(where, line, _hint(wanted))
            return
        if not holds(made or wanted):
            return
        address = (requirement.url if requirement is not None else made) or ""
        if address and (why := rules.library_address(address.rpartition(" @ ")[2].partition(" ;")[0])):
            self._problem(where, line, why)
            return
        name = normalized(requirement.name) if requirement is not None else ""
        self._found.lines.append(
            Declared(self._source, file, number, wanted, name, made or _plain(wanted), is_limit, hashes)
        )

    def _local(self, where: str, line: str) -> None:
        if self._folder is None:
            self._problem(where, line, "is a folder or file of somebody's machine: name a version, or a repository")
            return
        self._found.warnings.append(
            f"{where} asks for a folder or file of the pack itself, `{line}`: it is not installed. If the pack does "
            f"not import without it, publish it as a library, and name that in {MORE_REQUIREMENTS}."
        )

    def _problem(self, where: str, line: str, why: str) -> None:
        self._found.problems.append(f"{where}: `{redact_addresses(line)}` {why}.")


def _place(source: str, file: str, line: int) -> str:
    if not file:
        return source
    return f"{source}, line {line}" if file == source else f"{source} ({file}, line {line})"


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that say something, with the number of each one's first: `\\` joins two, `#` begins a comment."""
    joined, first = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        first = first or number
        if line.endswith("\\") and not _COMMENT.match(line):
            joined += line[:-1]
            continue
        whole = _COMMENT.sub("", joined + line).strip()
        if whole:
            yield first, whole
        joined, first = "", 0
    if whole := _COMMENT.sub("", joined).strip():
        yield first, whole


def _as_written(folder: Path, file: str) -> Path | None:
    """A file below a folder; None if it is not there, or leads out of it."""
    path = (folder / file).resolve()
    root = folder.resolve()
    if not path.is_relative_to(root) or not path.is_file():
        return None
    return folder / path.relative_to(root)


def _address(wanted: str) -> str | None:
    """What an address is as a requirement with a name, where it says one; None if it is no address."""
    git = wanted.startswith("git+")
    if (_GIT if git else _WEB).fullmatch(wanted.split(" ")[0].split(";")[0]) is None:
        return None
    address, _, marker = wanted.partition(" ;")
    bare, _, fragment = address.strip().partition("#")
    said = dict(part.partition("=")[::2] for part in fragment.split("&") if part)
    egg = unquote(said.pop("egg", ""))
    name = re.match(r"[A-Za-z0-9._-]+(\[.*\])?", egg)
    rest = "&".join(f"{key}={value}" for key, value in said.items())
    named = name[0] if name else _name_of_file(bare)
    whole = bare + (f"#{rest}" if rest else "")
    return (f"{named} @ {whole}" if named else whole) + (f" ; {marker.strip()}" if marker else "")


def _name_of_file(address: str) -> str:
    file = unquote(urlsplit(address).path.rpartition("/")[2])
    if file.endswith(".whl"):
        return file.split("-")[0]
    sdist = re.fullmatch(r"(?P<name>.+)-\d[^-]*\.(?:tar\.gz|zip|tar\.bz2)", file)
    return sdist["name"] if sdist else ""


def _unnamed(made: str) -> bool:
    return _GIT.fullmatch(made) is not None or _WEB.fullmatch(made) is not None


def _is_path(wanted: str) -> bool:
    is_file = wanted.endswith((".whl", ".tar.gz", ".zip")) and " @ " not in wanted
    return is_file or wanted.startswith((".", "/", "~"))


def _plain(wanted: str) -> str:
    """A requirement without its marker, which holds."""
    return wanted.split(";")[0].strip() if " @ " not in wanted else wanted


def repository_of(address: str) -> tuple[str, str]:
    """The address of a repository and the ref behind it; "" if there is none. A user's `@` stands before the host."""
    bare = address.partition("#")[0]
    scheme, slashes, rest = bare.partition("://")
    host, slash, path = rest.partition("/")
    below, _, ref = path.rpartition("@") if "@" in path else (path, "", "")
    return f"{scheme}{slashes}{host}{slash}{below}", ref


def _hint(wanted: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._-]+(\[.*\])?\s*=\s*\d.*", wanted):
        return "is no requirement: a version is written with two signs, name==1.0"
    if re.search(r"(?:[<>]=?|~=)\s*[\d.]+\.\*", wanted):
        return "is no requirement: `.*` goes with == and != only"
    if " " in wanted.strip() and not re.search(r"[<>=!~@;\[]", wanted):
        return "is no requirement: one library a line"
    return "is no requirement that pip reads"
