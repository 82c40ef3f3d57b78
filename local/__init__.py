"""AWS on this machine: S3, the Lambda worker and the demo, without Docker and without an account."""

from __future__ import annotations
