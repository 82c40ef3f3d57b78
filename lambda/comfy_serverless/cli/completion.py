"""`comfy-serverless completion`: prints what makes a shell complete our commands, options and files.

The scripts are made of the parser itself, so that they know what it knows; a shell never waits for Python.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from comfy_serverless.cli.habits import add_command

PROGRAM = "comfy-serverless"
#: The arguments that are names of workflows: the command, and what argparse calls them.
_NAMES = frozenset({("run", "workflow"), ("workflows", "name"), ("workflows", "reference")})
#: What prints those that were listed last (`cli.named.names`), and nothing that a shell would run.
_LISTED = "tr -cd 'A-Za-z0-9_\\n-' 2>/dev/null < \"${XDG_CACHE_HOME:-$HOME/.cache}/comfy-serverless/workflow-names\""
_EXAMPLES = (
    "source <(comfy-serverless completion bash)                             in ~/.bashrc",
    "source <(comfy-serverless completion zsh)                              in ~/.zshrc, after compinit",
    "comfy-serverless completion fish > ~/.config/fish/completions/comfy-serverless.fish",
)


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command.

    Attributes:
        names: `-h`, `--help`.
        takes_value: whether a value follows.
        choices: what that value can be; empty for anything, files too.
    """

    names: tuple[str, ...]
    summary: str
    takes_value: bool
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """A point of the command line: after the program, a command, or an action of one.

    Attributes:
        words: what stands before: `("keys", "create")`.
        actions: the commands that may follow, with their summaries.
        choices: what its argument can be, if that is one of a list.
        takes_files: whether an argument may be a file.
        takes_names: whether the first argument may be the name of a workflow: of those that were listed last.
    """

    words: tuple[str, ...]
    actions: tuple[tuple[str, str], ...]
    options: tuple[Option, ...]
    choices: tuple[str, ...]
    takes_files: bool
    takes_names: bool = False


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `completion` to the commands of the command line."""
    completion = add_command(
        commands,
        "completion",
        summary="print what makes bash, zsh or fish complete these commands",
        examples=_EXAMPLES,
        prints_data=False,
    )
    completion.add_argument("shell", choices=sorted(_SCRIPTS), help="for which shell")
    completion.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the script. Returns the exit code."""
    from comfy_serverless.cli.main import parser

    print(_SCRIPTS[options.shell](list(places(parser()))))
    return 0


