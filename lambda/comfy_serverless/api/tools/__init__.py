"""What agents can do here: each named workflow of a key's owner is a tool, with some for jobs and files beside them.

    endpoint: HTTP ──► protocol: the official `mcp` package ──► calls: jobs, outputs, uploads ──► results: text, pictures, links
                                                            └─► catalogue: which tools there are, and their schemas

Only `protocol` and `endpoint` import `mcp`, which takes a second: the function behind /mcp is one of its own.
"""
