"""What the connector costs, measured against the floor. See README.md."""

from __future__ import annotations
