"""The outside of an environment, on this machine: registry, repositories, wheels, packs, and an install.

    packs.py          packs as others write them (kit/NAME/VERSION): their files, and archives of them
    registry.py       a small Comfy Registry on 127.0.0.1
    repositories.py   git repositories over file://: ComfyUI's, and those of packs
    wheels.py         wheels and sdists, made on the spot; wheel_index.py serves them as a package index
    installs.py       a ComfyUI folder as somebody has it at home
    outside.py        all of it at once, as most tests want it

Everything is the same to the byte each time: names, dates, hashes and commits. Nothing reaches another machine.
"""

from __future__ import annotations
