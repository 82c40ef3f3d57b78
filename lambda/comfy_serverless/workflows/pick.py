"""Which of an alias's versions a caller gets. No IO.

    0 ├────── version 3: 90 ──────┤─ 4: 10 ─┤ 1      SHA-256(key) is a place on this line

The same key has the same place for as long as the alias stands. When shares change, only keys between the old border
and the new one get another version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from comfy_serverless.errors import InvalidRequest

#: The versions that an alias may lead to.
MOST_VERSIONS: Final = 10
#: What a weight is at most; fractions become parts of as many.
MOST_WEIGHT: Final = 1_000_000


def pick(weights: Mapping[int, int], key: str) -> int:
    """The version of this key. One of the weights, at least, must be more than 0."""
    shares = sorted((version, weight) for version, weight in weights.items() if weight > 0)
    total = sum(weight for _, weight in shares)
    place = int.from_bytes(hashlib.sha256(key.encode("utf-8", "replace")).digest()[:16], "big") * total >> 128
    for version, weight in shares:
        place -= weight
        if place < 0:
            return version
    raise AssertionError("unreachable: the place is below the sum of all weights")


def key_for(name: str, alias: str, key: str) -> str:
    """The key of a caller for one alias: who gets the new version of one workflow need not get that of another."""
    return "\0".join((name, alias, key))


def are_same(one: Mapping[int, int], other: Mapping[int, int]) -> bool:
    """Whether two weightings give every version the same share."""
    total, other_total = sum(one.values()), sum(other.values())
    return one.keys() == other.keys() and all(one[key] * other_total == other[key] * total for key in one)


def checked(weights: Mapping[int, float]) -> dict[int, int]:
    """Weights as they are kept: whole, above 0, by version. Fractions become parts of a million.

    Raises:
        InvalidRequest: there are none, too many, or one is no number of 0 or more.
    """
    wrong = [
        f"{version}: {weight}"
        for version, weight in weights.items()
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= MOST_WEIGHT
    ]
    if wrong:
        raise InvalidRequest(
            f"a weight is a number from 0 to {MOST_WEIGHT:,}, and these are none: {', '.join(wrong)[:200]}."
        )
    above = {version: weight for version, weight in sorted(weights.items()) if weight > 0}
    if not 1 <= len(above) <= MOST_VERSIONS:
        raise InvalidRequest(
            f"an alias leads to 1 to {MOST_VERSIONS} versions that have a weight of more than 0, not to {len(above)}."
        )
    if all(float(weight).is_integer() for weight in above.values()):
        return {version: int(weight) for version, weight in above.items()}
    total = sum(above.values())
    return {version: max(1, round(weight / total * MOST_WEIGHT)) for version, weight in above.items()}
