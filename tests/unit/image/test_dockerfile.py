"""The images come from the same sources each time: a base by digest, one moment of Debian, libraries by hashes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_serverless.environments.lock_file import MORE_REQUIREMENTS

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))
BASES = dict(reversed(pair) for pair in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE))
LOCKS = sorted(path for path in (ROOT / "requirements").glob("*.txt") if path.name != "apt.txt")
#: What the build runs with Debian's Python.
FOR_THE_BUILD = {"from_lock.py", "lock_reading.py", "pack_archives.py"}
MIRROR = "http://mirror.test/archive"
CPU = "--prefix /opt/torch --no-deps --index-url https://download.pytorch.org/whl/cpu"


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
    assert [entry for entry in entries if not re.search("--hash=sha256:[0-9a-f]{64}", entry)] == []
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
    plain = [call.replace(f"{tmp_path}/", "") for call in calls]
    return [re.split(" (?:install|wheel) ", call, maxsplit=1)[-1] for call in plain] or [done.stderr.strip()]


@pytest.mark.parametrize(
    ("torch", "index", "call"),
    [
        ("cpu", "", f"{CPU} --require-hashes -r torch-cpu.txt"),
        ("cuda", "", "--prefix /opt/torch --no-deps --require-hashes -r torch-cuda.txt"),
        ("cuda", "https://index.test/cu126", "--prefix /opt/torch --index-url https://index.test/cu126 -r torch.in"),
        ("rocm", "", "TORCH is cpu or cuda; for another build set TORCH_INDEX_URL"),
    ],
)
def test_torch_comes_from_the_lock_of_the_build_or_from_the_index_that_is_named(
    tmp_path: Path, torch: str, index: str, call: str
) -> None:
    command = script("torch", "torch-cuda.txt")
    assert pip_calls(tmp_path, command, TORCH=torch, TORCH_INDEX_URL=index) == [call]


def test_the_lists_that_the_image_is_built_of_have_every_hash_of_both_locks_of_torch(tmp_path: Path) -> None:
    program = ROOT / "comfyui" / "from_lock.py"
    lock = ROOT / "comfyui" / "comfy-build.lock"
    subprocess.run([sys.executable, program, "libraries", lock, ROOT / "requirements", tmp_path], check=True)
    for build in ("torch-cpu", "torch-cuda"):
        lines = (tmp_path / f"{build}.txt").read_text().splitlines()
        assert {"torch", "torchvision", "torchaudio"} <= {line.partition("==")[0] for line in lines}
        assert [line for line in lines if not re.search(r" --hash=sha256:[0-9a-f]{64}", line)] == []


def lists(folder: Path, **texts: str) -> None:
    for name in ("packs", "sources", "git", "builders"):
        (folder / f"{name}.txt").write_text(texts.get(name, ""))


def built_libraries(tmp_path: Path, **texts: str) -> list[str]:
    """What the stage of the packs' libraries calls pip with."""
    lists(tmp_path, **texts)
    (tmp_path / "builders" / "lib/python3.11/site-packages").mkdir(parents=True)
    commands = [script("pack-libraries", "packs.txt"), script("pack-libraries", "sources.txt")]
    command = " && ".join(f"{{ {command}; }}" for command in commands)
    for folder in ("/opt/builders", "/opt/pack-libraries"):
        command = command.replace(folder, f"{tmp_path}{folder.removeprefix('/opt')}")
    command = re.sub(r"apt-get install [^&]*", "true ", command)
    return [call for call in pip_calls(tmp_path, command) if call]


def test_nothing_is_installed_for_packs_where_none_needs_anything(tmp_path: Path) -> None:
    assert built_libraries(tmp_path) == []


def test_wheels_of_packs_are_installed_by_their_hashes_into_a_layer_of_their_own(tmp_path: Path) -> None:
    assert built_libraries(tmp_path, packs="idna==3.20 --hash=sha256:1\n") == [
        "--prefix pack-libraries --no-deps --require-hashes -r packs.txt"
    ]


@pytest.mark.parametrize("has_git", [True, False])
def test_sources_are_built_with_locked_tools_and_without_an_environment_of_that_day(
    tmp_path: Path, has_git: bool
) -> None:
    git = f"toy @ git+https://github.com/owner/toy@{'0' * 40}\n" if has_git else ""
    calls = built_libraries(
        tmp_path, sources="docopt==0.6.2 --hash=sha256:1\n", builders="wheel==1 --hash=x\n", git=git
    )
    assert calls == [
        "--no-deps --no-build-isolation --require-hashes -r builders.txt",
        "--no-deps --no-build-isolation --wheel-dir wheels --require-hashes -r sources.txt",
        *(["--no-deps --no-build-isolation --wheel-dir wheels -r git.txt"] * has_git),
        "--prefix pack-libraries --no-deps --no-index wheels/*.whl",
    ]
    found = (tmp_path / "builders/lib/python3.11/site-packages/libraries.pth").read_text().splitlines()
    assert found == [
        f"/opt/{folder}/lib/python3.11/site-packages" for folder in ("comfyui-venv", "torch", "pack-libraries")
    ]


