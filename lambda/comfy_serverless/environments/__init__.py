"""What the image's ComfyUI consists of: the file that describes it, its lock, and what is known of the image.

    comfy-build.yaml ──► lock ──► image ──► what it has, and whether every pack imports

Facts of the formats: docs/environments.md. Nothing here runs on a worker.
"""
