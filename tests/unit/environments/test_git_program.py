"""git in a folder of ours: neither a hook's repository nor somebody's settings have a say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from comfy_serverless.environments import git_program
from comfy_serverless.environments.locking import git as asked
from comfy_serverless.environments.locking import uv
from comfy_serverless.environments.scan.installed_packs import git_facts
from tests.environments.repositories import Repository, git


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Somebody's own repository, with a change that is not committed."""
    folder = tmp_path / "mine"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "master")
    (folder / "work.txt").write_text("kept\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "mine")
    (folder / "work.txt").write_text("changed\n")
    return folder


def test_a_hooks_repository_is_not_written_and_not_asked(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path / "git", "pack")
    commit = repository.commit({"__init__.py": "NODE_CLASS_MAPPINGS = {}\n"})
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", repository.url, str(clone))
    index, head = (mine / ".git/index").read_bytes(), (mine / ".git/HEAD").read_bytes()
    monkeypatch.setenv("GIT_DIR", str(mine / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(mine))
    monkeypatch.setenv("GIT_INDEX_FILE", str(mine / ".git/index"))
    found = asked.checkout(repository.url, "master", tmp_path / "out")
    assert (found.commit, (found.folder / "__init__.py").is_file()) == (commit, True)
    facts = git_facts(clone)
    assert facts is not None
    assert facts.commit == commit
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name)
    assert ((mine / ".git/index").read_bytes(), (mine / ".git/HEAD").read_bytes()) == (index, head)
    assert git(mine, "status", "--porcelain") == "M work.txt"
    assert git(mine, "remote") == ""


def test_no_variable_that_names_another_repository_is_given_on() -> None:
    local = subprocess.run(["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=True)
    of_settings = {"GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"}
    names = set(local.stdout.split()) - of_settings
    assert names
    given = dict.fromkeys(names, "x") | {"GIT_SSL_CAINFO": "/ca.pem", "GIT_SSH_COMMAND": "ssh -i key"}
    for kept in (git_program.environment(given), uv.environment(given)):
        assert not names & kept.keys()
        assert (kept["GIT_SSL_CAINFO"], kept["GIT_SSH_COMMAND"]) == ("/ca.pem", "ssh -i key")


def test_the_files_are_the_commits_whatever_somebody_has_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(tmp_path / "git", "pack")
    repository.commit({"__init__.py": "a\nb\n", ".gitattributes": "* text=auto\n"})
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (hooks / "post-checkout").chmod(0o755)
    settings = tmp_path / "gitconfig"
    settings.write_text(f"[core]\n\teol = crlf\n\tautocrlf = true\n\tsymlinks = false\n\thooksPath = {hooks}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    found = asked.checkout(repository.url, "master", tmp_path / "out")
    assert (found.folder / "__init__.py").read_bytes() == b"a\nb\n"
    assert not (tmp_path / "ran").exists()


def test_a_checkouts_own_settings_start_no_program(mine: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (mine / ".gitattributes").write_text("*.txt filter=evil\n")
    git(mine, "config", "filter.evil.clean", f"touch {ran}; cat")
    git(mine, "config", "filter.evil.required", "true")
    git(mine, "config", "core.fsmonitor", f"touch {ran}")
    facts = git_facts(mine)
    assert facts is not None
    assert facts.is_changed
    assert not ran.exists()
