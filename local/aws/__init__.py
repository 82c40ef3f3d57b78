"""AWS on this machine: S3, SQS, DynamoDB, Lambda functions and their roles, without Docker and without an account."""

from __future__ import annotations
