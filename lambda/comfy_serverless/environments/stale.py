"""Whether a lock is still that of the file it was made from. The build of the image asks, and `env check`."""

from __future__ import annotations

import sys


def main() -> int:
    return 0


if __name__ == "__main__":
    sys.exit(main())
