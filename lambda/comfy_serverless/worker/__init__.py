"""One job beside one engine: its inputs and models, the run, its outputs, their delivery, the reply."""

from __future__ import annotations