def places(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[Place]:
    """Every point of a command line, the program's own first."""
    actions: list[tuple[str, str]] = []
    options: list[Option] = []
    choices: list[str] = []
    takes_files = takes_names = False
    inner: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            actions = [(entry.dest, entry.help or "") for entry in action._choices_actions]  # without their aliases
            inner = dict(action.choices)
        elif action.option_strings:
            given = tuple(map(str, action.choices or ()))
            options.append(Option(tuple(action.option_strings), _plain(action.help), action.nargs != 0, given))
        elif action.choices:
            choices += map(str, action.choices)
        else:
            takes_files = True
            takes_names = takes_names or (*words[:1], action.dest) in _NAMES
    yield Place(words, tuple(actions), tuple(options), tuple(choices), takes_files, takes_names)
    for name, command in inner.items():
        yield from places(command, (*words, name))


def _bash(found: Sequence[Place]) -> str:
    known = " ".join(_quoted(" ".join(place.words)) for place in found if place.words)
    cases = "\n".join(map(_bash_case, found))
    return _BASH.format(program=PROGRAM, known=known, cases=cases, listed=_LISTED)


def _bash_case(place: Place) -> str:
    values = {name: option.choices for option in place.options if option.takes_value for name in option.names}
    after = [
        f"        {name}) {_bash_words(choices) if choices else 'return'} ;;"  # without words: files
        for name, choices in values.items()
    ]
    words = [name for name, _ in place.actions] + list(place.choices)
    names = [name for option in place.options for name in option.names]
    lines = [
        f"    {_quoted(' '.join(place.words))})",
        *(['      case "$previous" in', *after, "      esac"] if after else []),
        f"      words={_quoted(' '.join(words))} options={_quoted(' '.join(names))}{_bash_names(place)} ;;",
    ]
    return "\n".join(lines)


def _bash_names(place: Place) -> str:
    """Lets the first argument be the name of a workflow; a file, where no name fits."""
    depth = len(place.words) + 1
    return f' names="$(( COMP_CWORD == {depth} ))"' if place.takes_names else ""


def _bash_words(choices: Sequence[str]) -> str:
    return f'COMPREPLY=($(compgen -W {_quoted(" ".join(choices))} -- "$current")); return'


_BASH = """\
# Completion of {program} for bash. Made by `{program} completion bash`.
_comfy_serverless() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
  local place="" word known words="" options="" names=0
  COMPREPLY=()
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    for known in {known}; do
      if [[ "$known" == "${{place:+$place }}$word" ]]; then place="$known"; break; fi
    done
  done
  case "$place" in
{cases}
  esac
  if [[ "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$current"))
  elif [[ -n "$words" ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  elif (( names )); then
    COMPREPLY=($(compgen -W "$({listed})" -- "$current"))
  fi
}}
complete -o default -F _comfy_serverless {program}"""


def _zsh(found: Sequence[Place]) -> str:
    functions = []
    for place in found:
        specs = [_zsh_option(option) for option in place.options]
        if place.actions:
            specs += ["'1: :->action'", "'*:: :->rest'"]
        elif place.choices:
            specs.append(f"'1: :({' '.join(place.choices)})'")
        elif place.takes_files:
            specs += ["'1:name:_comfy_serverless_names'"] if place.takes_names else []
            specs.append("'*:file:_files'")
        lines = " \\\n    ".join(specs)
        body = f"  _arguments -C \\\n    {lines}\n"
        if place.actions:
            described = "\n".join(
                f"      {_quoted(_escaped(name) + ':' + _escaped(text))}" for name, text in place.actions
            )
            cases = "\n".join(f"        {name}) {_function((*place.words, name))} ;;" for name, _ in place.actions)
            body = (
                "  local -a actions; local context state line\n"
                + body
                + f"  case $state in\n    action)\n      actions=(\n{described}\n      )\n"
                + "      _describe 'command' actions ;;\n"
                + f"    rest)\n      case $words[1] in\n{cases}\n      esac ;;\n  esac\n"
            )
        functions.append(f"{_function(place.words)}() {{\n{body}}}")
    joined = "\n".join(functions)
    return f"""\
#compdef {PROGRAM}
# Completion of {PROGRAM} for zsh. Made by `{PROGRAM} completion zsh`.
_comfy_serverless_names() {{
  compadd -- ${{(f)"$({_LISTED})"}}
  _files
}}
{joined}
compdef {_function(())} {PROGRAM}"""


def _zsh_option(option: Option) -> str:
    value = f":value:({' '.join(option.choices)})" if option.choices else ":value:_files" if option.takes_value else ""
    names = "{" + ",".join(option.names) + "}" if len(option.names) > 1 else option.names[0]
    text = f"[{_escaped(option.summary)}]{value}"
    return f"'*'{names}{_quoted(text)}"


def _fish(found: Sequence[Place]) -> str:
    lines = [_FISH_HEAD.format(program=PROGRAM)]
    for place in found:
        words = " ".join(place.words)
        # Commands, and arguments of a list, come next; elsewhere fish completes files by itself.
        next_word = f"complete -c {PROGRAM} -n '__comfy_serverless_next {words}' -f"
        lines += [f"{next_word} -a {name} -d {_quoted(text)}" for name, text in place.actions]
        lines += [f"{next_word} -a {_quoted(' '.join(place.choices))}"] if place.choices else []
        # Files are completed beside the names: so no -f.
        lines += [f"{next_word.removesuffix(' -f')} -a '(__comfy_serverless_names)'"] if place.takes_names else []
        for option in place.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = (
                f" -x -a {_quoted(' '.join(option.choices))}" if option.choices else " -r" if option.takes_value else ""
            )
            lines.append(
                f"complete -c {PROGRAM} -n '__comfy_serverless_at {words}' {names}{value} -d {_quoted(option.summary)}"
            )
    return "\n".join(lines)


_FISH_HEAD = """\
# Completion of {program} for fish. Made by `{program} completion fish`.
function __comfy_serverless_at
    set -l words (commandline -opc | string match -v -- '-*')
    set -l wanted {program} $argv
    set -l length (count $wanted)
    test "$words[1..$length]" = "$wanted"
end
function __comfy_serverless_names
    set -l folder $XDG_CACHE_HOME
    test -n "$folder"; or set folder $HOME/.cache
    cat $folder/comfy-serverless/workflow-names 2>/dev/null | string match -r '^[A-Za-z0-9_-]+$'
end
function __comfy_serverless_next
    set -l words (commandline -opc | string match -v -- '-*')
    test "$words" = "$(string join ' ' -- {program} $argv)"
end"""

_SCRIPTS = {"bash": _bash, "fish": _fish, "zsh": _zsh}


def _function(words: Sequence[str]) -> str:
    return "_" + "_".join(re.sub(r"\W", "_", word) for word in (PROGRAM, *words))


def _plain(summary: str | None) -> str:
    """A help text without what argparse fills in."""
    return (summary or "").replace("%%", "%")


def _escaped(text: str) -> str:
    """A text inside `[…]` of zsh's `_arguments`, or before a colon of `_describe`."""
    return re.sub(r"([\[\]:\\])", r"\\\1", text)


def _quoted(text: str) -> str:
    """A word for any of these shells, in single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"
