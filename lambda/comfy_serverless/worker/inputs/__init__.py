"""From addresses in a request to files in ComfyUI's input folder. Everything that comes from outside is hostile.

`plan` finds the files to bring (`graph.file_inputs` knows where to, `image_batches` builds several images in), and
`fetcher` brings them: `receive` reads them from `fetch.sources` (S3, data URLs, base64, https to checked addresses);
`images` checks a picture before ComfyUI loads it, `masks` puts a mask into one, and `cache` gives ComfyUI the file.
"""

from __future__ import annotations
