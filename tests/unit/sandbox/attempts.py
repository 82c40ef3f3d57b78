"""What a confined child tries: the part of its program that all such tests have."""

from __future__ import annotations

#: `attempt(name, act)` writes into `tried` how that ended: 0, or the number of the error.
ATTEMPTS = """
tried = {}
def attempt(name, act):
    try:
        act()
        tried[name] = 0
    except OSError as error:
        tried[name] = error.errno
"""
