"""Which packs of custom nodes ComfyUI could not import, as its own output tells. No IO.

ComfyUI goes on without them: it answers, and refuses every workflow that needs one of their classes. Nothing but these
lines says why (ComfyUI 0.3.64 and 0.33.0; the latter puts a level before them, in colours):

    Cannot import /opt/comfyui/custom_nodes/pack module for custom nodes: No module named 'cv2'
    Skip /opt/comfyui/custom_nodes/folder module for custom nodes due to the lack of NODE_CLASS_MAPPINGS …
       0.1 seconds (IMPORT FAILED): /opt/comfyui/custom_nodes/pack
    Starting server
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from comfy_serverless.redaction import redact_url

_STYLE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_SAID = re.compile(r"\b(?:Cannot import|Skip) (?P<path>\S.*?) module for custom nodes(?:: ?| due to )(?P<reason>.*)")
_LISTED = re.compile(r"\bIMPORT FAILED\)?: *(?P<path>\S.*)")
#: After them only jobs write, which must not be able to call a pack lost.
_IS_UP = re.compile(r"^(?:\[INFO\] *)?(?:Starting server|To see the GUI go to:)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")
_SECRET = re.compile(
    r"(?P<name>\b[\w-]*(?:token|password|passwd|secret|api[_-]?key|authorization)[\w-]*[\"']?\s*[=:]\s*)"
    r"(?:bearer\s+)?[^\s,;]+",
    re.IGNORECASE,
)
_TRACE = re.compile(r"Traceback \(most recent call last\):$")
_MOST_TRACE_LINES = 60
_LONGEST_REASON = 300
_MOST_PACKS = 200
_UNKNOWN = "ComfyUI does not say why: see its log"


@dataclass(frozen=True, slots=True)
class NotImported:
    """A pack of custom nodes that did not import.

    Attributes:
        pack: the name of its folder or file below `custom_nodes`; of ComfyUI's own nodes the file.
        reason: one line, without secrets of addresses.
        path: where it is, for ComfyUI.
        classes: the names of classes that its source seems to declare; empty until somebody has looked.
        trace: the last lines of the traceback, of the exception that ended it.
    """

    pack: str
    reason: str
    path: str = ""
    classes: frozenset[str] = frozenset()
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.pack} ({self.reason})"


class ImportReport:
    """Reads the output of one start, line by line. One thread may write, others read."""

    def __init__(self) -> None:
        self._found: dict[str, NotImported] = {}
        self._last_line = ""
        self._trace: list[str] | None = None
        self._is_over = False
        #: The packs found so far.
        self.not_imported: tuple[NotImported, ...] = ()

    def see(self, line: str) -> None:
        """Take the next line."""
        if self._is_over:
            return
        line = _STYLE.sub("", line).rstrip()
        self._see_trace(line)
        line = line.strip()
        if _IS_UP.search(line):
            self._is_over = True
        elif said := _SAID.search(line):
            # An exception without words leaves its name at the end of the traceback before this line.
            self._add(said["path"], said["reason"] or self._last_line)
        elif listed := _LISTED.search(line):
            self._add(listed["path"], "")
        self._last_line = line or self._last_line

    def _see_trace(self, line: str) -> None:
        """Keep the traceback that the next pack is blamed with: only the last, where one exception led to another."""
        if _TRACE.search(line):
            self._trace = []
        elif self._trace is not None and line.strip() and not _SAID.search(line):
            self._trace = [*self._trace[-_MOST_TRACE_LINES + 1 :], _readable(line)]

    def _add(self, path: str, reason: str) -> None:
        # ComfyUI's own nodes are listed by name alone, after the lines that have their path.
        name = PurePosixPath(path.strip()).name
        found = self._found.get(name) or NotImported(_readable(name), _UNKNOWN, path.strip())
        if len(self._found) < _MOST_PACKS or name in self._found:
            trace, self._trace = tuple(self._trace or ()), None
            self._found[name] = replace(found, reason=_readable(reason), trace=trace) if reason else found
            self.not_imported = tuple(self._found.values())


def _readable(text: str) -> str:
    """One line of printable text without secrets."""
    text = "".join(character if character.isprintable() else " " for character in text)
    text = _SECRET.sub(r"\g<name>…", _URL.sub(lambda url: redact_url(url[0]), text))
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
