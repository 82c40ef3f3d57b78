"""Whether Lambda takes an image: how large it is unpacked, against the most that Lambda unpacks. Standard library only.

python3 tools/image_size.py comfy-serverless:gpu

What a registry shows is the image compressed, and what `docker images` shows depends on how the engine keeps images. So
the files are counted, in a container. (No layer of our Dockerfile replaces files of another: Lambda, which counts all
layers, counts the same.)
"""

from __future__ import annotations

import subprocess
import sys

#: "10 GB (maximum uncompressed image size, including all layers)": the quotas of Lambda.
LIMIT_BYTES = 10 * 1024**3
_COUNT = ("docker", "run", "--rm", "--network", "none", "--entrypoint", "du")


def main(image: str) -> int:
    """Say it; answers the exit code."""
    counted = subprocess.run(
        [*_COUNT, image, "-sx", "--block-size=1", "/"], stdout=subprocess.PIPE, text=True, check=True
    )
    size_bytes = int(counted.stdout.split()[0])
    size, limit = (f"{value / 1024**3:.1f} GiB" for value in (size_bytes, LIMIT_BYTES))
    if size_bytes > LIMIT_BYTES:
        print(
            f"{image} has {size} unpacked. Lambda refuses more than {limit}: leave models out of it, and name them in"
        )
        print("models_manifest; or deploy the SageMaker stack, which takes it as it is.")
        return 1
    print(f"{image} has {size} unpacked, of the {limit} that Lambda takes.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
