"""The DynamoDB table: jobs, assets, keys. One table, plain dictionaries, conditional writes."""

from __future__ import annotations
