"""The words for what cannot be locked: who asks for what, why it cannot be, and the lines for the build file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from comfy_serverless.environments.lock_file import MORE_REQUIREMENTS, PYTHON
from comfy_serverless.environments.locking.base import Base
from comfy_serverless.environments.locking.conflicts import Conflict
from comfy_serverless.environments.locking.requirement_lines import Declared, normalized
from comfy_serverless.environments.locking.resolver import NotAnswered
from comfy_serverless.errors import EnvironmentConflict, LibraryUnavailable, NotLocked

#: What people import is not always what it is called on the index.
_MEANT: Final = {
    "cv2": "opencv-python-headless", "pil": "Pillow", "sklearn": "scikit-learn", "skimage": "scikit-image",
    "yaml": "PyYAML", "bs4": "beautifulsoup4", "dotenv": "python-dotenv", "serial": "pyserial", "git": "GitPython",
    "attr": "attrs", "dateutil": "python-dateutil", "magic": "python-magic", "usb": "pyusb",
    "opencv": "opencv-python-headless", "pytorch": "torch", "clip": "open-clip-torch", "google": "protobuf",
}  # fmt: skip
_LONGEST: Final = 1500


def of_conflicts(conflicts: Sequence[Conflict], base: Base) -> NotLocked:
    """The error for all that has been found."""
    conflicts = [replace(each, override=None) if _is_own(each) else each for each in conflicts]
    problems = [_told(conflict, base) for conflict in conflicts]
    lines = [conflict.override for conflict in conflicts if conflict.override is not None]
    is_conflict = any(len(conflict.lines) > 1 or _torch_of(conflict, base) for conflict in conflicts)
    kind = EnvironmentConflict if is_conflict else LibraryUnavailable
    head = (
        "ComfyUI and its packs cannot be installed together"
        if is_conflict
        else "Not everything that is asked for can be had"
    )
    text = f"{head}.\n\n" + "\n\n".join(problems)
    if lines:
        which = "this line" if len(lines) == 1 else "these lines"
        text += (
            (
                f"\n\nPut {which} into definition.pipDependencies of the build file, and lock again "
                f"(it was tried: everything resolves with {'it' if len(lines) == 1 else 'them'}):\n\n"
                + "\n".join(lines)
            )
            if len(lines) == len(conflicts)
            else (
                f"\n\n{which.capitalize()} in definition.pipDependencies would resolve a part of it:\n\n"
                + "\n".join(lines)
            )
        )
    details = {"problems": problems, "override": lines}
    return kind(text, details=details)


def of_overrides(impossible: Iterable[tuple[Declared, str]]) -> NotLocked:
    """The error for overrides that cannot be had themselves, each with the resolver's words."""
    problems = [f"pipDependencies has {line.text}: {_why(said, line.name)}" for line, said in impossible]
    which = "that line, or take it out" if len(problems) == 1 else "those lines, or take them out"
    text = "\n".join([*problems, f"Change {which}: an override counts for everybody who asks for the library."])
    return LibraryUnavailable(text, details={"problems": problems})


def of_no_answer(error: NotAnswered, lines: Iterable[Declared]) -> NotLocked:
    """The error for a resolver that could not find out."""
    about = _lines_about(error.subject, lines)
    asked = f" {_asking(about)}." if about else ""
    said = f" The resolver says: {_short(str(error))}"
    if error.reason == "index":
        text = (
            f"The package index cannot be reached, so nothing was resolved.{asked} Another index is named with "
            f"UV_DEFAULT_INDEX, a proxy with HTTPS_PROXY.{said}"
        )
        return LibraryUnavailable(text, details={"problems": [text], "reason": error.reason})
    if error.reason == "login":
        text = (
            "The package index lets nobody in without a user and password, and it was given none, or wrong ones, so "
            "nothing was resolved. They belong in its address (UV_DEFAULT_INDEX), in UV_INDEX_<NAME>_USERNAME and "
            f"UV_INDEX_<NAME>_PASSWORD, or in ~/.netrc.{said}"
        )
        return LibraryUnavailable(text, details={"problems": [text], "reason": error.reason})
    if error.reason == "fetch":
        what = error.subject or "An address that is asked for"
        text = (
            f"{what} cannot be fetched: the address, the branch or the right to read it is wrong, or its host does not "
            f"answer.{asked}{said}"
        )
    elif error.reason == "build":
        what = error.subject or "A library"
        text = (
            f"{what} comes as sources that do not even say what they need unless they are built, and that failed here."
            f"{asked} Take a version that has a wheel for Python {PYTHON} on Linux, or install what the build misses."
            f"{said}"
        )
    else:
        text = f"The resolver has failed.{asked}{said}"
    return LibraryUnavailable(text, details={"problems": [text], "reason": error.reason})


