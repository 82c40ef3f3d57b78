"""The variables that name an API and its key, for help texts too, which must not wait for what speaks HTTP."""

from __future__ import annotations

from typing import Final

URL_VARIABLE: Final = "COMFY_BASE_URL"
KEY_VARIABLE: Final = "COMFY_API_KEY"
