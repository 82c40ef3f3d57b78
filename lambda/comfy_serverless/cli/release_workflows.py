"""Named workflows, and the files in the image, beside a release: before jobs go to it, and again when they do.

What fails already on the workers that are live is told, and stops nothing: another release does not break it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_serverless.cli.habits import counted, say
from comfy_serverless.cli.workflow_doctor import in_words
from comfy_serverless.errors import InvalidRequest

if TYPE_CHECKING:
    from comfy_serverless.cli.named.of_releases import OfReleases
    from comfy_serverless.table.live import Release
    from comfy_serverless.workflows.doctor import Examined
    from comfy_serverless.workflows.image_files import ImageFiles


def check_workflows(workflows: OfReleases, release: Release, *, live: Release, is_forced: bool, wait: bool) -> None:
    """Hold everybody's named workflows, and the files in the image, against a release that is to be live.

    Args:
        wait: whether its workers have run a job just now, after which they tell what they have.

    Raises:
        InvalidRequest: some would fail on it that do not on the live one, and nobody insists (`is_forced`).
    """
    heads, files = workflows.heads(), workflows.files()
    _say_what_is_not_held(files, release)
    count = len(heads) + (0 if files is None else len(files.texts))
    if not count:
        return
    deployed = workflows.deployed(release, wait=wait)
    if deployed is None:
        say(
            f"warning: {counted(count, 'named workflow')} could not be held against {release.name}: nobody has "
            "told yet what its workers have. `workflows doctor --everybody` does it later."
        )
        return
    failing = [one for one in workflows.examined(heads, deployed, files=files) if one.breaks]
    known = set() if not failing else _failing_on(workflows, live)
    already = [one for one in failing if _key(one) in known]
    new = [one for one in failing if _key(one) not in known]
    if already:
        say(f"warning: fail on {live.name} already, and would on {release.name}: {in_words(already)}")
    if new and not is_forced:
        raise InvalidRequest(
            f"{release.name!r} was not promoted, and nothing was moved: {counted(len(new), 'version')} of named "
            f"workflows would fail on it: {in_words(new)}. Mend the image, let their aliases lead to other versions, "
            "or promote it all the same: --force.",
            details={"release": release.name, "versions": [{"owner": one.owner, **one.to_json()} for one in new]},
        )
    if new:
        say(f"warning: will fail on {release.name}: {in_words(new)}")
    elif not already:
        say(f"{counted(count, 'named workflow')} would run on {release.name}")


def tell_broken(workflows: OfReleases, release: Release) -> None:
    """Say which named workflows fail on the release that is live now, by what its workers have told by now."""
    heads, files = workflows.heads(), workflows.files()
    deployed = workflows.deployed(release) if heads or files is not None else None
    if deployed is None:
        return
    if failing := [one for one in workflows.examined(heads, deployed, files=files) if one.breaks]:
        say(f"warning: {release.name} is live, and on it fail: {in_words(failing)}")


def _say_what_is_not_held(files: ImageFiles | None, release: Release) -> None:
    if files is None:
        say(
            f"warning: the workflows in the image (its files, version 0) could not be held against {release.name}: the "
            "stack's caretaker has not told them yet. It does once workers have told what they have."
        )
    elif files.too_large:
        names = ", ".join(files.too_large)
        say(f"warning: in the image are workflows too large to be held against {release.name} from here: {names}")


def _failing_on(workflows: OfReleases, release: Release) -> set[tuple[str, str, int]]:
    deployed = workflows.deployed(release)
    found = workflows.examined(workflows.heads(), deployed, files=workflows.files())
    return {_key(one) for one in found if one.breaks}


def _key(one: Examined) -> tuple[str, str, int]:
    return one.owner, one.name, one.number
