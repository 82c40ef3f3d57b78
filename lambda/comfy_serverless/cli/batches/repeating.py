"""Failed lines of a batch are run again, as a batch of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_serverless.batches.retry import Selection
from comfy_serverless.cli.batches.check import Findings
from comfy_serverless.cli.batches.submitting import Submitted
from comfy_serverless.cli.habits import counted, say

if TYPE_CHECKING:
    from comfy_serverless.cli.batches.place import Again, Known, Place


def retry(place: Place, batch: Known, name: str, *, only: str) -> tuple[Submitted | None, Again]:
    """Run the chosen lines of a batch as NAME-again, and say which are left out; None if nothing is to be run.

    Raises NotFound if the batch has not ended, and InvalidRequest if `only` chooses nothing that can be.
    """
    again = place.again(batch, Selection.parse(only), only)
    for reason, count in again.left_out.items():
        say(f"{counted(count, 'line')} left out: {reason}.")
    if again.taken is None:
        rest = " `--only all` runs the failed ones all the same." if again.left_out else ""
        say(f"There is nothing to run again of the batch {name}.{rest}")
        return None, again
    say(f"{counted(again.count, 'line')} of {name} will run again, as the batch {again.name}.")
    return Submitted(again.name, again.taken, Findings(requests=again.count), 0), again
