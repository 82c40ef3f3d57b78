"""Whether the key that a batch came with may still cost something: a batch is paused whose key's budget is used up.

A budget is held against jobs that have ended; what workers have begun ends as ever. Where a key or its sum cannot be
read the batch goes on: a budget is there to notice, and no slow table stops work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.jobs.prices import usd
from comfy_serverless.observability import log
from comfy_serverless.table.api_keys import BudgetAction
from comfy_serverless.table.usage import this_month

if TYPE_CHECKING:
    from comfy_serverless.batches.batch import Batch
    from comfy_serverless.table.api_keys import ApiKeyStore
    from comfy_serverless.table.usage import UsageStore


@dataclass(frozen=True, slots=True)
class BatchBudgets:
    """The budgets of keys, as batches are held against them."""

    keys: ApiKeyStore
    usage: UsageStore

    def reason_to_pause(self, batch: Batch) -> str | None:
        """Why a batch may not go on, in words for its owner; None if it may. Three reads at most."""
        if batch.key_id is None:
            return None
        try:
            key = self.keys.with_id(batch.key_id)
            if key is None or key.budget_nanousd is None or key.budget_action is not BudgetAction.REFUSE:
                return None
            spent = self.usage.spent_nanousd(batch.owner, key.id)
        except (ClientError, BotoCoreError, TimeoutError):
            log.warning("the budget of a batch's key could not be read: it goes on", batch=batch.id, exc_info=True)
            return None
        if spent < key.budget_nanousd:
            return None
        return (
            f"the jobs of its key {key.name!r} have cost what they may in {this_month()} ({usd(spent):.2f} USD of "
            f"{usd(key.budget_nanousd):.2f} USD, estimated): resume it next month, or once the key's budget is raised"
        )
