"""Imported by the process that functions are forked from, before the first: what it has read, they need not."""

from __future__ import annotations

from local.aws import service_models

service_models.read()
