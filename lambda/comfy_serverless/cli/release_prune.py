"""`comfy-serverless release prune`: which releases nobody goes back to, and the deletion of their stacks.

`judge` decides, without IO. A release is forgotten (`live`) before its stack is deleted: nobody can roll back to one
that is going.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from botocore.exceptions import WaiterError

from comfy_serverless.cli.habits import counted, one_line, say
from comfy_serverless.cli.releases import SETTLED_S, Releases, Standing
from comfy_serverless.errors import InvalidRequest, UpstreamError
from comfy_serverless.table.live import DEFAULT, Live

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

#: The kinds of stacks that a release can be: infra/app.py.
_KINDS: Final = ("sagemaker", "lambda-gpu", "lambda-cpu")
#: How often CloudFormation is asked, in seconds, and how many times: interfaces in a VPC take Lambda up to 40 minutes.
ASKED_EVERY_S, ASKED_TIMES = 15, 240


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a release may go.

    Attributes:
        kept: why it stays, as the end of a sentence; "" if it may go.
    """

    standing: Standing
    kept: str = ""

    @property
    def name(self) -> str:
        """The release's name."""
        return self.standing.release.name


def judge(
    standings: Iterable[Standing], live: Live, *, stack: str, with_previous: bool, now: datetime
) -> list[Verdict]:
    """Judge every release but the live one and `default`, which is no stack of its own.

    Args:
        stack: of whose releases they are.
        with_previous: those too that a rollback leads to.
    """
    others = (one for one in standings if one.release.name not in {live.now.name, DEFAULT})
    return [Verdict(one, _kept(one, live, stack, with_previous=with_previous, now=now)) for one in others]


def _kept(one: Standing, live: Live, stack: str, *, with_previous: bool, now: datetime) -> str:
    name = one.release.name
    was_live = name in {before.name for before in (*live.before, *live.left)}
    if one.problem:
        return f"its parameter cannot be used: {one.problem}"
    if not one.announced_at:
        return "its stack is gone already; it is forgotten by itself"
    if one.release.stack not in {f"{stack}-{kind}-{name}" for kind in _KINDS}:
        named = one_line(one.release.stack) if one.release.stack else "none"
        return f"the stack that it names ({named}) is not a release of {stack}: delete it by hand"
    if name in {before.name for before in live.before} and not with_previous:
        return "a rollback leads to it (--previous takes it, too)"
    if not was_live and one.announced_at > live.now.since:
        return "it was deployed after the live one was promoted: it is still to be promoted"
    if was_live and _is_sent_to(live, now):
        return f"functions may still send jobs to it, {SETTLED_S} s from the last change on"
    if not one.is_empty:
        return f"jobs are still in it ({one.waiting} wait, {one.running} run)"
    return ""


def _is_sent_to(live: Live, now: datetime) -> bool:
    try:
        return now - datetime.fromisoformat(live.now.since) <= timedelta(seconds=SETTLED_S)
    except ValueError:
        return True


def agreed(verdicts: Sequence[Verdict]) -> bool:
    """Ask a person whether these are deleted. Raises InvalidRequest where nobody can answer."""
    if not sys.stdin.isatty():
        raise InvalidRequest("nobody can be asked here: --yes deletes without asking. Nothing was deleted.")
    print(f"Delete {counted(len(verdicts), 'stack')}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


@dataclass(frozen=True, slots=True)
class Pruning:
    """Deletes releases of one stack."""

    releases: Releases
    cloudformation: CloudFormationClient

    def verdicts(self, live: Live, *, with_previous: bool) -> list[Verdict]:
        """All releases but the live one, judged as they are now."""
        return judge(
            self.releases.all(), live, stack=self.releases.stack, with_previous=with_previous, now=datetime.now(UTC)
        )

    def delete(self, seen: Live, verdicts: Sequence[Verdict], *, with_previous: bool) -> None:
        """Forget these releases, delete their stacks, and wait until they are gone.

        Raises:
            InvalidRequest: another release has become live since, or jobs have come to one of them. Nothing is deleted.
            UpstreamError: CloudFormation could not delete some; the message says which, and why.
        """
        names = {verdict.name for verdict in verdicts}

        def decide(live: Live, _at: str) -> Live:
            again = {one.name: one.kept for one in self.verdicts(live, with_previous=with_previous)}
            if changed := {name: again.get(name, "it is gone") for name in names if again.get(name, "it is gone")}:
                listing = "; ".join(f"{name}: {kept}" for name, kept in sorted(changed.items()))
                raise InvalidRequest(f"{listing}. Nothing was deleted: look at `release prune`, and try again.")
            return live.forgotten(names)

        self.releases.change(seen, decide)
        stacks = {verdict.name: verdict.standing.release.stack for verdict in verdicts}
        for name, stack in stacks.items():
            self.cloudformation.delete_stack(StackName=stack)
            say(f"{name}: {stack} is being deleted; CloudFormation goes on if this command ends")
        self._wait(stacks)

    def _wait(self, stacks: Mapping[str, str]) -> None:
        failed: list[str] = []
        waiter = self.cloudformation.get_waiter("stack_delete_complete")
        for name, stack in stacks.items():
            try:
                waiter.wait(StackName=stack, WaiterConfig={"Delay": ASKED_EVERY_S, "MaxAttempts": ASKED_TIMES})
                say(f"{name} is gone")
            except WaiterError as error:
                failed.append(f"{stack} is not deleted: {_reason(error)}")
        if failed:
            raise UpstreamError(
                f"{'; '.join(failed)}. Its events say more: aws cloudformation describe-stack-events --stack-name "
                "NAME. `release prune --delete` tries again."
            )


def _reason(error: WaiterError) -> str:
    answer = cast("Mapping[str, Any]", error.last_response)
    stack = (answer.get("Stacks") or [{}])[0]
    reason = stack.get("StackStatusReason") or stack.get("StackStatus") or error
    return one_line(str(reason))[:500]
