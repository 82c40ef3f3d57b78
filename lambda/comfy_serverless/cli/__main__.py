"""`python -m comfy_serverless.cli`: the same as `comfy-serverless`."""

from __future__ import annotations

import sys

from comfy_serverless.cli.main import main

sys.exit(main())
