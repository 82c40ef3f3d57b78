"""`python -m local.dev`. A module of its own: what functions fork would read the program's again, in each of them."""

import sys

from local.dev import main

sys.exit(main())
