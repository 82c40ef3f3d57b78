"""A walk over all commands and their actions: what holds for one holds for each, also for the next one."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from comfy_serverless.cli import completion
from comfy_serverless.cli.main import COMMANDS, Command, main, parser
from comfy_serverless.cli.paths import local_path
from tests.patience import PATIENCE_S

Leaf = tuple[tuple[str, ...], argparse.ArgumentParser]


def leaves(within: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Every command, or action of one, that can be run."""
    inner = [action for action in within._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield words, within
    for entry in inner[0]._choices_actions if inner else ():  # without their aliases
        yield from leaves(inner[0].choices[entry.dest], (*words, entry.dest))


LEAVES = dict(leaves(parser()))
#: What takes any text, and says later whether there is such a file.
PATHS = (None, Path, local_path)
EACH = pytest.mark.parametrize("words", LEAVES, ids=" ".join)
#: They print words or a script, and no data.
WITHOUT_DATA = {("completion",)}


def child(
    *arguments: str, stdout: int | IO[str], program: Sequence[str] = ("-m", "comfy_serverless.cli")
) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path("lambda").resolve()), "HOME": "/nowhere"}
    return subprocess.Popen(
        [sys.executable, *program, *arguments], env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True
    )


@EACH
def test_the_help_has_an_example_of_this_very_command_and_its_exit_codes(words: tuple[str, ...]) -> None:
    text = LEAVES[words].format_help()
    examples = text.partition("example")[2]
    assert f"comfy-serverless {' '.join(words)}" in examples
    assert "exit codes: 0 done" in text


