"""An asynchronous SageMaker endpoint on this machine: a queue, instances from zero, notifications."""

from __future__ import annotations
