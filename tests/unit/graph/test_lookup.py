"""Addresses of a graph's inputs: a mistaken one costs little, however large the graph and however many there are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.graph.lookup import NodeLookup
from comfy_serverless.graph.near import LONGEST_NAME, Guesses


class Counted(dict[str, Any]):
    """The inputs of a node, and how many of them were looked at one by one."""

    looks = 0

    def __iter__(self) -> Iterator[str]:
        for name in super().__iter__():
            self.looks += 1
            yield name


def looks_for(addresses: list[str], *, title: str = "node") -> int:
    inputs = Counted({f"{number:x}": 0 for number in range(5000)})
    graph: dict[str, dict[str, Any]] = {
        "1": {"class_type": "EmptyImage", "inputs": inputs, "_meta": {"title": title}},
        **{str(node): {"class_type": "EmptyImage", "inputs": Counted(width=1)} for node in range(2, 300)},
    }
    meanings, problems = NodeLookup(graph).resolve_all(addresses)
    assert not meanings
    assert len(problems) == len(addresses)
    return sum(node["inputs"].looks for node in graph.values())


@pytest.mark.parametrize("form", ["1.wrong{}", "EmptyImage.wrong{}", "node.wrong{}", "nothing.wrong{}"])
def test_a_thousand_wrong_addresses_look_at_the_graph_as_often_as_twenty(form: str) -> None:
    twenty, thousand = (looks_for([form.format(number) for number in range(count)]) for count in (20, 1000))
    assert thousand == twenty
    assert twenty < 4 * 5300


def test_an_address_whose_every_part_is_a_title_looks_at_each_node_once() -> None:
    dotted: dict[str, dict[str, Any]] = {
        f"n{dots}": {"class_type": ".".join("x" * (dots + 1)), "inputs": Counted(a=1)} for dots in range(200)
    }
    wrong = [f"{'.'.join('x' * 201)}.{number}" for number in range(300)]
    assert len(NodeLookup(dotted).resolve_all(wrong)[1]) == 300
    assert sum(node["inputs"].looks for node in dotted.values()) < 10 * len(dotted)


def test_the_inputs_a_node_has_are_listed_in_order_and_cut() -> None:
    graph = {"1": {"class_type": "A", "inputs": {f"i{number:03}": 0 for number in reversed(range(100))}}}
    problem = NodeLookup(graph).resolve_all(["1.z"])[1]["1.z"]
    assert "it has: i000, i001, " in problem
    assert "i019, …" in problem


def test_near_names_are_found_nearest_first() -> None:
    assert Guesses().near("KSampler.stpes", ["KSampler.seed", "KSampler.steps", "VAE.steps"], at_most=2) == [
        "KSampler.steps",
        "KSampler.seed",
    ]
    assert Guesses().near("x", ["abc"]) == []


def test_names_made_to_be_hard_to_compare_use_up_a_budget_for_all_questions() -> None:
    draw = random.Random(1)
    letters = ["a", "b"] * (LONGEST_NAME // 2)

    def permuted() -> str:
        draw.shuffle(letters)
        return "".join(letters)

    taken = 0

    def names() -> Iterator[str]:
        nonlocal taken
        for _ in range(2000):
            taken += 1
            yield permuted()

    guesses = Guesses()
    for _ in range(50):
        guesses.near(permuted(), names())
    assert 2000 < taken < 20_000
    assert guesses.near("a", ["a"]) == []


def test_names_of_any_length_are_passed_over() -> None:
    assert Guesses().near("a" * 10_000, ["a" * 10_000]) == []
    assert Guesses().near("steps", ["s" * 1_000_000, "step"]) == ["step"]
