"""One rule for all commands: how they find the stack, and what they say without one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from comfy_serverless.cli import main as cli_main


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for entry in action._choices_actions:  # without their aliases
                yield from parsers(action.choices[entry.dest])


def with_a_stack() -> dict[str, argparse.ArgumentParser]:
    return {
        parser.prog.partition(" ")[2]: parser
        for parser in parsers(cli_main.parser())
        # `needs` asks the ComfyUI here unless a stack is named: no variable makes it ask another. `env models` needs
        # none to look, `workflows` asks the API unless the operator's are meant (--shared), and so does `usage`.
        if any("--stack" in action.option_strings for action in parser._actions)
        and not parser.prog.endswith((" needs", " env models", " usage"))
        and " workflows " not in parser.prog
    }


def arguments_of(parser: argparse.ArgumentParser) -> list[str]:
    """Something for all that a command cannot do without."""
    given = []
    for action in parser._actions:
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction):
            given.append("x")
        elif action.required:
            given += [action.option_strings[0], "x"]
    for group in parser._mutually_exclusive_groups:
        if group.required:
            given += next(action.option_strings[:1] for action in group._group_actions if action.nargs == 0)
    return given


@pytest.mark.parametrize("command", with_a_stack())
def test_a_command_for_a_stack_names_the_variable_and_takes_it(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("COMFY_STACK", "JOBS_TABLE"):
        monkeypatch.delenv(name, raising=False)
    parser = with_a_stack()[command]
    assert "COMFY_STACK" in parser.format_help()
    with pytest.raises(SystemExit) as exit_:
        cli_main.main([*command.split(), *arguments_of(parser)])
    assert exit_.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "--stack NAME" in told
    assert "COMFY_STACK" in told
    monkeypatch.setenv("COMFY_STACK", "mine")
    options = cli_main.parser().parse_args([*command.split(), *arguments_of(parser)])
    assert options.stack == "mine"


def test_the_commands_for_a_stack_are_these_at_least() -> None:
    assert {"keys ls", "batch submit", "batch status", "logs"} <= set(with_a_stack())
