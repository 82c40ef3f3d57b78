"""A workflow that was pushed, for `batch run NAME --each FILES`: what the API tells of it says where files go."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_serverless.cli.named.given import Taken, read_given
from comfy_serverless.errors import ComfyError, InvalidRequest, NotFound
from comfy_serverless.files import type_of_name
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.graph.near import Guesses

#: Why nothing is known of a name, and what helps.
UNKNOWN = (
    "is neither a file nor known here (WORKFLOWS_DIR, workflows/), and so are its inputs: give its file, or --input, "
    "and no --set. If it was pushed, COMFY_BASE_URL and COMFY_API_KEY let this machine ask for its inputs"
)


@dataclass(frozen=True, slots=True)
class Pushed:
    """What is known of a workflow that was pushed."""

    taken: Taken

    @classmethod
    def asked_for(cls, workflow: str) -> Pushed | None:
        """What the API tells of a name; None if no API is set, or the text is no name, or nobody has it.

        Raises a ComfyError if the API does not answer, or the workflow has no version that runs.
        """
        if not os.environ.get("COMFY_BASE_URL"):
            return None
        from comfy_serverless.cli import remote
        from comfy_serverless.cli.named import which
        from comfy_serverless.cli.named.registry import OverHttp

        try:
            reference, is_shared = which.meant_by(workflow)
        except InvalidRequest:
            return None
        try:
            told = OverHttp(remote.Api.from_environment()).described(
                reference.name, alias=which.alias_of(reference), version=reference.version, is_shared=is_shared
            )
        except NotFound:
            return None
        if "version" not in told:
            raise which.nothing_live(told)
        return cls(Taken.of(told))

    def input_for(self, file: Path, address: str | None) -> str:
        """The name of the input that files go to: as it is given, else the only one for files of this kind; of several,
        the only one that is required. Raises InvalidRequest, which names those there are.
        """
        files = {one.name: one for one in self.taken.inputs if one.kind is InputKind.FILE}
        listed = ", ".join(files) or "none"
        if address is not None:
            if address in files or "." in address:
                return address
            near = Guesses().near(address, files)
            hint = f"did you mean {near[0]!r}?" if near else f"those for files: {listed}."
            raise InvalidRequest(f"--input {address[:100]}: {self.taken.name} has no such input for files; {hint}")
        media = (type_of_name(file.name) or "").partition("/")[0]
        found = [one for one in files.values() if one.media == media] or list(files.values())
        required = [one for one in found if one.is_required]
        if len(found) != 1 and len(required) != 1:
            raise InvalidRequest(
                f"{self.taken.name} (version {self.taken.number}) has not one input for {file.name[:100]!r}: say with "
                f"--input which. Those for files: {listed}."
            )
        return (found if len(found) == 1 else required)[0].name

    def values(self, texts: Sequence[str], *, where: str, file: Path) -> dict[str, Any]:
        """The values of `NAME=VALUE`, by name. Raises InvalidRequest for all that does not fit, at once."""
        assignments = [("--set", text) for text in texts]
        is_named = "." not in where
        asked = argparse.Namespace(assignments=[*assignments, *([("--input", f"{where}={file}")] if is_named else [])])
        given, others = read_given(asked, self.taken)
        if others:
            names = ", ".join(one.name for one in self.taken.inputs) or "none"
            raise InvalidRequest(f"--set {others[0][1][:100]}: {self.taken.name} has no such input; it has: {names}.")
        return given.values


def unknown(workflow: str) -> ComfyError:
    """The error for a name that nothing is known of."""
    return InvalidRequest(f"the workflow {workflow[:200]!r} {UNKNOWN}.")
