"""From what ComfyUI and the packs ask for to libraries, each with its hash: all together, or a message why not.

lines of all ─► without the base's ─► resolver ─► one OpenCV, scipy with numpy ─► what builds sources ─► locked
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from comfy_serverless.environments.lock_file import MORE_REQUIREMENTS, LockedRequirement, RequirementKind
from comfy_serverless.environments.locking import base as bases
from comfy_serverless.environments.locking import builds, conflicts, explanations, wheel_choice
from comfy_serverless.environments.locking.base import Base
from comfy_serverless.environments.locking.requirement_lines import (
    Declared,
    admits,
    normalized,
    repository_of,
    requirement_of,
)
from comfy_serverless.environments.locking.resolver import Answer, Found, NotAnswered, Question, Resolver, Unsolvable
from comfy_serverless.errors import LibraryUnavailable

#: One module, `cv2`, under four names: whichever is installed last overwrites the others.
_OPENCV: Final = (
    "opencv-python", "opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless",
)  # fmt: skip
_OVERRIDES: Final = "pipDependencies"


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that is asked for.

    Attributes:
        lines: of ComfyUI and the packs.
        overrides: of pipDependencies.
        preferred: versions of the lock at hand; `preferred_builds` those of what builds sources.
    """

    lines: tuple[Declared, ...]
    overrides: tuple[Declared, ...] = ()
    preferred: Mapping[str, str] = field(default_factory=dict)
    preferred_builds: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The libraries, what builds some of them, the overrides that were applied, and what a person should know."""

    requirements: tuple[LockedRequirement, ...]
    build_requirements: tuple[LockedRequirement, ...]
    overrides: tuple[str, ...]
    warnings: tuple[str, ...]


def resolve(
    wanted: Wanted, base: Base, resolver: Resolver, *, tell: Callable[[str], None] = lambda _: None
) -> Resolved:
    """Resolve everything together.

    Raises:
        EnvironmentConflict: what is asked for cannot be together; the message ends with the override that resolves it.
        LibraryUnavailable: a library cannot be had, or the index cannot be reached.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return _Resolution(wanted, base, resolver, tell, base.stand_ins(Path(scratch))).run()


