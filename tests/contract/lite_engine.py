"""Starts the embedded engine with the nodes of `contract_nodes` added. Takes the engine's own command line."""

from __future__ import annotations

import os

from contract_nodes import NODES  # type: ignore[import-not-found]

from comfy_lite.__main__ import main

if __name__ == "__main__":
    os._exit(main(nodes=NODES))
