"""`comfy-serverless workflows share` and `unshare`: whether everybody may run a workflow of the operator's."""

from __future__ import annotations

import argparse
from typing import Final

from comfy_serverless.cli.habits import add_command, print_json, say
from comfy_serverless.cli.stack import add_stack_option, chosen_stack, explained

_NOTES: Final = """\
The workflow is the operator's, of the stack that --stack or COMFY_STACK names, with credentials of AWS; `workflows push
--shared` shares what it pushes. What is not shared is the operator's alone: others neither see it nor run it, also not
as shared/NAME@3. Jobs that were taken before, and lines of batches that were read, run to their end.
"""
#: What the two ask for.
_NEEDS: Final = (
    "cloudformation:DescribeStacks; ssm:GetParameters and GetParametersByPath below /comfy-serverless/STACK/; "
    "dynamodb:GetItem, Query and UpdateItem on the table; s3:GetObject on the assets bucket"
)


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `share` and `unshare` to the actions of `workflows`."""
    for name, summary, is_shared in (
        ("share", "let everybody who has a key run a workflow of the operator's", True),
        ("unshare", "let nobody else run a workflow of the operator's any more", False),
    ):
        example = f"comfy-serverless workflows {name} house-style --stack comfy-serverless"
        action = add_command(actions, name, summary=summary, examples=(example,), notes=_NOTES)
        action.add_argument("name", metavar="NAME", help="its name, as `workflows ls --shared` shows it")
        add_stack_option(action)
        action.set_defaults(run=run, is_shared=is_shared)


def run(options: argparse.Namespace) -> int:
    """Share it, or share it no more; what is so already stays so. A `ComfyError` says in its message what to do."""
    from comfy_serverless.cli.stack import operators_workflows

    name, is_shared = options.name, options.is_shared
    with explained(options, needs=_NEEDS):
        is_new = operators_workflows(chosen_stack(options)).share(name, is_shared=is_shared)
    if options.json:
        print_json({"name": name, "is_shared": is_shared})
    match is_shared, is_new:
        case True, _:
            say(f"{name} is shared{'' if is_new else ' already'}: everybody who has a key may run it.")
        case False, True:
            say(f"{name} is not shared any more: new runs of others are refused; jobs that were taken before run.")
            say(f"comfy-serverless workflows share {name} shares it again, and so does a push with --shared.")
        case _:
            say(f"{name} is not shared: nobody else may run it.")
    return 0
