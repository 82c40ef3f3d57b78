"""From addresses in a request to files in ComfyUI's input folder. Everything that comes from outside is hostile.

`plan` finds what has to be brought (`file_inputs` knows where to, `batches` builds several images in), and `fetcher`
brings it: `receive` reads it from `sources` (S3, data URLs, base64) or by `download`, which speaks https to checked
`addresses` only; `images` looks at a picture before ComfyUI does, `masks` puts a mask into one, and `cache` lets
ComfyUI have the file.
"""

from __future__ import annotations
