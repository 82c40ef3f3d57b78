"""A schema becomes a typed client: Python that says what an author has written, and never runs it."""

from __future__ import annotations

import ast
import inspect
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest

from comfy_serverless.cli.named.client.generate import Described, client_of
from tests.unit.cli.named.client_samples import EMPTY, EVIL, HOSTILE, NAMES, POSTER

EACH = pytest.mark.parametrize("described", [POSTER, HOSTILE, EMPTY], ids=lambda described: described.name)


def module_of(described: Described) -> Any:
    """The client, imported."""
    module = ModuleType("generated_client")
    sys.modules["generated_client"] = module  # dataclasses look for it
    exec(compile(client_of(described), "generated_client.py", "exec"), module.__dict__)
    return module


def class_in(module: Any) -> Any:
    return next(
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, module.Workflow) and value is not module.Workflow
    )


def arguments(described: Described) -> dict[str, inspect.Parameter]:
    return {
        name: one
        for name, one in inspect.signature(class_in(module_of(described)).run).parameters.items()
        if one.kind is one.KEYWORD_ONLY
    }


def hints(described: Described) -> dict[str, Any]:
    module = module_of(described)
    return get_type_hints(class_in(module).run, vars(module))


@EACH
def test_the_same_description_is_always_the_same_text(described: Described) -> None:
    assert client_of(described) == client_of(replace(described))


@EACH
def test_it_is_plain_python_of_3_10_on_the_standard_library_alone(described: Described) -> None:
    tree = ast.parse(client_of(described), feature_version=(3, 10))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([str(node.module)] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert imported <= sys.stdlib_module_names


@EACH
def test_every_argument_stands_for_one_input(described: Described) -> None:
    given = arguments(described)
    properties = described.schema.get("properties", {})
    required = [name for name, one in given.items() if one.default is one.empty]
    assert len(given) == len(properties)
    assert len(required) == len(described.schema.get("required", ()))
    assert all(name.isidentifier() for name in given)


def test_arguments_have_the_names_types_and_defaults_of_the_inputs() -> None:
    assert str(inspect.signature(class_in(module_of(POSTER)).run)) == (
        "(self, *, prompt: 'str' = 'a fox', seed: 'int' = -1, cfg: 'float' = 7, sampler: 'Sampler' = 'euler', "
        "upscale: 'bool' = False, photo: 'File', frames: 'File | Sequence[File]' = 'frame.png') -> 'PosterResult'"
    )


def test_choices_are_literals() -> None:
    assert get_args(hints(POSTER)["sampler"]) == ("euler", "ddim")
    told = hints(HOSTILE)
    assert len(get_args(told["model"])) == 5000
    assert get_args(get_args(told["odd"])[0]) == (EVIL, 1, True, None, "x" * 500)
    assert get_args(get_args(told["open"])[0]) == ("a", EVIL)


def test_a_default_that_is_no_choice_any_more_is_no_default_of_its_type() -> None:
    assert repr(arguments(HOSTILE)["gone"].default) == "Ellipsis"


def test_a_long_default_is_shown_short_as_it_is_not_sent() -> None:
    assert len(repr(arguments(HOSTILE)["long"].default)) < 100


def test_names_that_no_argument_can_have_become_ones_that_it_can() -> None:
    given = arguments(HOSTILE)
    assert {"class_", "self_", "from_", "inputs", "None_", "input_1st_image", "a_b", "a_b_2", "a_b_3"} <= set(given)
    assert len(given) >= len(NAMES)


def test_nothing_of_an_author_is_code() -> None:
    tree = ast.parse(client_of(HOSTILE))
    own = ast.parse(client_of(replace(HOSTILE, description="", created_at="")))

    def calls(of: ast.AST) -> list[str]:
        return sorted(ast.dump(node.func) for node in ast.walk(of) if isinstance(node, ast.Call))

    assert calls(tree) == calls(own)
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.Expr, ast.AnnAssign)
    assert all(isinstance(node, kinds) for node in tree.body)
    text = client_of(HOSTILE)
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    text.encode()


def test_descriptions_are_docstrings() -> None:
    poster = class_in(module_of(POSTER))
    assert poster.__doc__ == "Paints a poster."
    assert "prompt: What is painted." in poster.run.__doc__
    assert "cfg: from 0 to 100 in steps of 0.5." in poster.run.__doc__
    hostile = class_in(module_of(HOSTILE))
    assert hostile.__doc__.startswith('said """hi""" \\')
    assert "class_:" in hostile.run.__doc__
    assert 'called "class" by the workflow' in " ".join(hostile.run.__doc__.split())


def test_it_says_how_it_was_made_and_what_it_runs() -> None:
    head = module_of(POSTER).__doc__
    assert "Made by `comfy-serverless workflows client poster` from version 3, of 2026-11-29T12:00:00.000Z." in head
    assert "It runs what `live` is." in head
    assert "Poster().run(photo=…)" in head
    pinned = module_of(replace(POSTER, alias="")).__doc__
    assert "client poster --version 3` from version 3" in pinned
    assert "It runs version 3, whatever `live` is." in pinned
    assert "client result --alias staging`" in module_of(HOSTILE).__doc__


def test_it_pins_the_alias_or_the_version() -> None:
    pairs = [(POSTER, ("live", None)), (HOSTILE, ("staging", None)), (EMPTY, ("live", 1))]
    for described, expected in pairs:
        of = class_in(module_of(described))
        assert (of._alias, of._version) == expected


def test_outputs_have_their_names_and_hide_nothing_of_a_result() -> None:
    module = module_of(HOSTILE)
    result = class_in(module)._result
    assert {"job_2", "outputs_2", "class_"} <= set(dir(result))
    assert result.save is module.Result.save
    assert result._of is module.Result._of
    assert class_in(module_of(EMPTY))._result.__name__ == "Result"


def test_the_class_is_called_like_the_workflow_and_like_nothing_else_there() -> None:
    assert class_in(module_of(POSTER)).__name__ == "Poster"
    assert class_in(module_of(HOSTILE)).__name__ == "ResultWorkflow"
    assert class_in(module_of(EMPTY)).__name__ == "Workflow3dThing"
    assert class_in(module_of(replace(EMPTY, name="dict"))).__name__ == "Dict"
