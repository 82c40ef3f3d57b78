"""`make demo`: every sample event goes in, and what comes back is shown."""

from __future__ import annotations
