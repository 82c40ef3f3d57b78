"""Which batches a command is about: those of a stack, or those of a key.

--stack NAME, or COMFY_STACK ──► the stack (`of_stack`): what was dropped, and batches of all owners
else COMFY_BASE_URL          ──► the API (`over_http`): those of the key's owner
"""

from __future__ import annotations

import argparse
import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

from comfy_serverless.cli.remote_variables import KEY_VARIABLE, URL_VARIABLE
from comfy_serverless.cli.stack import STACK_VARIABLE, Stack, explained

if TYPE_CHECKING:
    from comfy_serverless.cli.batches.place import Place

#: Which of the two is meant, in words, for --help.
RULE: Final = f"""\
Which batches: those of the stack that --stack or {STACK_VARIABLE} names, with your AWS credentials; without either
those of your key, at the API that {URL_VARIABLE} names, with {KEY_VARIABLE} alone."""


def place_of(options: argparse.Namespace) -> Place:
    """The place that options and environment mean; without any the program ends as after any wrong usage."""
    if options.stack:
        from comfy_serverless.cli.batches.of_stack import OfStack

        return OfStack(Stack.of(str(options.stack)))
    if is_over_http(options):
        from comfy_serverless.cli.batches.over_http import OverHttp
        from comfy_serverless.cli.remote import Api

        return OverHttp(Api.from_environment())
    options.wrong_usage(
        f"which batches? Give --stack NAME (the name it was deployed with), or set {STACK_VARIABLE}; or set "
        f"{URL_VARIABLE} and {KEY_VARIABLE}, which need no AWS credentials"
    )
    raise AssertionError("unreachable: a wrong usage ends the program")


def is_over_http(options: argparse.Namespace) -> bool:
    """Whether the batches are those of a key."""
    return not options.stack and bool(os.environ.get(URL_VARIABLE, "").strip())


def refusals_explained(options: argparse.Namespace, *, needs: str) -> AbstractContextManager[None]:
    """Explains what AWS refuses, if the commands ask AWS."""
    return explained(options, needs=needs) if options.stack else nullcontext()