@pytest.mark.parametrize(
    ("line", "usage", "words"),
    [
        ("rn", "[-h] [--version] COMMAND", "invalid choice: 'rn' (did you mean run?); choose from run, convert,"),
        ("batch statsu x", "batch [-h] ACTION", "invalid choice: 'statsu' (did you mean status?); choose from run,"),
        ("jobs ls --status done", "jobs ls [-h]", "invalid choice: 'done'; choose from queued, running,"),
        ("jobs show x --jsn", "jobs show [-h]", "unrecognized arguments: --jsn (did you mean --json?)"),
        ("run a.json --sett seed=4", "run [-h]", "unrecognized arguments: --sett seed=4 (did you mean --set?)"),
        ("jobs show x y", "jobs show [-h]", "unrecognized arguments: y"),
        ("--verison", "[-h] [--version] COMMAND", "unrecognized arguments: --verison (did you mean --version?)"),
    ],
)
def test_a_slip_of_the_pen_is_told_the_usage_of_its_own_command_and_what_was_meant(
    line: str, usage: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.startswith(f"usage: comfy-serverless {usage}")
    assert f"error: {'argument ' if 'invalid choice' in words else ''}" in told
    assert words in told


def test_every_list_is_called_ls_and_taken_as_list_too() -> None:
    lists = [words for words in LEAVES if words[-1] == "ls"]
    told = " ".join(words[0] for words in lists)
    assert told == "workflows keys batch jobs assets outputs models release"
    assert not [words for words in LEAVES if words[-1] == "list"]
    for words in lists:
        ways = [vars(parser().parse_args([*words[:-1], name])) for name in ("ls", "list")]
        assert ways[0].pop("run").__qualname__ == ways[1].pop("run").__qualname__
        assert [way.pop("wrong_usage", None) is None for way in ways] in ([True] * 2, [False] * 2)
        assert ways[0] == ways[1]
        assert ways[0]["action"] == "ls"


@EACH
def test_what_prints_data_prints_it_as_json_too(words: tuple[str, ...]) -> None:
    assert ("--json" in LEAVES[words].format_help()) == (words not in WITHOUT_DATA)


@EACH
def test_a_path_is_what_people_write_in_every_option(words: tuple[str, ...]) -> None:
    """No shell opens the `~` of `--out=~/made`, or of what a program hands over."""
    assert not [action.dest for action in LEAVES[words]._actions if action.type is Path]


def test_a_home_is_found_wherever_a_run_takes_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
    workflow = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    (home / "graph.json").write_text(json.dumps(workflow))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    assert main(["run", "~/graph.json", "--out=~/made", "--log=~/engine.log"]) == 0, capsys.readouterr().err
    assert main(["convert", "~/graph.json", "-o", "~/api.json"]) == 0, capsys.readouterr().err
    assert {"api.json", "engine.log", "graph.json", "made"} <= {path.name for path in home.iterdir()}
    assert [path.suffix for path in (home / "made").iterdir()] == [".png"]
    assert list(here.iterdir()) == []


@EACH
def test_every_option_says_what_it_is_for(words: tuple[str, ...]) -> None:
    assert all(action.help for action in LEAVES[words]._actions)


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    whole = parser()
    [commands] = [action for action in whole._actions if isinstance(action, argparse._SubParsersAction)]
    assert [(entry.dest, entry.help) for entry in commands._choices_actions] == [
        (command.name, command.summary) for command in COMMANDS
    ]
    assert "examples:\n  comfy-serverless run workflow.json" in whole.format_help()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_loads_no_other_and_nothing_that_takes_time(command: Command) -> None:
    name = command.name
    program = (
        "import sys\nfrom comfy_serverless.cli.main import parser\n"
        f"parser([{name!r}])\nprint(*(name for name in sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    others = {f"comfy_serverless.cli.{other.module}" for other in COMMANDS if other.name != name}
    assert not others & set(loaded)
    heavy = {"boto3", "botocore", "pydantic", "websocket", "PIL", "numpy", "requests", "aiohttp"}
    assert not heavy & set(loaded)


@EACH
def test_a_value_that_is_none_is_refused_in_words_and_as_json(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    typed = [action for action in LEAVES[words]._actions if action.type not in PATHS and action.option_strings]
    for action in typed:
        with pytest.raises(SystemExit) as caught:
            main(
                [*words, *(["--json"] if words not in WITHOUT_DATA else []), action.option_strings[0], "\u2014no\u2014"]
            )
        assert caught.value.code == 2
        printed = capsys.readouterr()
        assert "invalid" not in printed.err.lower(), printed.err  # argparse's "invalid _seconds value"
        assert action.option_strings[0] in printed.err
        assert json.loads(printed.out)["error"]["code"] == "wrong_usage"


def test_an_unknown_command_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["rnu"], ["keys", "lst"], []):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert "usage: comfy-serverless" in capsys.readouterr().err


@EACH
def test_a_reader_that_has_gone_ends_the_command_in_silence(words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = child(*words, "--help", stdout=writing)
    os.close(writing)
    assert process.communicate(timeout=PATIENCE_S)[1] == ""
    assert process.returncode == 141


def test_it_does_so_whatever_is_printed() -> None:
    """`print(…, flush=True)` forgets what it could not write: a second flush succeeds."""
    program = (
        "import sys\nfrom comfy_serverless.cli import completion, habits, main\n"
        "completion.run = lambda options: habits.print_table(('a',), [['b']]) or 0\n"
        "sys.exit(main.main())"
    )
    reading, writing = os.pipe()
    os.close(reading)
    process = child("completion", "bash", program=("-c", program), stdout=writing)
    os.close(writing)
    assert process.communicate(timeout=PATIENCE_S)[1] == ""
    assert process.returncode == 141


def test_another_broken_pipe_is_a_failure_like_any_other() -> None:
    program = (
        "import sys\nfrom comfy_serverless.cli import completion, main\n"
        "def run(options):\n    raise BrokenPipeError('a socket')\n"
        "completion.run = run\nsys.exit(main.main())"
    )
    process = child("completion", "bash", program=("-c", program), stdout=subprocess.PIPE)
    assert "BrokenPipeError: a socket" in process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 1


def test_the_entry_point_loads_next_to_nothing_before_it_answers_ctrl_c() -> None:
    program = (
        "import sys\nbefore = set(sys.modules)\nimport comfy_serverless.cli.main\nprint(*set(sys.modules) - before)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": "lambda"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"typing", "re", "enum", "argparse", "json", "contextlib"} & set(loaded)


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = child("completion", "bash", stdout=full)
    assert "could not be written: No space left" in process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_reason_to_fail(closed: str) -> None:
    line = f'exec "{sys.executable}" -m comfy_serverless.cli completion bash {closed}'
    answer = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert bool(answer.stdout) == (">&-" not in closed.replace("2>&-", ""))


INTERRUPTED = """\
import os, signal, sys
where = sys.argv.pop(1)
class Interrupt:
    has_come = False
    def find_spec(self, name, path=None, target=None):
        if name == where:
            Interrupt.has_come = True
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from comfy_serverless.cli.main import main
status = main()
assert Interrupt.has_come
sys.exit(status)
"""
#: What is loaded on the way, from the first to the last.
ON_THE_WAY = [
    ("argparse", ["keys", "list"]),
    ("comfy_serverless.cli.habits", ["keys", "list"]),
    *((f"comfy_serverless.cli.{command.module}", [command.name, "--help"]) for command in COMMANDS),
    ("comfy_serverless.cli.local_run", ["run", "x.json"]),
    ("websocket", ["run", "x.json"]),
    ("urllib3", ["run", "x.json", "--json"]),
    ("botocore", ["keys", "list", "--table", "t"]),
]


@pytest.mark.parametrize(("where", "arguments"), ON_THE_WAY, ids=lambda part: part if isinstance(part, str) else "")
def test_ctrl_c_while_the_command_loads_ends_it_without_a_word_of_python(where: str, arguments: list[str]) -> None:
    process = child(where, *arguments, program=("-c", INTERRUPTED), stdout=subprocess.PIPE)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "KeyboardInterrupt" not in stderr


def test_every_table_is_printed_by_the_one_function_that_loses_nothing() -> None:
    sources = {
        path.name: path.read_text(encoding="utf-8") for path in Path("lambda/comfy_serverless/cli").rglob("*.py")
    }
    assert [name for name, text in sources.items() if "rich.table" in text] == []
    assert [name for name, text in sources.items() if "print(json.dumps" in text and "indent=" in text] == ["habits.py"]


def test_completion_knows_every_command_and_option() -> None:
    found = list(completion.places(parser()))
    assert {place.words for place in found if not place.actions and place.words[-1] != "list"} == set(LEAVES)
    for make in completion._SCRIPTS.values():
        script = make(found)
        for words, leaf in LEAVES.items():
            assert all(word in script for word in words)
            for action in leaf._actions:
                assert all(name.lstrip("-") in script for name in action.option_strings)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["ke"], ["keys"]),
        (["keys", ""], ["create", "change", "ls", "revoke"]),
        (["keys", "list", "--ta"], ["--table"]),
        (["keys", "create", "--ow"], ["--owner"]),
        (["keys", "create", "--owner", ""], []),
        (["completion", ""], ["bash", "fish", "zsh"]),
        (["run", "x.json", "--set"], ["--set", "--set-json"]),
    ],
    ids=" ".join,
)
def test_bash_completes_by_the_script(line: list[str], expected: list[str], tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(completion._bash(list(completion.places(parser()))))
    words = " ".join(f"'{word}'" for word in ["comfy-serverless", *line])
    program = (
        f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(line)}; _comfy_serverless; echo ${{COMPREPLY[@]}}"
    )
    answer = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == expected
    assert answer.stderr == ""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["run", "po"], ["poster"]),
        (["run", "poster", ""], []),
        (["workflows", "show", ""], ["poster", "fox"]),
        (["workflows", "client", "f"], ["fox"]),
        (["workflows", "promote", "poster", ""], []),
        (["keys", "revoke", ""], []),
    ],
    ids=" ".join,
)
def test_bash_completes_the_names_of_workflows_that_were_listed_last(
    line: list[str], expected: list[str], tmp_path: Path
) -> None:
    names = tmp_path / "comfy-serverless" / "workflow-names"
    names.parent.mkdir()
    script = tmp_path / "completion.bash"
    script.write_text(completion._bash(list(completion.places(parser()))))
    words = " ".join(f"'{word}'" for word in ["comfy-serverless", *line])
    program = (
        f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(line)}; _comfy_serverless; echo ${{COMPREPLY[@]}}"
    )

    def complete() -> tuple[list[str], str]:
        environment = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path)}
        answer = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, env=environment)
        return answer.stdout.split(), answer.stderr

    assert complete() == ([], "")
    names.write_text("poster\nfox\n")
    assert complete() == (expected, "")
    names.write_text(f"$(touch {tmp_path}/run)\n`touch {tmp_path}/run`\n")
    complete()
    assert not (tmp_path / "run").exists()
