"""Why no versions go together: which lines, of whom, over which library, and the one override that would do.

It asks the resolver, and believes no explanation of it: lines are left out until those remain that cannot be together
(QuickXplain, Junker 2004), and an override is proposed only after it has been resolved with. The resolver's words are
used to ask the likely questions first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from comfy_serverless.environments.locking.base import COMFYUI
from comfy_serverless.environments.locking.requirement_lines import Declared, admits, normalized, requirement_of
from comfy_serverless.environments.locking.resolver import Question, Resolver, Unsolvable

#: A core of more lines than this is not made smaller; so many conflicts are told at once.
_MOST_CONFLICTS: Final = 10
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_MISSING: Final = re.compile(r"([A-Za-z0-9][\w.-]*) was not found in")
_PIN: Final = re.compile(r"={2,3}\s*([A-Za-z0-9.!+_-]+)(?![\w.*])")
_DEPENDS: Final = re.compile(
    r"(?P<of>[A-Za-z0-9][\w.-]*)(?:\[[\w,-]*\])?(?P<versions>[<>=!~][^\s]*)? depends? on (?:one of:\s*)?"
    r"(?P<on>[A-Za-z0-9][\w.-]*)(?:\[[\w,-]*\])?(?P<limit>[<>=!~]\S*)?"
)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Lines that cannot be together, as few as there are.

    Attributes:
        lines: the smallest set; one line, where nothing fits it at all.
        said: the resolver's explanation for these alone.
        library: what they are about.
        through: `name` of a line -> what it needs of the library, where that is not the library itself.
        override: a line of pipDependencies that resolves it, tried; None if none does.
        against: the lines that the override goes against.
        leaves_out: whether the override takes the library out altogether.
    """

    lines: tuple[Declared, ...]
    said: str
    library: str
    through: dict[str, str]
    override: str | None = None
    against: tuple[str, ...] = ()
    leaves_out: bool = False


def explain(
    question: Question, program: Resolver, said: str, *, tell: Callable[[str], None] = lambda _: None
) -> list[Conflict]:
    """All conflicts of a question that has no answer, each with its override.

    Args:
        said: what the resolver has said to it.

    Raises:
        NotAnswered: as the resolver does.
    """
    resolver = _Remembering(program)
    resolver.knows(question, said)
    if (own := _unsolvable(replace(question, lines=()), resolver)) is not None:  # of what the image has itself
        return [Conflict((), own, "", {})]
    found: list[Conflict] = []
    while len(found) < _MOST_CONFLICTS:
        tell(f"conflict {len(found) + 1}: which lines")
        core = _plain_core(question, "")
        if core is None:
            reason = _unsolvable(question, resolver)
            if reason is None:
                break
            core = _core(question, reason, resolver)
        tell(f"conflict {len(found) + 1}: which override")
        conflict = _resolved(replace(question, lines=core), question, resolver)
        found.append(conflict)
        if conflict.override is not None:
            applied = _given(question).get(conflict.library, (conflict.override, ""))[0]
            question = replace(question, overrides=(*question.overrides, applied))
        else:
            question = replace(question, lines=tuple(line for line in question.lines if line != core[-1]))
    return found


class _Remembering:
    """A resolver that is asked each question once."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._known: dict[tuple[frozenset[Declared], frozenset[str]], dict[str, str] | Unsolvable] = {}
        self.can_override = resolver.can_override

    def knows(self, question: Question, said: str) -> None:
        """Take over what has been said to a question."""
        self._known[frozenset(question.lines), frozenset(question.overrides)] = Unsolvable(said)

    def check(self, question: Question) -> dict[str, str]:
        """As the resolver's own."""
        key = frozenset(question.lines), frozenset(question.overrides)
        if key not in self._known:
            try:
                self._known[key] = self._resolver.check(question)
            except Unsolvable as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, Unsolvable):
            raise known
        return known


def _unsolvable(question: Question, resolver: _Remembering) -> str | None:
    """Why a question has no answer; None if it has one."""
    try:
        resolver.check(question)
    except Unsolvable as error:
        return str(error)
    return None