def _told(conflict: Conflict, base: Base) -> str:
    if not conflict.lines:
        needs = "What the image's torch needs (requirements/torch-needs.in) cannot be had."
        return f"{needs} The resolver says: {_short(conflict.said)}"
    if len(conflict.lines) == 1 and not (torch := _torch_of(conflict, base)):
        return _told_alone(conflict)
    torch = _torch_of(conflict, base)
    rows = [f"  {line.place} asks for {line.text}{_because(line, conflict)}" for line in conflict.lines]
    rows += [f"  the image has {name} {base.torch[name]} (requirements/torch.in)" for name in torch]
    head = f"{conflict.library or conflict.lines[0].text}: no version is what all of them ask for."
    return "\n".join([head, *rows, *_way_out(conflict)])


def _told_alone(conflict: Conflict) -> str:
    line = conflict.lines[0]
    asks = f"{line.place} asks for {line.text}"
    library = conflict.library or line.name
    inner = (
        ""
        if library == line.name
        else f", which needs {library} (through {conflict.through.get(line.name, line.name)})"
    )
    return "\n".join([f"{asks}{inner}: {_why(conflict.said, library)}", *_way_out(conflict)])


def _why(said: str, library: str) -> str:
    """Why one library cannot be had, by the resolver's words."""
    lowered = said.lower()
    if "was not found in" in lowered:
        missing = normalized(match[1]) if (match := re.search(r"([\w.-]+) was not found in", said)) else library
        meant = _MEANT.get(missing, "")
        return f"the index has no library of the name {missing}" + (f"; is {meant} meant?" if meant else ".")
    if match := re.search(r"requires Python\s*(\S+?),?\s", said) or re.search(r"depends on Python\s*(\S+)", said):
        return f"it is for Python {match[1].rstrip(',')} only, and the image has Python {PYTHON}."
    if (
        "has no wheels with a matching" in lowered
        or "no wheels are usable" in lowered
        or "only wheels are available" in lowered
    ):
        platforms = re.search(r"on the following platforms?: (.*?)(?:$|hint:)", said)
        are = f" (there are wheels for {platforms[1].strip().replace('`', '')})" if platforms else ""
        return f"it has no wheel for Linux (x86_64) and Python {PYTHON}, and no sources{are}."
    if "yanked" in lowered:
        return "its author has taken the versions back that would fit (yanked)."
    known = re.search(r"only ((?:[\w.-]+)[<>=][^\s]*(?:\s+[<>=]\S+)*) (?:is|are) available", said)
    if known:
        return f"there is no such version; the index has {known[1]}."
    if "there is no version of" in lowered or "there are no versions of" in lowered:
        return "the index has no such version of it."
    return f"it cannot be resolved, not even alone. The resolver says: {_short(said)}"


def _is_own(conflict: Conflict) -> bool:
    """Whether it is of lines that whoever locks has written: those are changed, and nothing is overridden."""
    return bool(conflict.lines) and all(line.source == MORE_REQUIREMENTS for line in conflict.lines)


def _way_out(conflict: Conflict) -> list[str]:
    if _is_own(conflict):
        which = "that line, or take it out" if len(conflict.lines) == 1 else "one of those lines, or take it out"
        return [f"  Change {which}: {MORE_REQUIREMENTS} is yours."]
    if conflict.override is None:
        advice = "take another version of a pack, or a copy of it (source: local) that asks for less"
        return [f"  No single override resolves it: {advice}. The resolver says: {_short(conflict.said)}"]
    if conflict.leaves_out:
        better = "another version of the pack, or a copy of it (source: local) that does not ask for it"
        return [f"  It can only be left out, and the pack may not import then: {conflict.override}. Better: {better}."]
    goes = f", which goes against {_listed(conflict.against)}" if conflict.against else ""
    return [f"  The smallest override: {conflict.override}{goes}."]


def _because(line: Declared, conflict: Conflict) -> str:
    if line.name == conflict.library:
        return ""
    through = conflict.through.get(line.name)
    return f": {through}" if through else ""


def _torch_of(conflict: Conflict, base: Base) -> list[str]:
    """The kin of torch that the conflict is about."""
    return [name for name in sorted(base.torch) if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", conflict.said)]


def _lines_about(subject: str, lines: Iterable[Declared]) -> list[Declared]:
    if not subject:
        return []
    name = normalized(re.split(r"[\s=<>!~@\[]", subject)[0])
    address = subject.rpartition(" @ ")[2]
    return [
        line for line in lines if line.name == name or ("://" in address and address.rstrip("/") in line.requirement)
    ]


def _asking(lines: Sequence[Declared]) -> str:
    return _listed(f"{line.place} asks for {line.text}" for line in lines)


def _listed(texts: Iterable[str]) -> str:
    return "; ".join(texts)


def _short(said: str) -> str:
    text = " ".join(said.split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
