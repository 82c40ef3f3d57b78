"""Named workflows: immutable versions with typed inputs, and aliases that move between them.

a file ──► proposal ──► chosen inputs ──► Version ──► store: the document in S3, the heads in the table
name + values ──► finding: alias or version ──► schema: all problems at once ──► request: a `JobRequest` like any
"""
