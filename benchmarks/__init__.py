"""The costs of the connector, measured against the floor. See README.md."""

from __future__ import annotations
