"""Marks what stands in for the declaration of a node class that nobody has declared (`graph.convert.stand_ins`). No IO.

Whoever asks what a class declares has to know whether anybody has declared it: no engine has one with a stand-in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

STAND_IN: Final = "comfy-serverless/stand-in"


def is_stand_in(declaration: object) -> bool:
    """Whether nobody has declared the class: what is said of it is what a file says."""
    return isinstance(declaration, Mapping) and declaration.get(STAND_IN) is True
