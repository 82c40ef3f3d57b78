"""Batches: manifests with a job in each line, from the dropped object to the report."""