def _core(question: Question, said: str, resolver: _Remembering) -> tuple[Declared, ...]:
    """The smallest set of lines that cannot be together."""
    if (plain := _plain_core(question, said)) is not None:
        return plain
    named = {normalized(name) for name in _NAME.findall(said)}
    likely = tuple(line for line in question.lines if line.name in named)
    lines = likely if likely and _unsolvable(replace(question, lines=likely), resolver) is not None else question.lines
    core = _quick_xplain(
        [], sorted(lines, key=_stays), lambda some: _unsolvable(replace(question, lines=tuple(some)), resolver) is None,
        has_new=False,
    )  # fmt: skip
    return tuple(sorted(core, key=_stays))


def _plain_core(question: Question, said: str) -> tuple[Declared, ...] | None:
    """The set where it can be told without asking: one pin against another line, or a name that the index has not."""
    overridden = {normalized(match[0]) for line in question.overrides if (match := _NAME.match(line))}
    asked = sorted((line for line in question.lines if line.name and line.name not in overridden), key=_stays)
    for name in _MISSING.findall(said):
        if alone := next((line for line in asked if line.name == normalized(name)), None):
            return (alone,)
    for line in reversed(asked):
        pin = _PIN.search(line.requirement)
        against = pin and next(
            (other for other in asked if other.name == line.name and not admits(other.requirement, pin[1])), None
        )
        if against and against != line:
            return tuple(sorted((line, against), key=_stays))
    return None


def _quick_xplain(
    known: list[Declared], lines: list[Declared], goes: Callable[[Sequence[Declared]], bool], *, has_new: bool
) -> list[Declared]:
    if has_new and not goes(known):
        return []
    if len(lines) == 1:
        return lines
    half = len(lines) // 2
    first, second = lines[:half], lines[half:]
    of_second = _quick_xplain([*known, *first], second, goes, has_new=bool(first))
    of_first = _quick_xplain([*known, *of_second], first, goes, has_new=bool(of_second))
    return [*of_first, *of_second]


def _resolved(core: Question, whole: Question, resolver: _Remembering) -> Conflict:
    """The conflict with its library and its override."""
    said = _unsolvable(core, resolver) or ""
    edges = _concerning(core.lines, list(_edges(said)))
    names = _candidates(core.lines, edges)
    if not resolver.can_override:
        library = names[0] if names else core.lines[0].name
        return Conflict(core.lines, said, library, _through(library, edges))
    given = _given(core)
    for name in names:
        if name in given:
            applied, had = given[name]
            if _answers(replace(core, overrides=(*core.overrides, applied)), resolver) is not None:
                against = tuple(text for _, on, text, _ in edges if on == name)
                return Conflict(core.lines, said, name, _through(name, edges), f"{name}=={had}", against)
            continue
        is_direct = len({line.name for line in core.lines}) == 1 and len(core.lines) > 1
        if not is_direct and _answers(replace(core, overrides=(*core.overrides, name)), resolver) is None:
            continue
        limits = {text: limit for _, on, text, limit in edges if on == name}
        version = _version(name, limits.values(), core, whole, resolver)
        if version is not None:
            broken = [str(line) for line in core.lines if line.name == name and not admits(line.requirement, version)]
            broken += [text for text, limit in limits.items() if not admits(limit, version)]
            return Conflict(core.lines, said, name, _through(name, edges), f"{name}=={version}", tuple(broken))
    library = names[0] if names else core.lines[0].name
    without = f'{library} ; sys_platform == "never"'
    if (
        len(core.lines) == 1
        and library
        and _answers(replace(core, overrides=(*core.overrides, without)), resolver) is not None
    ):
        return Conflict(core.lines, said, library, _through(library, edges), without, leaves_out=True)
    return Conflict(core.lines, said, library, _through(library, edges))


