"""The HTTP API: Comfy API v2, and what we add to it. Talks to the table, S3 and SQS; never to an engine."""
