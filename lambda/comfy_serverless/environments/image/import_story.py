"""What is known of a pack that did not import: ComfyUI's words, the lock, and what the image has. No IO."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from comfy_serverless.connector.import_report import NotImported
from comfy_serverless.environments.image import module_names as names
from comfy_serverless.environments.lock_file import MORE_REQUIREMENTS

PYTHON: Final = "3.11"
_LET_IT: Final = "or let it fail: --build-arg ALLOW_IMPORT_FAILURES={pack}"

_OF_PROGRAMS: Final = ("FileNotFoundError", "ExecutableNotFoundError", "CalledProcessError", "PermissionError")


class Kind(StrEnum):
    """What was wrong; the value is its name in JSON."""

    MISSING_MODULE = "missing_module"
    MISSING_SYSTEM_LIBRARY = "missing_system_library"
    MISSING_PROGRAM = "missing_program"
    ABI = "built_for_another_version"
    COMPILER = "needs_a_compiler"
    INSTALLS = "installs_at_import"
    WRITES = "writes_where_it_cannot"
    NETWORK = "needs_the_network"
    GPU = "needs_a_gpu"
    NO_CLASSES = "no_node_classes"
    LIBRARY_VERSION = "another_version_of_a_library"
    COMFYUI_VERSION = "another_comfyui"
    SYNTAX = "another_python"
    MISSING_FILE = "missing_file"
    DIED = "ended_comfyui"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Library:
    """A library of the image: its version, and the lines that asked for it, as in the lock."""

    version: str
    declared_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the image.

    Attributes:
        libraries: those of the lock and what else is installed, by their normal names.
        declared: the lines of the packs' requirements.txt, by pack.
        more: the lines of more-requirements.txt.
        modules: which library has a module, of those that are installed.
        is_locked: whether there is a lock to speak of. Without one nothing is said about who declared what.
        own_modules: by pack, the names at its top, without `.py`.
    """

    libraries: Mapping[str, Library] = field(default_factory=dict)
    declared: Mapping[str, Sequence[str]] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    more: Sequence[str] = ()
    is_locked: bool = True
    own_modules: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a pack did not import.

    Attributes:
        what: the sentence that says it, with the name of what is missing.
        declared: who asked for it, or that nobody did; empty where the question makes no sense.
        do: what to do.
        subject: the module, library, file or host that it is about.
    """

    kind: Kind
    what: str
    do: str
    declared: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """What the rules read."""

    lost: NotImported
    known: Known
    mode: str
    last: str
    exception: str
    reason: str

    @property
    def pack(self) -> str:
        return self.lost.pack

    @property
    def text(self) -> str:
        return f"{self.reason}\n{self.last}"

    @property
    def frames(self) -> list[str]:
        return re.findall(r'File "([^"]+)", line \d+', "\n".join(self.lost.trace))

    @property
    def place(self) -> str:
        """Where in the pack it happened, e.g. ` (nodes.py, line 3)`."""
        for path, line in reversed(re.findall(r'File "([^"]+)", line (\d+)', "\n".join(self.lost.trace))):
            if _is_below(path, self.lost.path):
                return f" ({path.removeprefix(self.lost.path).lstrip('/') or self.pack}, line {line})"
        return ""

    @property
    def through(self) -> str:
        """The library in whose code it happened, by the name of its folder; empty if that is the pack's own."""
        for path in reversed(self.frames):
            if _is_below(path, self.lost.path):
                return ""
            if found := re.search(r"/(?:site|dist)-packages/([^/]+?)(?:\.py)?(?:/|$)", path):
                return found[1]
        return ""

    @property
    def let_it(self) -> str:
        return _LET_IT.format(pack=self.pack)

    @property
    def program(self) -> str:
        """The program that could not be run; empty if that is not what happened."""
        if self.exception not in _OF_PROGRAMS:
            return ""
        found = re.search(r"No such file or directory: '([^'/]+)'|Command '\[?'([^']+)'", self.text)
        return next((group for group in found.groups() if group), "").rpartition("/")[2] if found else ""

    @property
    def installs(self) -> list[str]:
        """What pip was told to install, as far as the message shows its command."""
        found = re.search(r"'install',? ((?:'[^']+',? ?)+)", self.text)
        words = re.findall(r"'([^']+)'", found[1]) if found else []
        library = re.compile(r"[A-Za-z0-9][\w.\[\],<>=!~ -]*(?<!\.txt)")
        return [word for word in words if library.fullmatch(word)]

    @property
    def library_in_path(self) -> str:
        """The library whose file is named in the message."""
        found = re.search(r"/(?:site|dist)-packages/([^/\s'\"]+)", self.text)
        return re.sub(r"\.cpython.*|\.(?:py|so).*", "", found[1]) if found else ""

    def declared(self, library: str) -> str:
        """Who asks for a library: lines of the lock, of this pack's and of others' requirements; or nobody."""
        if not self.known.is_locked:
            return ""
        group = names.same_module(library)
        said = [
            line
            for name in sorted(group)
            if name in self.known.libraries
            for line in self.known.libraries[name].declared_by
        ]
        if said:
            return f"asked for by {', '.join(said[:4])}"
        lines = [
            f"{pack}: {line}"
            for pack, wanted in {**self.known.declared, MORE_REQUIREMENTS: self.known.more}.items()
            for line in wanted
            if names.normal(re.split(r"[^A-Za-z0-9._-]", line.strip(), maxsplit=1)[0]) in group
        ]
        if lines:
            return (
                f"declared by {', '.join(lines[:4])}, and yet not in the lock (a marker, or an override, leaves it out)"
            )
        return "declared by nobody: no requirements.txt of a pack names it"

    def installed(self, library: str) -> str:
        """`numpy 2.4.6`, or its name alone."""
        found = self.known.libraries.get(names.normal(library))
        return f"{library} {found.version}" if found else library


def exception_of(last: str) -> str:
    """`ModuleNotFoundError` of `ModuleNotFoundError: No module named 'cv2'`."""
    found = re.match(r"[\w./-]*?([A-Za-z_]\w*)(?::|$)", last)
    return found[1] if found else ""


def _is_below(path: str, folder: str) -> bool:
    return bool(folder) and (path == folder or path.startswith(f"{folder}/"))
