"""One job, end to end: request, inputs, engine, delivery, result. AWS lives here, behind small classes."""

from __future__ import annotations
