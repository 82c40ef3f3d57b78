"""What agents can do here: each named workflow of a key's owner is a tool, with some for jobs and files beside them.

    endpoint: HTTP ──► protocol: the official `mcp` package ─┬─► listing: which tools there are, with their schemas
                                                             └─► calls: jobs, outputs, uploads ──► results

Only `protocol` and `endpoint` import `mcp`, which takes a second: the function behind /mcp is one of its own.
"""