class _Resolution:
    def __init__(
        self, wanted: Wanted, base: Base, resolver: Resolver, tell: Callable[[str], None], stand_ins: tuple[str, ...]
    ) -> None:
        self._wanted, self._base, self._resolver, self._tell = wanted, base, resolver, tell
        self._lines, self._warnings = bases.without_base(wanted.lines, base)
        self._overrides, warnings = bases.usable_overrides(wanted.overrides, base)
        self._warnings += warnings
        self._stand_ins = stand_ins
        accepted = bases.accepted_torch(wanted.overrides, base)
        self._torch_overrides = tuple(line for line in stand_ins if normalized(line.split(" @ ")[0]) in accepted)

    def run(self) -> Resolved:
        question = Question(
            lines=(*self._lines, *self._base.needs),
            given=self._stand_ins,
            overrides=(*(line.requirement for line in self._overrides), *self._torch_overrides),
            excluded=self._base.excluded,
            preferred=self._wanted.preferred,
        )
        self._tell("libraries")
        question, answer = self._one_opencv(question, self._answer(question))
        answer = self._scipy_with_numpy(question, answer)
        self._tell("what builds sources")
        try:
            built, builders = builds.resolve(
                answer, self._resolver, self._base, given=self._stand_ins,
                preferred={**answer.versions, **self._wanted.preferred_builds},
            )  # fmt: skip
        except NotAnswered as error:
            raise explanations.of_no_answer(error, ()) from error
        self._tell("hashes")
        self._warn_of_overrides(answer)
        self._warn_of_yanked(answer)
        asked = {found.name: self._asking(found, answer) for found in answer.found}
        self._check_declared_hashes(answer)
        return Resolved(
            requirements=tuple(_locked(found, asked[found.name]) for found in answer.found),
            build_requirements=tuple(
                _locked(found, (*builders.get(found.name, ()), *_via(found, built))) for found in built.found
            ),
            overrides=tuple(sorted({line.text for line in self._overrides})),
            warnings=tuple(self._warnings),
        )

    def _answer(self, question: Question) -> Answer:
        try:
            return self._resolver.resolve(question)
        except Unsolvable as error:
            try:
                if impossible := list(self._impossible_overrides()):
                    raise explanations.of_overrides(impossible) from error
                found = conflicts.explain(question, self._resolver, str(error), tell=self._tell)
            except NotAnswered as unanswered:
                raise explanations.of_no_answer(unanswered, question.lines) from unanswered
            raise explanations.of_conflicts(found, self._base) from error
        except NotAnswered as error:
            raise explanations.of_no_answer(error, question.lines) from error

    def _impossible_overrides(self) -> Iterator[tuple[Declared, str]]:
        """The overrides that cannot be had even alone, and the resolver's words: nobody else is to blame then."""
        for override in self._overrides:
            try:
                self._resolver.check(Question((override,), given=self._stand_ins))
            except Unsolvable as error:
                yield override, str(error)

    def _one_opencv(self, question: Question, answer: Answer) -> tuple[Question, Answer]:
        """One of OpenCV's names, where several have come: that without windows, and with all modules."""
        present = [name for name in _OPENCV if name in answer.versions]
        if len(present) == 1 and not present[0].endswith("-headless") and "libgl1" not in self._base.apt:
            self._warnings.append(
                f"{self._who(present[0], answer)}: {present[0]} needs libgl1 and libglib2.0-0 of Debian, which are not "
                "in requirements/apt.txt: add them, or its import fails."
            )
        if len(present) < 2:
            return question, answer
        kept = "opencv-contrib-python-headless" if any("contrib" in name for name in present) else _OPENCV[2]
        lines = [_renamed(line, kept) if line.name in present else line for line in question.lines]
        if not any(line.name == kept for line in lines):
            lines.append(Declared("OpenCV", "", 0, kept, kept, kept))
        others = tuple(name for name in _OPENCV if name != kept)
        changed = replace(question, lines=tuple(lines), excluded=(*question.excluded, *others))
        names = " and ".join(present)
        try:
            one = self._resolver.resolve(changed)
        except (Unsolvable, NotAnswered) as error:
            self._warnings.append(
                f"{names} are one module, cv2, under several names, and all are asked for: whichever is installed last "
                f"counts, since one alone does not resolve ({error})."
            )
            return question, answer
        self._warnings.append(f"{names} are one module, cv2, under several names: {kept} is installed for all of them.")
        return changed, one

    def _scipy_with_numpy(self, question: Question, answer: Answer) -> Answer:
        """scipy of the time of an overridden numpy: what scipy itself asks for does not count against an override."""
        overridden = {line.name for line in self._overrides}
        if "numpy" not in overridden or "scipy" in overridden or not {"numpy", "scipy"} <= answer.versions.keys():
            return answer
        asked = tuple(line for line in question.lines if line.name == "scipy")
        scipy = Declared(_OVERRIDES, "", 0, "scipy", "scipy", "scipy")
        version = answer.versions["numpy"]
        numpy = Declared(_OVERRIDES, "", 0, f"numpy=={version}", "numpy", f"numpy=={version}")
        try:
            together = self._resolver.check(Question((*asked, scipy, numpy), preferred=question.preferred))["scipy"]
            limit = Declared(_OVERRIDES, "", 0, "scipy", "scipy", f"scipy=={together}", is_limit=True)
            return self._resolver.resolve(replace(question, lines=(*question.lines, limit)))
        except (Unsolvable, NotAnswered) as error:
            self._warnings.append(
                f"numpy is overridden ({version}), and no scipy that is asked for is made for it: scipy "
                f"{answer.versions['scipy']} may not import. Override scipy, too. ({error})"
            )
            return answer

    def _warn_of_overrides(self, answer: Answer) -> None:
        for override in self._overrides:
            marker = requirement_of(override.requirement)
            left_out = marker is not None and marker.marker is not None and not marker.marker.evaluate({"extra": ""})
            version = answer.versions.get(override.name)
            against = [
                line for line in self._lines
                if line.name == override.name and (left_out or (version and not admits(line.requirement, version)))
            ]  # fmt: skip
            if against:
                got = "it is left out" if left_out else f"{override.name} is {version}"
                rows = "; ".join(f"{line.place} asks for {line.text}" for line in against)
                self._warnings.append(f"pipDependencies goes against what is asked for: {got}, and {rows}.")
            elif version is None and not left_out:
                why = (
                    f"nothing asks for {override.name}, and an override adds no library. One that a pack needs and "
                    f"does not declare belongs in {MORE_REQUIREMENTS}"
                )
                self._warnings.append(f"pipDependencies has {override.text}: {why}.")

    def _warn_of_yanked(self, answer: Answer) -> None:
        for told in answer.warnings:
            what, _, why = told.partition("\n")
            name = normalized(what.partition("==")[0])
            reason = f" ({why})" if why else ""
            self._warnings.append(f"{self._who(name, answer)}: {what} has been taken back by its author{reason}.")

    def _check_declared_hashes(self, answer: Answer) -> None:
        files = {
            found.name: {file.sha256 for file in (*found.wheels, found.sdist, found.direct) if file}
            for found in answer.found
        }
        for line in self._lines:
            declared = {known.partition(":")[2] for known in line.hashes if known.startswith("sha256:")}
            if declared and line.name in files and not declared & files[line.name]:
                raise LibraryUnavailable(
                    f"{line.place} asks for {line.text} with hashes, and none of them is of the files that the index "
                    "has for the image's Python and platform."
                )

    def _who(self, name: str, answer: Answer) -> str:
        lines = [f"{line.place} asks for {line.text}" for line in self._lines if line.name == name]
        found = next((each for each in answer.found if each.name == name), None)
        return "; ".join(lines) or (f"{', '.join(_via(found, answer))} needs {name}" if found else name)

    def _asking(self, found: Found, answer: Answer) -> tuple[str, ...]:
        lines = [*self._lines, *self._overrides]
        cv2 = found.name in _OPENCV
        direct = [str(line) for line in lines if not line.is_limit and _asks_for(line, found, cv2=cv2)]
        needs = {line.name for line in self._base.needs}
        torch = [f"torch {self._base.torch['torch']}"] if found.name in needs and "torch" in self._base.torch else []
        return tuple(dict.fromkeys([*sorted(direct), *torch, *_via(found, answer)]))


