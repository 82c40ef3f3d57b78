"""`python -m local.dev`. A module of its own: what functions fork would read the program's again, in each of them."""

from __future__ import annotations

import sys

from local.dev.command_line import main

sys.exit(main())
