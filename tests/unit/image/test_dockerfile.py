"""The images come from the same sources each time: a base by digest, one moment of Debian, libraries by hashes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))
BASES = dict(reversed(pair) for pair in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE))
LOCKS = sorted(path for path in (ROOT / "requirements").glob("*.txt") if path.name != "apt.txt")
#: PyTorch's own index is not reached from everywhere: `make lock` adds the hashes where it is.
MAY_LACK_HASHES = {"torch-cpu.txt"}
MIRROR = "http://mirror.test/archive"


def argument(name: str) -> str:
    (value,) = re.findall(rf"^ARG {name}=(.*)$", DOCKERFILE, re.MULTILINE)
    return str(value)


def requirements(lock: Path) -> list[str]:
    """Each requirement of a lock, on one line with its hashes."""
    text = re.sub(r"^ *#.*\n", "", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return text.replace("\\\n", "").strip().splitlines()


def script(stage: str, containing: str) -> str:
    """The command of one RUN instruction."""
    commands = re.findall(r"^RUN ((?:.*\\\n)*.*)$", STAGES[stage], re.MULTILINE)
    (command,) = [command for command in commands if containing in command]
    return str(command).replace("\\\n", "")


def chain(stage: str) -> list[str]:
    return [stage, *(chain(BASES[stage]) if BASES[stage] in BASES else [])]


def test_every_image_is_based_on_one_digest() -> None:
    assert re.fullmatch(r"debian:[a-z]+-slim@sha256:[0-9a-f]{64}", argument("BASE_IMAGE"))
    assert {base for base in BASES.values() if base not in BASES} == {"${BASE_IMAGE}"}
    assert {copied for copied in re.findall(r"COPY --from=(\S+)", DOCKERFILE) if copied not in BASES} == set()


def test_every_package_of_debian_comes_from_the_snapshot() -> None:
    assert re.fullmatch(r"20\d{6}T\d{6}Z", argument("DEBIAN_SNAPSHOT"))
    assert [stage for stage, text in STAGES.items() if "apt-get" in text and chain(stage)[-1] != "python"] == []


@pytest.mark.parametrize(
    ("variables", "lines"),
    [
        (
            {"DEBIAN_SNAPSHOT": "20261120T000000Z", "DEBIAN_MIRROR": MIRROR},
            [
                f"deb [check-valid-until=no] {MIRROR}/debian/20261120T000000Z bookworm main",
                f"deb [check-valid-until=no] {MIRROR}/debian/20261120T000000Z bookworm-updates main",
                f"deb [check-valid-until=no] {MIRROR}/debian-security/20261120T000000Z bookworm-security main",
            ],
        ),
        ({"DEBIAN_SNAPSHOT": "", "DEBIAN_MIRROR": ""}, ["the base image's own"]),
    ],
)
def test_the_snapshot_replaces_the_sources_of_the_base_image_unless_there_is_none(
    tmp_path: Path, variables: dict[str, str], lines: list[str]
) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("the base image's own\n")
    command = script("python", "sources.list").partition(" && apt-get")[0].replace("/etc/apt/", f"{tmp_path}/")
    subprocess.run(["sh", "-ec", command], env={**os.environ, **variables}, check=True)
    assert (tmp_path / "sources.list").read_text().splitlines() == lines


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.name))
def test_locks_have_a_hash_for_everything_and_no_address_of_a_registry(lock: Path) -> None:
    entries = requirements(lock)
    assert entries
    hashed = [entry for entry in entries if "--hash=sha256:" in entry]
    if lock.name not in MAY_LACK_HASHES or hashed:
        assert [entry for entry in entries if entry not in hashed and " @ git+" not in entry] == []
    assert not re.search(
        r"^ *--(?:extra-)?(?:index|default-index|find-links)|https?://(?!github\.com)", lock.read_text()
    )


def test_both_builds_of_torch_are_of_the_same_versions() -> None:
    wanted = re.findall(r"^(torch\S*)==(\S+)", (ROOT / "requirements" / "torch.in").read_text(), re.MULTILINE)
    assert len(wanted) == 3
    for build, local in (("cpu", "+cpu"), ("cuda", "")):
        lock = (ROOT / "requirements" / f"torch-{build}.txt").read_text()
        found = re.findall(r"^(torch\S*)==([^\s+\\]+)(\+\w+)?", lock, re.MULTILINE)
        assert sorted(found) == sorted((name, version, local) for name, version in wanted)


def test_what_both_locks_of_the_environment_have_is_the_same_version() -> None:
    names = r"^([a-zA-Z0-9_.-]+)==([^\s\\]+)"
    first, second = (
        dict(re.findall(names, (ROOT / "requirements" / lock).read_text(), re.MULTILINE))
        for lock in ("comfyui.txt", "torch-cuda.txt")
    )
    assert {name for name in first.keys() & second.keys() if first[name] != second[name]} == set()


def pip_calls(tmp_path: Path, command: str, **variables: str) -> list[str]:
    """What a command calls pip with; `/build` and `/opt` are in `tmp_path`."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in {"pip": f'echo "$@" >>{tmp_path}/calls', "byte-compile": ":", "python3": ":"}.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    command = command.replace("/build/", f"{tmp_path}/")
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", **variables}
    done = subprocess.run(["sh", "-ec", command], env=environment, capture_output=True, text=True, check=False)
    calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
    return [call.replace(f"{tmp_path}/", "").partition(" install ")[2] for call in calls] or [done.stderr.strip()]