def test_libraries_that_come_as_sources_can_be_built_and_only_there() -> None:
    assert "PIP_ONLY_BINARY=:all:" in STAGES["build"]
    commands = script("pack-libraries", "sources.txt")
    assert {"gcc", "g++", "git"} <= set(commands.split())
    assert len(re.findall("PIP_ONLY_BINARY= pip", commands)) == 2
    assert [stage for stage, text in STAGES.items() if "PIP_ONLY_BINARY= " in text] == ["pack-libraries"]


def test_what_changes_often_comes_last() -> None:
    copied = re.findall(r"^COPY (?:--from=)?(\S+)", STAGES["worker"], re.MULTILINE)
    assert copied == [
        *("torch", "libraries", "pack-libraries", "comfyui", "packs"),
        *("worker-venv", "workflows/", "code", "lock"),
    ]


def test_only_what_the_lock_says_of_it_decides_whether_a_layer_is_built_again() -> None:
    """A new pack changes neither torch nor ComfyUI's libraries: their stages see the lists, and never the lock."""
    for stage in ("libraries", "torch", "pack-libraries", "comfyui-runtime"):
        assert not re.findall(r"^COPY comfyui/", STAGES[stage], re.MULTILINE), stage
        assert re.findall(r"COPY --from=lock /build/lists/", STAGES[stage]), stage


def test_whether_the_lock_is_there_and_new_is_asked_before_anything_is_fetched() -> None:
    order = list(STAGES)
    assert max(map(order.index, ("worker-lite", "api"))) < order.index("lock") < order.index("libraries")
    command = script("lock", "from_lock.py")
    assert command.index("from_lock.py libraries") < command.index("environments.stale")
    assert re.search(r"^COPY comfyui/\*\.\* ", STAGES["lock"], re.MULTILINE), (
        "a missing lock is said by us, not by COPY"
    )


@pytest.mark.parametrize("name", sorted(FOR_THE_BUILD))
def test_what_only_the_build_needs_is_not_shipped(name: str) -> None:
    assert f'"{name}"' in (ROOT / "comfyui" / "from_lock.py").read_text(encoding="utf-8").partition("_NOT_SHIPPED")[0]
    assert (ROOT / "comfyui" / name).is_file()
    assert f"!/comfyui/{name}" in (ROOT / ".gitignore").read_text().splitlines()


def test_a_list_of_more_requirements_is_committed_and_is_no_part_of_comfyui() -> None:
    """It may be missing, so the glob that brings the lock brings it: see the stage `lock`."""
    assert f"!/comfyui/{MORE_REQUIREMENTS}" in (ROOT / ".gitignore").read_text().splitlines()
    ours = (ROOT / "comfyui" / "from_lock.py").read_text(encoding="utf-8")
    assert f'"{MORE_REQUIREMENTS}"' in ours.partition("_NOT_SHIPPED")[0]
    assert "!comfyui" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_worker_has_a_compiler_and_what_packs_ask_of_debian() -> None:
    assert chain("worker")[:2] == ["worker", "comfyui-runtime"]
    installed = script("comfyui-runtime", "apt-get")
    assert {"gcc", "g++", "libc6-dev", "python3-dev"} <= set(installed.split())
    assert "$(cat /opt/apt.txt)" in installed
    assert "COPY --from=lock /build/lists/apt.txt /opt/apt.txt" in STAGES["comfyui-runtime"]
    assert "gcc" not in STAGES["runtime"], "the other images are small"


def test_everything_that_is_copied_reaches_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            source = source.replace("comfyui/*.*", "comfyui")
            assert any(f"!{part}" in ignored for part in (source.rstrip("/"), *map(str, Path(source).parents))) or (
                source == "lambda/" and "!lambda/comfy_serverless" in ignored
            ), source
            assert list(ROOT.glob(source.rstrip("/"))), source


def test_the_build_fails_on_a_pack_that_does_not_import() -> None:
    last = re.findall(r"^RUN ((?:.*\\\n)*.*)$", STAGES["worker"], re.MULTILINE)[-1]
    assert "-m comfy_serverless.environments.image.check build" in last
    assert {'"$ALLOW_IMPORT_FAILURES"', '"$ALLOW_VANISHED"'} <= set(last.split())
    assert STAGES["worker"].index("image.check build") > STAGES["worker"].index("COPY --from=code")
