"""Webhooks: calls that report a job's end to its owner, signed as in https://www.standardwebhooks.com."""

from __future__ import annotations
