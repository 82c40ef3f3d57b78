"""The actions of `comfy-serverless env`, one file each."""
