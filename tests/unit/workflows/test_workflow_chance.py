"""Whether something random is left in a version, with the inputs that a line gives."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.jobs.line_ids import Question
from comfy_serverless.workflows.chance import is_random
from comfy_serverless.workflows.version import NamedInput, Version
from tests.unit import editor_samples

INPUTS = (
    NamedInput(name="prompt", targets=("6.text",), kind=InputKind.TEXT),
    NamedInput(name="seed", targets=("3.seed", "4.noise"), kind=InputKind.INTEGER, role=Role.SEED, default=7),
)


def version(*, seed: object = 7, noise: object = 7, number: int = 1, **changes: Any) -> Version:
    graph = {
        "3": {"class_type": "KSampler", "inputs": {"seed": seed}},
        "4": {"class_type": "Noise", "inputs": {"noise": noise}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox"}},
    }
    return Version(**{"name": "poster", "number": number, "owner": "", "graph": graph, "inputs": INPUTS, **changes})


def asked(*given: str, drawn: tuple[str, ...] = (), is_of_texts: bool = False) -> Question:
    return Question(workflow="poster", is_of_texts=is_of_texts, given=given, drawn=drawn)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("has", "question", "random"),
    [
        ({}, asked(), False),
        ({"seed": -1}, asked(), True),
        ({"seed": "-1"}, asked(), True),
        ({"seed": -1}, asked("prompt"), True),
        ({"seed": -1}, asked("seed"), False),
        ({"seed": -1}, asked(is_of_texts=True), False),
        ({}, asked("seed", drawn=("seed",)), True),
        ({}, asked("prompt", drawn=("prompt",)), False),
        ({}, asked("nothing of it", drawn=("nothing of it",)), False),
    ],
)
def test_a_seed_counts_unless_it_is_set(has: dict[str, Any], question: Question, random: bool, number: int) -> None:
    assert is_random(version(number=number, **has), question) is random


def test_so_does_a_seed_that_workers_do_not_know_for_one() -> None:
    inputs = (NamedInput(name="noise", targets=("4.noise",), kind=InputKind.INTEGER, role=Role.SEED, default=-1),)
    assert is_random(version(noise=-1, inputs=inputs), asked())
    assert not is_random(version(noise=-1, inputs=inputs), asked("noise"))


def test_a_text_that_is_rolled_counts_whatever_the_seeds_are() -> None:
    rolled = version(rolled={"6.text": "{red|blue} fox"})
    assert is_random(rolled, asked(is_of_texts=True))
    assert is_random(rolled, asked("seed"))
    assert not is_random(rolled, asked("prompt"))


def test_of_what_the_editor_saved_in_a_file_it_is_random_where_it_is_not_plain() -> None:
    saved = editor_samples.plain(prefix="{a|b}")
    file = version(number=0, graph={}, inputs=(), editors=saved)
    assert is_random(file, asked())
    assert is_random(file, asked("prompt"))
    plain = version(number=0, graph={}, inputs=(), editors=editor_samples.plain(prefix="x"))
    assert not is_random(plain, asked("prompt"))
    assert is_random(plain, asked("seed", drawn=("seed",)))


@pytest.mark.parametrize("question", [asked(), asked(is_of_texts=True), asked("a", "b", drawn=("b",))])
def test_a_question_is_remembered_as_a_text(question: Question) -> None:
    assert Question.parse(question.to_text()) == question
    assert question.without_inputs.to_text() in ("poster", "the texts of poster")
