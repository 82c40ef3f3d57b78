"""From addresses in a request to files in ComfyUI's input folder. Everything that comes from outside is hostile.

`fetcher` finds what has to be fetched and puts the names in; `sources` reads S3, data URLs and base64; `download`
speaks https to checked `addresses` only; `images` looks at a picture before ComfyUI does.
"""

from __future__ import annotations
