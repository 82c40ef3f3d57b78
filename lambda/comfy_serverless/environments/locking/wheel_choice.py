"""Which of a version's wheels pip would install in the image: one is locked, so there is one hash and one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from comfy_serverless.environments.lock_file import PLATFORM, PYTHON
from comfy_serverless.environments.locking.resolver import File

_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


def best(wheels: Sequence[File]) -> File | None:
    """The wheel with the most specific tags, and the highest build number; None if none fits."""
    ranked = [(rank, wheel) for wheel in wheels if (rank := _rank(wheel.name)) is not None]
    return min(ranked, key=lambda pair: (pair[0], pair[1].name))[1] if ranked else None


def _rank(name: str) -> tuple[int, tuple[int, str]] | None:
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        _, _, build, tags = parse_wheel_filename(name)
    except InvalidWheelFilename:
        return None
    order = _order()
    places = [order[str(tag)] for tag in tags if str(tag) in order]
    number, letters = build or (0, "")
    return (min(places), (-number, letters)) if places else None


@lru_cache(maxsize=1)
def _order() -> dict[str, int]:
    from packaging.tags import compatible_tags, cpython_tags

    major, minor = (int(part) for part in PYTHON.split("."))
    fitting = list(platforms())
    interpreter = f"cp{major}{minor}"
    tags = [
        *cpython_tags((major, minor), abis=[interpreter], platforms=fitting),
        *compatible_tags((major, minor), interpreter, fitting),
    ]
    return {str(tag): place for place, tag in reversed(list(enumerate(tags)))}


def platforms() -> Iterator[str]:
    """The platforms of wheels that run in the image, the most specific first."""
    machine, _, newest = PLATFORM.partition("-manylinux_2_")
    for minor in range(int(newest), 4, -1):
        yield f"manylinux_2_{minor}_{machine}"
        if minor in _LEGACY:
            yield f"{_LEGACY[minor]}_{machine}"
    yield f"linux_{machine}"
