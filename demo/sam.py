"""The sample events through `sam build` and `sam local invoke`: the image itself, in containers, against a local S3.

    python -m demo.sam [--out DIR] [--serve]

Needs an engine that speaks Docker's API. Ends by itself, and exits non-zero if anything was not as it should be.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape

from demo.report import results_table, short_path
from demo.samples import SAMPLES, DownloadDiffers, Outcome, download, send
from demo.seed import OUTPUT_BUCKET, seed
from local.aws.lambda_emulator import FUNCTION_NAME, LambdaFailed, read_answer
from local.aws.processes import NotListening, ProcessDied
from local.aws.server import LocalAws

ROOT = Path(__file__).parent.parent
SAM = Path(sys.executable).parent / "sam"
TARGET = "worker-lite"
#: What `sam build` calls the image: function and DockerTag of template.yaml.
IMAGE = f"{FUNCTION_NAME.lower()}:{TARGET}"
BUILD_TIMEOUT_S = 1200
PULL_TIMEOUT_S = 300
INVOKE_TIMEOUT_S = 300
#: Run in a container: prints the address at which it reaches this machine's port argv[1]. The names are Docker's and
#: Podman's; the gateway is this machine on a Linux bridge; the last is for containers without a network of their own.
FIND_HOST = """
import socket, struct, sys
routes = [line.split() for line in open("/proc/net/route").readlines()[1:]]
gateways = [socket.inet_ntoa(struct.pack("<I", int(route[2], 16))) for route in routes if route[1] == "00000000"]
for name in ["host.docker.internal", "host.containers.internal", *gateways, "127.0.0.1"]:
    try:
        address = socket.gethostbyname(name)
        socket.create_connection((address, int(sys.argv[1])), timeout=5).close()
    except OSError:
        continue
    print(address)
    break
