"""Webhooks: the end of a job is told to an address of its owner, signed as Standard Webhooks has it.

https://www.standardwebhooks.com
"""

from __future__ import annotations
