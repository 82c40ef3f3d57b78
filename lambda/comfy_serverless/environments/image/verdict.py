"""Whether an image is as it should be, from what ComfyUI said in its starts. No IO.

Problems end the build; notes are told. Each problem names its pack, and says what to do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from comfy_serverless.connector.import_check import Start
from comfy_serverless.connector.import_report import ImportReport, NotImported
from comfy_serverless.environments.image.import_causes import cause_of, died
from comfy_serverless.environments.image.import_story import Cause, Kind, Known

#: What stands for ComfyUI itself among the packs.
COMFYUI: Final = "ComfyUI"
EVERY: Final = "*"
_NOT_ASKED: Final = re.compile(r"retrieving information for the '([^']+)' node")
_MOST_NAMED: Final = 12


@dataclass(frozen=True, slots=True)
class Problem:
    """What is not as it should be.

    Attributes:
        modes: the starts in which it is so.
        reason: what ComfyUI said, in one line.
    """

    pack: str
    cause: Cause
    modes: tuple[str, ...]
    reason: str = ""

    @property
    def document(self) -> dict[str, Any]:
        """The problem for programs."""
        return {"pack": self.pack, "modes": list(self.modes), "reason": self.reason, **asdict(self.cause)}

    def lines(self, *, all_modes: int) -> list[str]:
        """The problem as people read it."""
        only = f" [only {self.modes[0]}]" if len(self.modes) == 1 < all_modes else ""
        said = [f"  {self.pack}: {self.cause.what}{only}"]
        if self.reason and self.reason not in self.cause.what:
            said.append(f"      ComfyUI says: {self.reason}")
        if self.cause.declared:
            said.append(f"      {self.cause.declared}")
        return [*said, f"      do: {self.cause.do}"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out.

    Attributes:
        classes: which pack has a class, by class; `ComfyUI` for its own.
    """

    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    classes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be wrong: names of packs that may fail, names of classes that may have vanished; `*` is every one."""

    packs: Collection[str] = ()
    classes: Collection[str] = ()

    def pack(self, name: str) -> bool:
        return EVERY in self.packs or name in self.packs

    def class_type(self, name: str) -> bool:
        return EVERY in self.classes or name in self.classes


def judge(
    starts: Sequence[Start],
    known: Known,
    *,
    allowed: Allowed,
    before: Mapping[str, str],
    culprits: Mapping[str, str],
    named: Mapping[str, Collection[str]],
) -> Verdict:
    """Judge all starts of one image.

    Args:
        before: the classes that are known from before, each with its pack; empty if none are.
        culprits: the packs that ended ComfyUI, each with how.
        named: the names under which the source of each pack seems to declare classes.
    """
    lost = {start.mode: _lost(start) for start in starts}
    classes = classes_of(next((start.object_info for start in starts if start.object_info), {}))
    failed = {pack for found in lost.values() for pack in found} | set(culprits)
    found = [
        *_not_imported(lost, known, allowed),
        *(Problem(pack, died(pack, how), tuple(lost), "") for pack, how in culprits.items()),
        *_not_started(starts, culprits),
        *_not_asked(starts, named),
        *_in_one_alone(starts, failed),
        *_vanished(before, classes, allowed, failed),
    ]
    problems = tuple(problem for problem in found if not allowed.pack(problem.pack) or problem.pack == COMFYUI)
    return Verdict(problems, tuple(_notes(classes, named, known, failed, allowed)), classes)


def classes_of(object_info: Mapping[str, Any]) -> dict[str, str]:
    """Which pack has each class: ComfyUI says the module that it is from."""
    return {name: _pack_of(said) for name, said in sorted(object_info.items())}


def _pack_of(said: object) -> str:
    module = str(said.get("python_module") or "") if isinstance(said, Mapping) else ""
    return module.removeprefix("custom_nodes.") if module.startswith("custom_nodes.") else COMFYUI


def _lost(start: Start) -> dict[str, NotImported]:
    report = ImportReport()
    for line in start.output.splitlines():
        report.see(line)
    return {lost.pack: lost for lost in report.not_imported}


def _not_imported(lost: Mapping[str, Mapping[str, NotImported]], known: Known, allowed: Allowed) -> Iterable[Problem]:
    for pack in sorted({pack for found in lost.values() for pack in found} - set(allowed.packs)):
        modes = tuple(mode for mode, found in lost.items() if pack in found)
        first = lost[modes[0]][pack]
        only = modes[0] if len(modes) < len(lost) else ""
        yield Problem(pack, cause_of(first, known, mode=only), modes, first.reason)


def _not_started(starts: Sequence[Start], culprits: Mapping[str, str]) -> Iterable[Problem]:
    for start in starts:
        if start.object_info is not None or culprits:
            continue
        if start.code is None:
            pack = _hangs_in(start.output)
            what = "it did not answer in time" if pack == COMFYUI else "its import does not come to an end"
            do = "see the stack above: it waits for the network, for input, or for a lock"
        else:
            pack = COMFYUI
            what = f"it does not start ({_exit(start.code)})"
            do = "see what it wrote, above: a library that ComfyUI itself needs is missing, or of a wrong version"
        yield Problem(pack, Cause(Kind.DIED, what, do, subject=pack), (start.mode,))


def _hangs_in(output: str) -> str:
    """The pack in whose code a thread was when it was stopped."""
    stack = output.rpartition("Fatal Python error: Aborted")[2]
    found = re.search(r'/custom_nodes/([^/"]+)', stack)
    return found[1] if found else COMFYUI


def _exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _not_asked(starts: Sequence[Start], named: Mapping[str, Collection[str]]) -> Iterable[Problem]:
    """Classes that are there, and that ComfyUI cannot describe: no workflow with them can be checked or converted."""
    found: dict[str, list[str]] = {}
    for start in starts:
        for name in _NOT_ASKED.findall(start.output):
            found.setdefault(name, []).append(start.mode)
    for name, modes in found.items():
        pack = next((pack for pack, names in named.items() if name in names), COMFYUI)
        what = f"ComfyUI cannot describe the class {name}: its INPUT_TYPES raises an error"
        do = "take another version of the pack: see the traceback above"
        yield Problem(pack, Cause(Kind.OTHER, what, do, subject=name), tuple(dict.fromkeys(modes)))


def _in_one_alone(starts: Sequence[Start], failed: Collection[str]) -> Iterable[Problem]:
    """Packs that import both ways, and leave classes out in one: they have caught what went wrong."""
    seen = {start.mode: classes_of(start.object_info) for start in starts if start.object_info is not None}
    everywhere = {name: pack for classes in seen.values() for name, pack in classes.items()}
    for mode, classes in seen.items():
        for pack, names in _by_pack({name: everywhere[name] for name in everywhere.keys() - classes.keys()}).items():
            if pack not in failed:
                what = f"it leaves out {_listed(names)} where ComfyUI is {mode}, and imports all the same"
                do = "see what it writes there: it cannot write, or has no network, and goes on without"
                yield Problem(pack, Cause(Kind.WRITES, what, do, subject=pack), (mode,))


def _vanished(
    before: Mapping[str, str], classes: Mapping[str, str], allowed: Allowed, failed: Collection[str]
) -> Iterable[Problem]:
    gone = {name: pack for name, pack in before.items() if name not in classes and not allowed.class_type(name)}
    for pack, names in _by_pack(gone).items():
        if pack in failed or not classes:
            continue  # said already, with the reason
        what = f"{_listed(names)} of comfyui/comfy-build.classes.json {'is' if len(names) == 1 else 'are'} gone"
        do = (
            "workflows with them would be refused. Take the version that has them; or, if it is meant, "
            f"--build-arg ALLOW_VANISHED={','.join(names[:_MOST_NAMED])}{',…' if len(names) > _MOST_NAMED else ''}, "
            "and then "
            "copy out/image/classes.json to comfyui/comfy-build.classes.json"
        )
        yield Problem(pack, Cause(Kind.OTHER, what, do, subject=names[0]), ())


def _notes(
    classes: Mapping[str, str],
    named: Mapping[str, Collection[str]],
    known: Known,
    failed: Collection[str],
    allowed: Allowed,
) -> Iterable[str]:
    for pack in sorted(failed):
        if allowed.pack(pack):
            yield f"{pack} did not import, and may: ALLOW_IMPORT_FAILURES names it"
    owners: dict[str, list[str]] = {}
    for pack, names in sorted(named.items()):
        for name in sorted(names):
            if classes.get(name, pack) not in (pack, pack.removesuffix(".py")):
                owners.setdefault(f"{pack}\0{classes[name]}", []).append(name)
    for pair, names in owners.items():
        pack, other = pair.split("\0")
        yield f"{pack} seems to declare {_listed(names)}, too: the one of {other} is used"
    for pack in sorted(known.declared.keys() - set(failed)):
        if classes and pack.removesuffix(".py") not in classes.values():
            yield f"{pack} imports, and declares no class"


def _by_pack(classes: Mapping[str, str]) -> dict[str, list[str]]:
    packs: dict[str, list[str]] = {}
    for name in sorted(classes):
        packs.setdefault(classes[name], []).append(name)
    return dict(sorted(packs.items()))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"the class{'es' if len(names) > 1 else ''} {', '.join(names[:_MOST_NAMED])}{more}"
