"""Finds the workflow that ComfyUI, or another program, has written into a picture, a video, a sound or a model.

    window ──► reader of the format ──► texts by their names ──► prompt, workflow ──► {"prompt": …, "workflow": …}
    (ranges)   png, riff, jpeg, iso,    (`finds`)                (`choice`)
               matroska, ogg, …

Plain functions in plain Python, without IO but the window's: they run in the sandbox's child, and where there is none
(the command line on another system than Linux) in the process itself. Nothing is decoded: neither pixels nor sound.

Every file is hostile. A reader goes forward only, through what the window lets it read; a window bounds the number of
reads and their bytes, and `Finds` what is kept, unpacked and looked at. What a file says of its own lengths is never
believed beyond the file's end.
"""

from __future__ import annotations

from comfy_serverless.sandbox.embedded.reading import HEAD_BYTES, Missing, read_embedded, says_it_may_hold

__all__ = ["HEAD_BYTES", "Missing", "read_embedded", "says_it_may_hold"]
