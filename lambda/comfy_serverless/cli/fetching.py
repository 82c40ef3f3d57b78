"""Downloads the outputs of a job of the API: whole, verified, and never over a file that is there."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import urllib3

from comfy_serverless.cli import remote
from comfy_serverless.cli.habits import one_line, print_table, size_in_words
from comfy_serverless.cli.progress_line import ProgressLine
from comfy_serverless.cli.remote_answers import reason_of
from comfy_serverless.connector.saving import save
from comfy_serverless.errors import ComfyError, DeliveryFailed

#: How often a download that has broken off goes on, without a byte in between.
_MOST_BREAKS = 4


@dataclass(frozen=True, slots=True)
class Fetched:
    """An output, and the file it became or the reason why it is none."""

    output: Mapping[str, Any]
    path: Path | None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """As `run --json` lists it."""
        names = ("node_id", "class_type", "title", "index", "type", "content_type")
        size_bytes = None if self.path is None else self.path.stat().st_size
        return {**{name: self.output.get(name) for name in names}, "size_bytes": size_bytes, "path": str(self.path)}


def fetch_all(api: remote.Api, outputs: Iterable[Mapping[str, Any]], folder: Path) -> list[Fetched]:
    """Download outputs into a folder. One that cannot be had costs the others nothing."""
    fetched: list[Fetched] = []
    with ProgressLine("downloading") as line:
        for output in outputs:
            name = file_name(output)
            line.show(0.0, f"{len(fetched) + 1}: {name}")
            try:
                with io.BufferedReader(_Content(api, output, line)) as source:
                    fetched.append(Fetched(output, save(source, folder, name)))
            except (OSError, ComfyError) as error:
                fetched.append(Fetched(output, None, str(error)))
    return fetched


def file_name(output: Mapping[str, Any]) -> str:
    """What the file of an output is called here: a plain name, whatever the API says."""
    name = "".join(letter if letter.isprintable() else "_" for letter in str(output.get("name") or ""))
    name = name.replace("\\", "/").rpartition("/")[2]
    return name if name.strip(". ") else "output"


def print_fetched(fetched: Sequence[Fetched]) -> None:
    """Print a table of the files."""
    rows = [
        [
            f"{one.output.get('node_id')} {one.output.get('title') or ''}".strip(),
            str(one.path),
            str(one.output.get("content_type")),
            size_in_words(one.path.stat().st_size),
        ]
        for one in fetched
        if one.path is not None
    ]
    if rows:
        print_table(("node", "output", "type", "size"), rows, folds=("node", "output"), right=("size",))


def check_fetched(fetched: Sequence[Fetched], folder: Path) -> None:
    """Raise DeliveryFailed if an output could not be had; the others have been."""
    problems = {
        f"{file_name(one.output)} of node {one.output.get('node_id')}": one.problem
        for one in fetched
        if one.path is None
    }
    if problems:
        listing = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
        raise DeliveryFailed(
            one_line(f"{len(problems)} of {len(fetched)} outputs could not be saved in {folder}: {listing}"),
            details={"not_saved": problems, "saved": [str(one.path) for one in fetched if one.path is not None]},
        )


class _Content(io.RawIOBase):
    """The bytes of an output. It goes on where it has broken off, and fails at the end if they are other bytes.

    Raises:
        OSError: they break off for good, or are not those that the job has made.
        ComfyError: the API or its store refuses them.
    """

    def __init__(self, api: remote.Api, output: Mapping[str, Any], line: ProgressLine) -> None:
        self._api, self._output, self._line = api, output, line
        self._name, self._size_bytes = file_name(output), output.get("size_bytes")
        self._hasher = hashlib.sha256()
        self._position = 0
        self._breaks = 0
        self._answer: requests.Response | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  (any buffer)
        """Read the next bytes; none at the end."""
        while True:
            try:
                chunk = self._next(len(buffer))
            except (urllib3.exceptions.HTTPError, requests.RequestException, ConnectionError, TimeoutError) as error:
                self._break_off(reason_of(error))
                continue
            if chunk or self._is_whole():
                break
            self._break_off(f"{self._position:,} of {self._size_bytes:,} bytes came")
        buffer[: len(chunk)] = chunk
        self._position += len(chunk)
        self._breaks = 0 if chunk else self._breaks
        self._hasher.update(chunk)
        if self._size_bytes:
            self._line.show(min(1.0, self._position / self._size_bytes), self._name)
        return len(chunk)

    def close(self) -> None:
        """Close the connection."""
        if self._answer is not None:
            self._answer.close()
        super().close()

    def _next(self, size: int) -> bytes:
        if self._answer is None:
            self._answer = remote.open_output(self._api, self._output, start=self._position)
        chunk: bytes = self._answer.raw.read(size, decode_content=False)
        return chunk

    def _is_whole(self) -> bool:
        """Whether all bytes have come. Raises OSError if they are others than announced."""
        if isinstance(self._size_bytes, int) and self._position < self._size_bytes:
            return False
        sha256 = self._output.get("sha256")
        is_other = isinstance(self._size_bytes, int) and self._position > self._size_bytes
        if is_other or (sha256 and self._hasher.hexdigest() != str(sha256).lower()):
            raise OSError("what came is not what the job has made: its size or hash differs")
        return True

    def _break_off(self, reason: str) -> None:
        if self._answer is not None:
            self._answer.close()
        self._answer = None
        self._breaks += 1
        if self._breaks > _MOST_BREAKS:
            raise OSError(f"the download has broken off: {reason}")
        remote.pause(remote.PAUSES_S[0])
