"""`comfy-serverless logs`: the name that `jobs logs` had before there was `jobs`. It goes on working."""

from __future__ import annotations

import argparse

from comfy_serverless.cli import job_logs


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `logs` to the commands of the command line."""
    job_logs.add_parser(commands, called="logs")
