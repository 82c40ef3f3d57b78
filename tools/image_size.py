"""Whether Lambda takes an image: how large it is unpacked, and what is largest in it. Standard library only.

    python3 tools/image_size.py comfy-serverless:gpu

What a registry shows is the image compressed, and what `docker images` shows depends on how the engine keeps images. So
the files are counted, in a container: each is of a library (its wheel says so), a pack, the models, or of the rest.
No layer of our Dockerfile replaces files of another: Lambda, which counts all layers, counts the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Final

#: "10 GB (maximum uncompressed image size, including all layers)": the quotas of Lambda.
LIMIT_BYTES: Final = 10 * 1024**3
#: Smaller ones are summed up.
_SHOWN_BYTES: Final = 10 * 1024**2
_MOST_SHOWN: Final = 25
_COUNT: Final = ("docker", "run", "--rm", "-i", "--network", "none", "--user", "0", "--entrypoint", "python3")

#: Runs in the image, with Debian's Python: prints {group: {name: bytes}}.
COUNTER: Final = r"""
import json, os, re, sys
from importlib.metadata import distributions
root = sys.argv[1] if len(sys.argv) > 1 else "/"
venv, comfyui = os.path.join(root, "opt/comfyui-venv"), os.path.join(root, "opt/comfyui")
owner = {}
for folder in ("lib/python3.%d/site-packages" % minor for minor in range(9, 20)):
    site = os.path.join(venv, folder)
    if not os.path.isdir(site):
        continue
    for found in distributions(path=[site]):
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"] or "?").lower()
        label = "CUDA (nvidia-*, cuda-*)" if name.startswith(("nvidia-", "cuda-")) else name + " " + found.version
        for path in found.files or ():
            file = os.path.normpath(os.path.join(site, str(path)))
            owner[file] = label
            head, tail = os.path.split(file)
            if tail.endswith(".py"):
                owner[os.path.join(head, "__pycache__", tail[:-3])] = label
sizes = {"library": {}, "pack": {}, "rest": {}}
seen = set()
device = os.lstat(root).st_dev
for folder, folders, names in os.walk(root):
    folders[:] = [name for name in folders if os.lstat(os.path.join(folder, name)).st_dev == device]
    for name in (*names, *(name for name in folders if os.path.islink(os.path.join(folder, name)))):
        path = os.path.join(folder, name)
        state = os.lstat(path)
        if state.st_nlink > 1:
            if state.st_ino in seen:
                continue
            seen.add(state.st_ino)
        size = state.st_blocks * 512
        compiled = os.path.join(folder, name.split(".cpython-")[0])
        below = os.path.relpath(path, comfyui).split(os.sep)
        if path in owner or compiled in owner:
            group, what = "library", owner.get(path) or owner[compiled]
        elif path.startswith(venv + os.sep):
            group, what = "library", "of no library"
        elif below[0] == "custom_nodes" and below[1:2] != ["__pycache__"] and (len(below) > 2 or name.endswith(".py")):
            group, what = "pack", below[1]
        elif below[0] == "models":
            group, what = "rest", "models"
        elif path.startswith(comfyui + os.sep):
            group, what = "rest", "ComfyUI"
        elif path.startswith(os.path.join(root, "opt/worker") + os.sep):
            group, what = "rest", "the worker, with its libraries"
        else:
            group, what = "rest", "Debian"
        sizes[group][what] = sizes[group].get(what, 0) + size
print(json.dumps(sizes))
"""


def main(image: str) -> int:
    """Say it; answers the exit code."""
    counted = subprocess.run([*_COUNT, image, "-"], input=COUNTER, stdout=subprocess.PIPE, text=True, check=True)
    sizes: dict[str, dict[str, int]] = json.loads(counted.stdout)
    size_bytes = sum(sum(group.values()) for group in sizes.values())
    print("\n".join(table(sizes, size_bytes)))
    size, limit = (f"{value / 1024**3:.1f} GiB" for value in (size_bytes, LIMIT_BYTES))
    if size_bytes > LIMIT_BYTES:
        print(
            f"{image} has {size} unpacked. Lambda refuses more than {limit}: leave models out of it, and name them in\n"
            "models_manifest; do without what is largest above; or deploy the SageMaker stack, which takes it as it is."
        )
        return 1
    print(f"{image} has {size} unpacked, of the {limit} that Lambda takes.")
    return 0


def table(sizes: Mapping[str, Mapping[str, int]], size_bytes: int) -> Iterator[str]:
    """A line for each part, the largest first; small libraries and packs are summed up."""
    rows: list[tuple[int, str, str]] = []
    for group, parts in sizes.items():
        ordered = sorted(((size, what) for what, size in parts.items()), reverse=True)
        shown = [entry for entry in ordered if entry[0] >= _SHOWN_BYTES or group != "library"][:_MOST_SHOWN]
        rows += [(size, group, what) for size, what in shown]
        if rest := ordered[len(shown) :]:
            rows.append((sum(size for size, _ in rest), group, f"{len(rest)} smaller ones"))
    for size, group, what in sorted(rows, reverse=True):
        kind = "" if group == "rest" else f"{group}: "
        yield f"{size / 1024**2:9.1f} MiB {100 * size / size_bytes:5.1f} %  {kind}{what}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
