"""Batches: manifests with a job in each line, from the object that was dropped to the report of what became of each."""