@pytest.mark.parametrize(
    ("torch", "index", "call"),
    [
        ("cpu", "", "--no-deps --index-url https://download.pytorch.org/whl/cpu -r torch-cpu.txt"),
        ("cuda", "", "--no-deps --require-hashes -r torch-cuda.txt"),
        ("cuda", "https://index.test/cu126", "--index-url https://index.test/cu126 -r torch.in"),
        ("rocm", "", "TORCH is cpu or cuda; for another build set TORCH_INDEX_URL"),
    ],
)
def test_torch_comes_from_the_lock_of_the_build_or_from_the_index_that_is_named(
    tmp_path: Path, torch: str, index: str, call: str
) -> None:
    command = script("comfyui-venv", "torch-cuda.txt")
    assert pip_calls(tmp_path, command, TORCH=torch, TORCH_INDEX_URL=index) == [call]


@pytest.mark.parametrize("has_git", [True, False])
def test_a_lock_may_name_a_commit_of_a_repository_beside_what_has_hashes(tmp_path: Path, has_git: bool) -> None:
    line = f"toy @ git+https://github.com/owner/toy@{'0' * 40}\n    # via -r comfyui.in\n" if has_git else ""
    (tmp_path / "comfyui.txt").write_text(f"idna==3.20 \\\n    --hash=sha256:{'1' * 64}\n{line}")
    calls = pip_calls(tmp_path, script("comfyui-venv", "git.txt"))
    assert calls == ["--no-deps --require-hashes -r hashed.txt", "--no-deps -r git.txt"][: 1 + has_git]
    assert "git+" not in (tmp_path / "hashed.txt").read_text()
    assert (tmp_path / "git.txt").read_text() == line.partition("\n    ")[0] + "\n" * has_git


@pytest.mark.parametrize(("chosen", "fetched"), [("", argument("COMFYUI_PINNED")), ("v0.34.0", "v0.34.0")])
def test_comfyui_is_fetched_at_the_pinned_commit_unless_another_is_chosen(
    tmp_path: Path, chosen: str, fetched: str
) -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", argument("COMFYUI_PINNED"))
    command = script("comfyui", "git fetch").partition("&& cp -r")[0].replace("/build/", f"{tmp_path}/")
    command = command.replace("apt-get install -y --no-install-recommends git", "true")
    (tmp_path / "git").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "git").chmod(0o755)
    variables = {"COMFYUI_PINNED": argument("COMFYUI_PINNED"), "COMFYUI_REF": chosen, "COMFYUI_REPOSITORY": "R"}
    environment = {**variables, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-ec", command], env=environment, capture_output=True, text=True, check=True)
    assert f"fetch -q --depth 1 R {fetched}\n" in done.stdout


def test_libraries_that_come_as_sources_can_be_built_and_only_there() -> None:
    assert "ENV PIP_ONLY_BINARY=\n" in STAGES["comfyui-venv"]
    assert "PIP_ONLY_BINARY=:all:" in STAGES["build"]
    assert "gcc" in script("comfyui-venv", "apt-get")


def test_the_worker_has_a_compiler_and_what_packs_ask_of_debian() -> None:
    assert chain("worker")[:2] == ["worker", "comfyui-runtime"]
    installed = script("comfyui-runtime", "apt-get")
    assert {"gcc", "g++", "libc6-dev", "python3-dev"} <= set(installed.split())
    assert re.search(r"\$\(sed 's/#\.\*//' /opt/apt\.txt\)", installed)
    (named,) = re.findall(r"\$\((sed [^)]*)\)", installed)
    done = subprocess.run(
        ["sh", "-c", named.replace("/opt/apt.txt", "/dev/stdin")],
        input="# comment\nlibgl1  # for OpenCV\nffmpeg\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["libgl1", "ffmpeg"]
    assert "gcc" not in STAGES["runtime"], "the other images are small"


def test_everything_that_is_copied_reaches_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert any(f"!{part}" in ignored for part in (source.rstrip("/"), *map(str, Path(source).parents))) or (
                source == "lambda/" and "!lambda/comfy_serverless" in ignored
            ), source
            assert (ROOT / source).exists(), source


def test_the_build_fails_on_a_pack_that_does_not_import() -> None:
    last = re.findall(r"^RUN ((?:.*\\\n)*.*)$", STAGES["worker"], re.MULTILINE)[-1]
    assert "-m comfy_serverless.connector.import_check" in last
    assert STAGES["worker"].index("import_check") > STAGES["worker"].index("COPY --from=code")