def _version(name: str, limits: Iterable[str], core: Question, whole: Question, resolver: _Remembering) -> str | None:
    """The version for an override: of those that come out when one of the lines gives way, which goes against least.

    Only the lines that are about the library, and those of the conflict, are asked about: few, so that it is quick.
    """
    concerned = tuple(line for line in whole.lines if line.name == name or line in core.lines)
    versions: set[str] = set()
    for line in reversed(core.lines):
        if versions and line.source == COMFYUI:  # a pack gives way, if that is enough
            break
        rest = tuple(other for other in concerned if other != line)
        answer = _answers(replace(core, lines=rest), resolver)
        if answer is not None and name in answer:
            versions.add(answer[name])
    if not versions:
        answer = _answers(replace(core, overrides=(*core.overrides, name)), resolver)
        versions = {answer[name]} if answer is not None and name in answer else set()
    ranked = sorted(versions, key=lambda version: _cost(name, version, whole.lines, limits))
    overridden = ((version, replace(core, overrides=(*core.overrides, f"{name}=={version}"))) for version in ranked)
    return next((version for version, question in overridden if _answers(question, resolver) is not None), None)


def _cost(
    name: str, version: str, lines: Iterable[Declared], limits: Iterable[str]
) -> tuple[int, int, int, tuple[int, ...]]:
    """What a version goes against: ComfyUI's lines, then libraries' limits, then packs' lines; then how old it is."""
    broken = [line for line in lines if line.name == name and not admits(line.requirement, version)]
    newest_first = tuple(-int(part) for part in re.findall(r"\d+", version))
    libraries = sum(not admits(limit, version) for limit in limits)
    return sum(line.source == COMFYUI for line in broken), libraries, len(broken), newest_first


def _candidates(lines: Sequence[Declared], edges: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """The libraries that the conflict may be about: first those that most ask for, then in the order they are named."""
    asked = [line.name for line in lines if line.name]
    needed = [on for _, on, _, _ in edges]
    names = list(dict.fromkeys([*needed, *asked]))
    return sorted(
        names, key=lambda name: -(len({line.source for line in lines if line.name == name}) + needed.count(name))
    )


def _edges(said: str) -> Iterator[tuple[str, str, str, str]]:
    """Who needs what, of the resolver's words: `a`, `b`, `a==1 needs b<2`, `b<2`."""
    seen = set()
    for match in _DEPENDS.finditer(said):
        of, on = normalized(match["of"]), normalized(match["on"])
        if on in {"python"} or (of, on) in seen:
            continue
        seen.add((of, on))
        limit = f"{on}{(match['limit'] or '').rstrip('.,')}"
        yield of, on, f"{of}{(match['versions'] or '').rstrip('.,')} needs {limit}", limit


def _concerning(
    lines: Sequence[Declared], edges: Sequence[tuple[str, str, str, str]]
) -> list[tuple[str, str, str, str]]:
    """Of what libraries need: that of those which the lines bring in."""
    names, pending = {line.name for line in lines}, True
    while pending:
        more = {on for of, on, _, _ in edges if of in names} - names
        names, pending = names | more, bool(more)
    return [edge for edge in edges if edge[0] in names]


def _through(library: str, edges: Sequence[tuple[str, str, str, str]]) -> dict[str, str]:
    """For each library that needs it, directly or not: through what."""
    told: dict[str, str] = {}
    frontier = [library]
    while frontier:
        on = frontier.pop()
        for of, needed, text, _ in edges:
            if needed == on and of not in told and of != library:
                told[of] = text if on == library else f"{text}, and {told[on]}"
                frontier.append(of)
    return told


def _given(question: Question) -> dict[str, tuple[str, str]]:
    """What the image has: name -> its stand-in as a requirement, and its version."""
    return {
        normalized(requirement.split(" @ ")[0]): (requirement, requirement.rpartition("/")[2].split("-")[1])
        for requirement in question.given
    }


def _answers(question: Question, resolver: _Remembering) -> dict[str, str] | None:
    try:
        return resolver.check(question)
    except Unsolvable:
        return None


def _stays(line: Declared) -> tuple[bool, str, str, int]:
    """The order in which lines are kept, where several could give way: ComfyUI's first."""
    requirement = requirement_of(line.requirement)
    name = normalized(requirement.name) if requirement else ""
    return line.source != COMFYUI, line.source, name, line.line
