"""Budgets of keys: what their jobs of a month may cost, and what happens to the next one then.

A budget is held against jobs that have ended, as this process knew them at most half a minute ago: what is waiting and
running comes on top. Where the sum cannot be read the job is taken: a budget is there to notice, not to stop work
because a table is slow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.errors import BudgetExceeded
from comfy_serverless.jobs.prices import usd
from comfy_serverless.observability import log
from comfy_serverless.table.api_keys import BudgetAction
from comfy_serverless.table.usage import this_month

if TYPE_CHECKING:
    from comfy_serverless.api.auth import Caller
    from comfy_serverless.table.usage import UsageStore


#: How a warning begins.
_OF_BUDGET: Final = "the jobs of this key have cost"


def is_of_budget(warning: str) -> bool:
    """Whether a job's warning is of the budget of its key, as that stood when it was taken."""
    return warning.startswith(_OF_BUDGET)


def spent(who: Caller, usage: UsageStore) -> int | None:
    """What the jobs of a key have cost this month, in nano-dollars; None if that cannot be read now."""
    try:
        return usage.spent_nanousd(who.owner, who.key_id)
    except (ClientError, BotoCoreError, TimeoutError):
        log.warning("what a key has spent could not be read: its job is taken", key_id=who.key_id, exc_info=True)
        return None


def check_budget(who: Caller, usage: UsageStore) -> str | None:
    """Hold a job that is about to be taken against the budget of its key. Returns a warning for it, if it needs one.

    Raises BudgetExceeded if the budget is used up and the key says so.
    """
    if who.budget_nanousd is None or (now := spent(who, usage)) is None or now < who.budget_nanousd:
        return None
    sums = f"{usd(now):.2f} USD of {usd(who.budget_nanousd):.2f} USD in {this_month()}"
    if who.budget_action is BudgetAction.REFUSE:
        raise BudgetExceeded(
            f"the jobs of this key have cost what they may this month ({sums}, estimated): it works again next month, "
            "or once the operator has raised its budget (`comfy-serverless keys change`).",
            details={
                "month": this_month(),
                "spent_usd": usd(now),
                "budget_usd": usd(who.budget_nanousd),
            },
        )
    return f"{_OF_BUDGET} {sums} (estimated): the budget is used up, and jobs are taken all the same"
