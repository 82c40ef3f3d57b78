"""Who pushes and moves named workflows during their soak, and remembers what each alias has meant, and when."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests

NAME = "poster"
ALIASES = ("live", "staging")
#: The pause between two changes of an owner's workflow, in seconds, at most.
PAUSE_S = 0.4
Weights = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Meant:
    """What an alias meant, from when it may have begun to when it may have ended, on the monotonic clock."""

    weights: Weights
    begun: float
    ended: float = float("inf")


class Api:
    """The API, with one owner's key. Several threads may use it: each has connections of its own."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._headers = url, {"Authorization": f"Bearer {key}"}
        self._local = threading.local()

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.trust_env = False
        headers = self._headers | more.pop("headers", {})
        answer: requests.Response = self._local.session.request(
            method, path if path.startswith("http") else self._url + path, headers=headers, timeout=120, **more
        )
        return answer

    def json(self, method: str, path: str, **more: Any) -> Any:
        answer = self.ask(method, path, **more)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text[:400]}"
        return answer.json()


class Mover(threading.Thread):
    """Pushes versions of an owner's workflow and moves its aliases, one change after the other, and remembers them."""

    def __init__(self, api: Api, owner: str, *, seed: int) -> None:
        super().__init__(name=f"mover of {owner}", daemon=True)
        self._api, self._owner = api, owner
        self._draw = random.Random(f"{seed} {owner}")
        self._stop_asked = threading.Event()
        self._lock = threading.Lock()
        self._meant: dict[str, list[Meant]] = {}
        self._latest = 0
        self.colors: dict[int, int] = {}
        self.problems: list[str] = []
        self.changes: Counter[str] = Counter()
        self._push(alias="live")
        self._push(alias="staging")

    def run(self) -> None:
        while not self._stop_asked.wait(self._draw.uniform(0, PAUSE_S)):
            try:
                change = self._draw.choice(["push", "move", "move", "split", "split", "split", "roll back"])
                self.changes[change] += 1
                self._change(change)
            except Exception as error:  # whatever it is, the soak has found it
                self.problems.append(f"{self._owner}'s workflow could not be changed: {error}")
                return

    def stop(self) -> None:
        """End after the change at hand."""
        self._stop_asked.set()
        self.join()

    def meanings(self, alias: str, begun: float, ended: float) -> list[Meant]:
        """What an alias may have meant at some moment between these two."""
        with self._lock:
            return [one for one in self._meant[alias] if one.begun <= ended and begun <= one.ended]

    def versions(self) -> list[int]:
        """The versions that were pushed."""
        return list(range(1, self._latest + 1))

    def _change(self, change: str) -> None:
        alias = self._draw.choice(ALIASES)
        versions = self.versions()
        match change:
            case "push":
                self._push(alias=self._draw.choice([None, alias]))
            case "move":
                version = self._draw.choice(versions)
                self._move(alias, {"version": version}, lambda _: {version: 1})
            case "split":
                chosen = self._draw.sample(versions, 2)
                weights = dict(zip(chosen, self._draw.choice([(1, 1), (1, 1), (9, 1)]), strict=True))
                asked = {str(version): weight for version, weight in weights.items()}
                self._move(alias, {"weights": asked}, lambda _: weights)
            case _:
                self._move(alias, {"rollback": True}, self._before)

    def _before(self, alias: str) -> Weights:
        """What the alias meant before it was moved last. A move to where it is, is none."""
        return self._meant[alias][-2].weights

    def _move(self, alias: str, how: dict[str, Any], expected: Callable[[str], Weights]) -> None:
        if "rollback" in how and len(self._meant[alias]) < 2:
            return
        wanted, begun = expected(alias), time.monotonic()
        told = self._api.json("POST", f"/api/v2/workflows/{NAME}/alias", json={"alias": alias, **how})
        self._note(alias, wanted, told, begun)

    def _push(self, *, alias: str | None) -> None:
        color = self._draw.randrange(1 << 24)
        body = {"workflow": picture(color), "inputs": {"width": "1.width"}, "alias": alias}
        begun, number = time.monotonic(), self._latest + 1
        self.colors[number] = color  # it may run before its push has answered
        told = self._api.json("PUT", f"/api/v2/workflows/{NAME}", json=body)
        if told["version"] != number:
            self.problems.append(f"{self._owner}'s push made version {told['version']} instead of {number}")
        self._latest = number
        if alias is not None:
            self._note(alias, {number: 1}, told, begun)

    def _note(self, alias: str, wanted: Weights, told: Any, begun: float) -> None:
        said = {int(version): weight for version, weight in told["aliases"][alias]["weights"].items()}
        if said != dict(wanted):
            self.problems.append(f"{self._owner}'s alias {alias} means {said} instead of {dict(wanted)}")
        now = time.monotonic()
        with self._lock:
            stretch = self._meant.setdefault(alias, [])
            if stretch and dict(stretch[-1].weights) == dict(wanted):
                return
            if stretch:
                stretch[-1] = Meant(stretch[-1].weights, stretch[-1].begun, now)
            stretch.append(Meant(dict(wanted), begun))


def picture(color: int) -> dict[str, Any]:
    """A graph that paints a picture of one colour."""
    inputs = {"width": 16, "height": 8, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "named"}},
    }
