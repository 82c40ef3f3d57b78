"""Models that jobs name, fetched before they run: content-checked, bounded, the least recently used leaving first.

store            what the worker uses: hold the models of a job, show them to ComfyUI in the job's turn, release them
blobs            the contents, by SHA-256: pinned, evicted, made room for
hashes           what a model is, if its request does not say; pins: what was fetched without anybody saying it
names            the names ComfyUI sees, each meaning one content as long as a job is shown
operator_models  the names that no job can take
transfer         parallel ranged downloads, and the check of the whole; remote: S3 and https
safetensors      the check of models that can be loaded without running code
forgetting       has ComfyUI forget what a name meant before
"""

from __future__ import annotations

from comfy_serverless.worker.model_store.store import ModelStore

__all__ = ["ModelStore"]
