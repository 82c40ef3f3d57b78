"""`python -m local`: `make dev`. A `__main__`, which what functions fork does not read again in each of them.

What it stands on takes a second to load. Whoever presses Ctrl-C meanwhile ends it there, without a traceback; `Ending`
takes over afterwards. So it stands in a package that loads nothing.
"""

from __future__ import annotations

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)

from local.dev.command_line import main  # noqa: E402  (see above)

sys.exit(main())