def _asks_for(line: Declared, found: Found, *, cv2: bool) -> bool:
    if line.name:
        return line.name == found.name or (cv2 and line.name in _OPENCV)
    where = found.git or (found.direct.url if found.direct else "")
    asked, is_at = repository_of(line.requirement)[0], repository_of(where)[0]
    return bool(where) and asked.rstrip("/") == is_at.rstrip("/")


def _locked(found: Found, declared_by: Sequence[str]) -> LockedRequirement:
    def made(kind: RequirementKind, url: str | None, hashes: tuple[str, ...], size: int | None) -> LockedRequirement:
        return LockedRequirement(
            found.name,
            found.version,
            hashes,
            size,
            kind,
            url,
            tuple(declared_by),
        )

    if found.git:
        return made("git", found.git, (), None)
    if found.direct:
        file = builds.with_hash(found.direct)
        return made("url", file.url.split("#")[0], (f"sha256:{file.sha256}",), file.size)
    wheel = wheel_choice.best(found.wheels) or next(iter(found.wheels), None)
    chosen = wheel or found.sdist
    if chosen is None:
        raise LibraryUnavailable(f"{found.name} {found.version} has no file on the index that fits the image.")
    file = builds.with_hash(chosen)
    return made("wheel" if wheel else "sdist", None, (f"sha256:{file.sha256}",), file.size)


def _via(found: Found, answer: Answer) -> list[str]:
    return [f"{name} {answer.versions[name]}" for name in found.via if name in answer.versions]


def _renamed(line: Declared, name: str) -> Declared:
    """The same line for another name of the same module; its versions are the same."""
    return replace(line, name=name, requirement=re.sub(r"^[A-Za-z0-9._-]+", name, line.requirement))
