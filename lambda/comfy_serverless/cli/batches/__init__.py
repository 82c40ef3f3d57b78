"""What `comfy-serverless batch` is made of: what decides is here without AWS and files, one module a question."""