"""


class SamFailed(RuntimeError):
    """Docker or SAM could not do its part; the message has the end of what it printed."""


class SamWorker:
    """The function of template.yaml, as `sam local invoke` runs it: a new container for every invocation.

    Args:
        variables: what is different from the template in the function's environment.
        aws: the AWS that SAM itself talks to: it asks STS who it is before every invocation.
        folder: where the variables and the log are kept.
    """

    def __init__(self, variables: Mapping[str, str], aws: Mapping[str, str], *, folder: Path) -> None:
        self._variables = folder / "environment.json"
        self._variables.write_text(json.dumps({FUNCTION_NAME: dict(variables)}), encoding="utf-8")
        self._aws = aws
        self.log_path = folder / "sam.log"
        self.log_path.unlink(missing_ok=True)

    def invoke(self, event: object) -> Any:  # noqa: ANN401  (any JSON value)
        """Invoke the function; returns what the function returned.

        Raises:
            LambdaFailed: the function raised, ended or took too long.
            SamFailed: it was not even invoked.
        """
        command = [str(SAM), "local", "invoke", FUNCTION_NAME, "--event", "-", "--env-vars", str(self._variables)]
        done = run(command, input_text=json.dumps(event), environment=self._aws, timeout_s=INVOKE_TIMEOUT_S)
        with self.log_path.open("a", encoding="utf-8") as log:
            log.write(done.stderr)
        answer = done.stdout.strip()
        if done.returncode and not answer:
            raise SamFailed(f"sam local invoke: {tail(done.stderr)}")
        return read_answer(answer)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo.sam", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "sam", help="where results go (default: out/sam/)")
    parser.add_argument("--serve", action="store_true", help="only serve the S3, for `sam local invoke` by hand")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that everything is stopped
    console = Console(highlight=False)
    try:
        if options.serve:
            serve(options.out, console)
        return 0 if demo(options.out, console) else 1
    except (SamFailed, LambdaFailed, ProcessDied, NotListening, DownloadDiffers) as error:
        console.print(f"[bold red]The demo failed:[/] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def demo(out: Path, console: Console) -> bool:
    """Build the image, send it every sample event, fetch the results. Returns whether all was as it should be."""
    check_engine()
    shutil.rmtree(out / "jobs", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    with console.status("sam build: the first time it takes some minutes"):
        build()
    # Containers are guests from another network: loopback does not exist for them.
    with LocalAws(host="0.0.0.0") as s3:
        seed(s3.client())
        worker = SamWorker(worker_variables(host_address(s3.port), s3.port), s3.environment, folder=out)
        outcomes = []
        for sample in SAMPLES:
            with console.status(f"sam local invoke: {sample.meaning}"):
                outcomes.append(send(sample, worker, s3.client()))
            report(outcomes[-1], console)
        for job in (job for outcome in outcomes for job in outcome.jobs):
            download(job, s3.client(), out / "jobs")
    console.print(results_table(outcomes))
    console.print(f"Files: {out / 'jobs'}   Log: {worker.log_path}")
    return not any(outcome.problems for outcome in outcomes)


def serve(out: Path, console: Console) -> NoReturn:
    """Build the image, keep the local S3 running until Ctrl-C, and say how to invoke the function against it."""
    check_engine()
    out.mkdir(parents=True, exist_ok=True)
    with console.status("sam build: the first time it takes some minutes"):
        build()
    with LocalAws(host="0.0.0.0") as s3:
        seed(s3.client())
        SamWorker(worker_variables(host_address(s3.port), s3.port), s3.environment, folder=out)
        variables = " ".join(f"{name}={value}" for name, value in s3.environment.items())
        invoke = f"{short_path(SAM)} local invoke {FUNCTION_NAME} -e events/direct.json"
        lines = [
            "The local S3 is up, with the samples in it; Ctrl-C ends it. In another terminal:",
            "",
            f"export {variables}",
            f"{invoke} --env-vars {short_path(out / 'environment.json')}",
        ]
        console.print("\n".join(lines), soft_wrap=True)
        while True:
            signal.pause()


def report(outcome: Outcome, console: Console) -> None:
    """One line for an event, and one for everything about it that was not as expected."""
    mark = "[bold red]✗[/]" if outcome.problems else "[green]✓[/]"
    console.print(f"{mark} {outcome.sample.event}: {escape(outcome.sample.meaning)}")
    for problem in outcome.problems:
        console.print(f"  {escape(problem)}")


def check_engine() -> None:
    """Make sure that a container engine speaks Docker's API.

    Raises:
        SamFailed: none does.
    """
    if shutil.which("docker") is None:
        raise SamFailed("there is no `docker` command: install Docker, or Podman with its Docker-compatible client")
    done = run(["docker", "version", "--format", "{{.Server.Version}}"], timeout_s=60)
    if done.returncode:
        raise SamFailed(f"no container engine answers; start Docker, or set DOCKER_HOST: {tail(done.stderr)}")


@functools.cache
def build_arguments() -> dict[str, str]:
    """What the Dockerfile is built with here: nothing, unless its base image cannot be pulled.

    Then the engine's own image of that name is the base, with the sources of packages that it has.
    """
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (pinned,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", dockerfile, re.MULTILINE)
    name, _, _ = pinned.partition("@")
    if _succeeds("docker", "image", "inspect", pinned) or _succeeds("docker", "pull", "--quiet", pinned):
        return {}
    if not _succeeds("docker", "image", "inspect", name):
        return {}  # the build says what is missing
    return {"BASE_IMAGE": name, "DEBIAN_SNAPSHOT": ""}


def _succeeds(*command: str) -> bool:
    return run(command, timeout_s=PULL_TIMEOUT_S).returncode == 0


def build() -> None:
    """`sam build` with the embedded engine. Layers that did not change are kept by the container engine.

    Raises:
        SamFailed: the image cannot be built.
    """
    command = [str(SAM), "build", "--parameter-overrides", f"ImageTarget={TARGET}"]
    if arguments := build_arguments():
        # SAM takes them from the template only.
        template = (ROOT / "template.yaml").read_text(encoding="utf-8")
        changed = ROOT / "out" / "template-built-here.yaml"
        changed.parent.mkdir(exist_ok=True)
        template = re.sub(r"^ +DockerBuildArgs: .*\n", "", template, flags=re.M)  # those of ComfyUI, which is not built
        text = re.sub(
            r"^( +)DockerBuildTarget: .*$", rf"\g<0>\n\1DockerBuildArgs: {json.dumps(arguments)}", template, flags=re.M
        )
        changed.write_text(text, encoding="utf-8")
        command += ["--template-file", str(changed), "--base-dir", str(ROOT)]
    done = run(command, timeout_s=BUILD_TIMEOUT_S)
    if done.returncode:
        raise SamFailed(f"sam build: {tail(done.stdout + done.stderr)}")


def host_address(port: int, *, image: str = IMAGE) -> str:
    """The address at which a container of `image` reaches what listens at `port` of this machine.

    Raises:
        SamFailed: it does not reach it at all.
    """
    command = ["docker", "run", "--rm", "--add-host", "host.docker.internal:host-gateway"]
    command += ["--entrypoint", "/opt/worker/bin/python", image, "-c", FIND_HOST, str(port)]
    done = run(command, timeout_s=60)
    if not done.stdout.strip():
        raise SamFailed(f"containers cannot reach port {port} of this machine: a firewall? {tail(done.stderr)}")
    return done.stdout.strip()


def worker_variables(host: str, port: int) -> dict[str, str]:
    """What a worker in a container needs to use the S3 at `port` of this machine, at `host` for containers."""
    return {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "OUTPUT_BUCKET": OUTPUT_BUCKET,
        "ALLOWED_INPUT_BUCKETS": "",
        **dict.fromkeys(("JOBS_TABLE", "ASSETS_BUCKET", "JOB_QUEUE_URL", "WEBHOOK_QUEUE_URL"), ""),  # no API here
    }


def run(
    command: Sequence[str],
    *,
    input_text: str = "",
    environment: Mapping[str, str] | None = None,
    timeout_s: float,
) -> subprocess.CompletedProcess[str]:
    """Run a program in the repository's root, without any AWS setting of the caller but those in `environment`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    try:
        return subprocess.run(
            command,
            input=input_text,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**inherited, "SAM_CLI_TELEMETRY": "0", **(environment or {})},
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SamFailed(f"`{command[0]}` took longer than {timeout_s:g} s") from error


def tail(text: str, *, lines: int = 15) -> str:
    """The end of what a program printed, on lines of its own."""
    return "\n" + "\n".join(text.strip().splitlines()[-lines:])


if __name__ == "__main__":
    sys.exit(main())
