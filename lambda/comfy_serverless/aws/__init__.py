"""The parts of AWS services that we use, and how their clients are built. Nothing here knows a job."""

from __future__ import annotations
