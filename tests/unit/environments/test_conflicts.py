"""Conflicts, of a resolver in thirty lines: so that every question and answer is seen, and none takes time."""

from __future__ import annotations

import itertools

import pytest

from comfy_serverless.environments.locking.base import Base
from comfy_serverless.environments.locking.conflicts import explain
from comfy_serverless.environments.locking.explanations import of_conflicts
from comfy_serverless.environments.locking.requirement_lines import Declared, admits, normalized, requirement_of
from comfy_serverless.environments.locking.resolver import Answer, Question, Unsolvable
from comfy_serverless.errors import EnvironmentConflict, LibraryUnavailable

#: library -> version -> what it needs.
INDEX: dict[str, dict[str, list[str]]] = {
    "a": {"1": [], "2": [], "3": []},
    "needs-a2": {"1": ["a>=2"]},
    "needs-old-a": {"1": ["a<2"]},
    "deep": {"1": ["needs-old-a"]},
    "alone": {"1": []},
}


def name_of(line: str) -> str:
    """The library that a line asks for."""
    requirement = requirement_of(line)
    assert requirement is not None
    return normalized(requirement.name)


class Small:
    """Tries every combination of versions. It speaks like uv."""

    name = "small"
    can_override = True

    def __init__(self, index: dict[str, dict[str, list[str]]] = INDEX) -> None:
        self.index, self.asked = index, 0

    def resolve(self, question: Question) -> Answer:
        raise NotImplementedError

    def check(self, question: Question) -> dict[str, str]:
        self.asked += 1
        overrides = {name_of(line): line for line in question.overrides}
        lines = [line.requirement for line in question.lines]
        missing = [line.name for line in question.lines if line.name not in self.index and line.name not in overrides]
        if missing:
            raise Unsolvable(f"Because {missing[0]} was not found in the package registry and you require {missing[0]}")
        names = sorted(self.index)
        for versions in itertools.product(*([*reversed(self.index[name]), ""] for name in names)):
            chosen = dict(zip(names, versions, strict=True))
            if self._holds(lines, chosen, overrides):
                return {name: version for name, version in chosen.items() if version}
        needs = [
            f"{name}=={version} depends on {need}"
            for name in names
            for version, all_ in self.index[name].items()
            for need in all_
        ]
        raise Unsolvable("Because " + " and ".join(needs) + " and you require " + " and ".join(lines))

    def _holds(self, lines: list[str], chosen: dict[str, str], overrides: dict[str, str]) -> bool:
        wanted = [*lines, *(need for name, version in chosen.items() if version for need in self.index[name][version])]
        for line in wanted:
            name = name_of(line)
            line = overrides.get(name, line)
            if "never" in line:
                continue
            if not chosen.get(name) or not admits(line, chosen[name]):
                return False
        return True


def line(source: str, text: str) -> Declared:
    return Declared(source, "requirements.txt", 1, text, name_of(text), text)


def explained(*lines: Declared, resolver: Small | None = None) -> list[tuple[list[str], str | None]]:
    resolver = resolver or Small()
    question = Question(lines)
    with pytest.raises(Unsolvable) as caught:
        resolver.check(question)
    found = explain(question, resolver, str(caught.value))
    return [([str(each) for each in conflict.lines], conflict.override) for conflict in found]


def test_two_packs_that_pin_one_library_are_the_whole_conflict() -> None:
    assert explained(line("p", "a==1"), line("q", "a==2"), line("r", "alone")) == [(["p: a==1", "q: a==2"], "a==2")]


def test_ranges_that_do_not_meet_are_a_conflict() -> None:
    assert explained(line("p", "a<2"), line("q", "a>2"), line("r", "alone")) == [(["p: a<2", "q: a>2"], "a==3")]


def test_comfyui_keeps_what_it_asks_for() -> None:
    assert explained(line("ComfyUI", "a<2"), line("q", "a==3")) == [(["ComfyUI: a<2", "q: a==3"], "a==1")]


def test_a_conflict_through_libraries_is_about_the_library_that_both_need() -> None:
    assert explained(line("p", "a<2"), line("q", "needs-a2"), line("r", "alone")) == [
        (["p: a<2", "q: needs-a2"], "a==3")
    ]
    [(lines, override)] = explained(line("p", "deep"), line("q", "needs-a2"))
    assert lines == ["p: deep", "q: needs-a2"]
    assert (override or "").startswith("a==")


def test_the_version_that_most_can_live_with_is_proposed() -> None:
    lines = [line("p", "a==1"), line("q", "a==2"), line("r", "a==2")]
    assert explained(*lines)[0][1] == "a==2"


def test_each_conflict_is_told_and_each_missing_name() -> None:
    found = explained(line("p", "a==1"), line("q", "a==2"), line("r", "nowhere"), line("s", "alone>=5"))
    assert [override for _, override in found] == ["a==2", 'nowhere ; sys_platform == "never"', "alone==1"]


def test_few_questions_are_asked_of_many_lines() -> None:
    index = dict(INDEX)
    for number in range(4):
        index[f"other-{number}"] = {"1": []}
    resolver = Small(index)
    explained(
        *(line(f"pack{number}", f"other-{number}") for number in range(4)),
        line("p", "a<2"),
        line("q", "a>2"),
        resolver=resolver,
    )
    assert resolver.asked < 20


def test_the_message_ends_with_the_lines_to_put_into_the_file() -> None:
    resolver, question = Small(), Question((line("p", "a<2"), line("q", "needs-a2")))
    error = of_conflicts(
        explain(question, resolver, "Because needs-a2==1 depends on a>=2 and you require a<2"), Base({})
    )
    assert isinstance(error, EnvironmentConflict)
    assert "p (requirements.txt, line 1) asks for a<2\n" in error.message
    assert "q (requirements.txt, line 1) asks for needs-a2: needs-a2==1 needs a>=2" in error.message
    assert error.message.endswith(":\n\na==3")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Because cv2 was not found in the package registry", "is opencv-python-headless meant?"),
        (
            "Because x==1 requires Python >=3.13 and only",
            "it is for Python >=3.13 only, and the image has Python 3.11.",
        ),
        (
            "Because x==1 has no wheels with a matching platform tag",
            "it has no wheel for Linux (x86_64) and Python 3.11",
        ),
        ("Because only x<=2.0 is available and you require x>=9", "the index has x<=2.0."),
        ("Because there is no version of x==9 and you require x==9", "the index has no such version of it."),
        ("Because of something new", "The resolver says: Because of something new"),
    ],
)
def test_why_one_library_cannot_be_had_is_told_in_our_words(said: str, told: str) -> None:
    from comfy_serverless.environments.locking.conflicts import Conflict

    name = "cv2" if "cv2" in said else "x"
    error = of_conflicts([Conflict((line("pack", name),), said, name, {})], Base({}))
    assert isinstance(error, LibraryUnavailable)
    assert f"pack (requirements.txt, line 1) asks for {name}: " in error.message
    assert told in error.message
