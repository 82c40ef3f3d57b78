"""Where packs come from: a registry with every status, repositories with every trap, folders of this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfy_serverless.environments.build_file import Pack
from comfy_serverless.environments.lock_file import ComfyUI
from comfy_serverless.environments.locking.comfyui_source import ComfyUISource
from comfy_serverless.environments.locking.git import telling_line
from comfy_serverless.environments.locking.pack_sources import FetchedPack, Sources
from comfy_serverless.environments.locking.registry import Registry as Client
from comfy_serverless.errors import PackUnavailable
from tests.environments import packs
from tests.environments.local_server import Answer
from tests.environments.registry import BANNED, DELETED, FLAGGED, PENDING, Registry
from tests.environments.repositories import Repository, comfyui, git

ADVICE = (
    "fatal: Could not read from remote repository.\n\n"
    "Please make sure you have the correct access rights\nand the repository exists.\n"
)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as it:
        yield it


def sources(folder: Path, url: str = "http://127.0.0.1:9", *custom_nodes: Path) -> Sources:
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return Sources(Client(url), custom_nodes, scratch)


def refused(where: Sources, pack: Pack) -> str:
    with pytest.raises(PackUnavailable) as error:
        where.fetch(pack)
    assert error.value.details["pack"] == pack.name
    return error.value.message


def of_registry(version: str, name: str = "kit-good") -> Pack:
    return Pack(name="kit_good", id=name, registry_version=version)


def test_a_zip_that_is_called_tar_gz_is_taken(tmp_path: Path, registry: Registry) -> None:
    published = registry.publish("kit_good", "1.1.0", file_name="node.tar.gz")
    fetched = sources(tmp_path, registry.url).fetch(of_registry("1.1.0"))
    assert (fetched.locked.sha256, fetched.locked.version) == (published.sha256, "1.1.0")
    assert [line.requirement for line in fetched.declared.lines] == ["kit-colors>=1.0", "kit-math"]


def test_only_the_requirements_of_the_archive_count_whatever_the_registry_says(
    tmp_path: Path, registry: Registry
) -> None:
    files = {**packs.files("kit_good", "1.0.0"), "requirements.txt": b"kit-math==1.0\n"}
    published = registry.publish("kit_good", "1.0.0", files=files)
    registry.published["kit-good"]["1.0.0"] = replace(published, dependencies=("kit-math>=2", "kit-nowhere"))
    fetched = sources(tmp_path, registry.url).fetch(of_registry("1.0.0"))
    assert fetched.locked.requirements == ("kit-math==1.0",)
    assert [line.requirement for line in fetched.declared.lines] == ["kit-math==1.0"]


def test_what_the_registry_says_is_no_requirement_where_the_archive_has_none(
    tmp_path: Path, registry: Registry
) -> None:
    files = {name: text for name, text in packs.files("kit_good", "1.0.0").items() if name != "requirements.txt"}
    registry.published["kit-good"] = {
        "1.0.0": replace(registry.publish("kit_good", "1.0.0", files=files), dependencies=("kit-nowhere",))
    }
    fetched = sources(tmp_path, registry.url).fetch(of_registry("1.0.0"))
    assert (fetched.locked.requirements, fetched.declared.lines) == ((), [])


def test_a_registry_that_nobody_answers_for_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_serverless.environments.locking.registry._PAUSES_S", ())
    message = refused(sources(tmp_path), of_registry("1.0.0"))
    assert "cannot be looked up in the registry (http://127.0.0.1:9): the connection failed: " in message


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (f"fatal: '/x' does not appear to be a repository\n{ADVICE}", "'/x' does not appear to be a repository"),
        (f"git@host: Permission denied (publickey).\n{ADVICE}", "git@host: Permission denied (publickey)"),
        ("remote: Not found.\nfatal: repository 'https://h/' not found\n", "repository 'https://h/' not found"),
        ("warning: x\nfatal: unable to access 'https://h/'\n", "unable to access 'https://h/'"),
        ("fatal: couldn't find remote ref v9\n", "couldn't find remote ref v9"),
        ("fatal: Could not read from remote repository.\n", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_of_what_git_complains_the_line_that_tells_why_is_quoted(said: str, line: str) -> None:
    assert telling_line(said) == line


def test_latest_is_the_newest_that_can_be_used(tmp_path: Path, registry: Registry) -> None:
    registry.publish("kit_good", "1.0.0")
    registry.publish("kit_good", "1.1.0", status=PENDING)
    assert sources(tmp_path, registry.url).fetch(of_registry("latest")).locked.version == "1.0.0"


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (PENDING, "is pending: the registry has not looked at it yet"),
        (FLAGGED, "has been flagged by the registry as possibly harmful"),
        (BANNED, "has been banned by the registry"),
        (DELETED, "has been deleted by its author"),
        ("NodeVersionStatusNew", "has a status that is not known, New"),
    ],
)
def test_a_version_that_must_not_be_used_is_told_with_those_that_may(
    tmp_path: Path, registry: Registry, status: str, told: str
) -> None:
    registry.publish("kit_good", "1.0.0")
    registry.publish("kit_good", "1.1.0", status=status)
    message = refused(sources(tmp_path, registry.url), of_registry("1.1.0"))
    assert message.startswith("The pack kit_good (kit-good) 1.1.0 ")
    assert told in message
    assert "it has 1.0.0" in message


def test_what_the_registry_does_not_have_is_told_with_what_may_be_meant(tmp_path: Path, registry: Registry) -> None:
    registry.publish("kit_good", "1.0.0")
    where = sources(tmp_path, registry.url)
    assert "has no version 3.0.0 (it has 1.0.0)" in refused(where, of_registry("3.0.0"))
    assert refused(where, of_registry("1.0.0", "kit-goood")).endswith("did you mean kit-good?")
    assert "nightly" in refused(where, of_registry("nightly"))
    assert "an id that no pack" in refused(where, of_registry("1.0.0", "../nodes"))


def test_a_registry_in_trouble_is_told_and_asked_again(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_serverless.environments.locking.registry._PAUSES_S", (0.0,))
    registry.publish("kit_good", "1.0.0")
    registry.trouble["/nodes/kit-good/versions/1.0.0"] = Answer(503, b"down", "text/html")
    assert "answers with HTTP 503" in refused(sources(tmp_path, registry.url), of_registry("1.0.0"))
    assert len(registry.requests) == 2
    registry.trouble["/nodes/kit-good/versions/1.0.0"] = Answer(200, b"<html>", "text/html")
    assert "not JSON" in refused(sources(tmp_path, registry.url), of_registry("1.0.0"))
    assert "COMFY_REGISTRY_URL" in refused(sources(tmp_path), of_registry("1.0.0"))


def test_an_archive_that_is_none_or_hostile_is_refused_with_the_packs_name(tmp_path: Path, registry: Registry) -> None:
    registry.publish("kit_good", "1.0.0", files={"../evil.py": b"evil"})
    message = refused(sources(tmp_path, registry.url), of_registry("1.0.0"))
    assert "kit_good (kit-good) 1.0.0 has a name that leads out of its folder, '../evil.py'" in message


def test_a_blob_of_comfys_store_is_refused_with_what_to_do(tmp_path: Path) -> None:
    message = refused(sources(tmp_path), Pack(name="mine", blob_id="abc"))
    assert "registryVersion" in message
    assert "source: local" in message


def fetched_of(folder: Path, repository: Repository, ref: str | None) -> FetchedPack:
    return sources(folder).fetch(Pack(name="mine", repository=repository.url, git_ref=ref))


@pytest.mark.parametrize("ref", ["master", "v1", "short", "full", None])
def test_branch_tag_short_and_full_commit_are_the_same_commit(tmp_path: Path, ref: str | None) -> None:
    repository = Repository(tmp_path / "git", "mine")
    commit = repository.commit(packs.files("kit_good"), tag="v1")
    wanted = {"short": commit[:9], "full": commit}.get(ref or "", ref)
    assert fetched_of(tmp_path, repository, wanted).locked.commit == commit


def test_an_older_commit_by_its_first_digits_is_found(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "git", "mine")
    commit = repository.commit(packs.files("kit_good"))
    repository.commit(packs.files("kit_web"))
    assert fetched_of(tmp_path, repository, commit[:8]).locked.commit == commit


def test_a_ref_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "git", "mine")
    repository.commit(packs.files("kit_good"), tag="v1.2.0")
    for ref, told in (
        ("v1.2.1", "it has v1.2.0"),
        ("a" * 40, f"has no commit {'a' * 40}"),
        ("abcdef12", "begins with abcdef12"),
    ):
        with pytest.raises(PackUnavailable) as error:
            fetched_of(tmp_path, repository, ref)
        assert told in error.value.message
        assert repository.url in error.value.message


def test_addresses_that_git_would_run_or_that_hold_a_password_are_refused(tmp_path: Path) -> None:
    where = sources(tmp_path)
    for address in ("--upload-pack=touch /tmp/x", "ext::sh -c id", f"file://{tmp_path}/none.git"):
        assert "mine" in refused(where, Pack(name="mine", repository=address, git_ref="main"))
    for address in (
        "https://me:secret@forge.example/x",
        "HTTPS://secret@forge.example/x",
        "ssh://me:secret@forge.example/x",
    ):
        message = refused(where, Pack(name="mine", repository=address, git_ref="main"))
        assert "user name or password" in message
        assert "secret" not in message


def test_submodules_and_pointers_of_large_files_are_told(tmp_path: Path) -> None:
    inner = Repository(tmp_path / "git", "inner")
    inner.commit({"a.py": "A = 1\n"})
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "-q", "-b", "master")
    (work / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    (work / "weights.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    git(work, "-c", "protocol.file.allow=always", "submodule", "add", "-q", inner.url, "libs/inner")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "all")
    fetched = sources(tmp_path).fetch(Pack(name="mine", repository=f"file://{work}", git_ref="master"))
    told = "\n".join(fetched.warnings)
    assert "another repository in libs/inner (submodules)" in told
    assert "files in git LFS" in told
    assert "weights.bin" in told


def test_the_hash_of_a_repository_is_that_of_its_tree_and_not_of_its_checkout(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "git", "mine")
    repository.commit(packs.files("kit_good"), tag="v1")
    folder = packs.unpack(packs.files("kit_good"), tmp_path / "install" / "custom_nodes" / "mine")
    here = sources(tmp_path, "http://127.0.0.1:9", folder.parent).fetch(Pack(name="mine", local_path="mine"))
    assert fetched_of(tmp_path, repository, "v1").locked.sha256 == here.locked.sha256
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").write_bytes(b"x")
    again = sources(tmp_path, "http://127.0.0.1:9", folder.parent).fetch(Pack(name="mine", local_path="mine"))
    assert again.locked.sha256 == here.locked.sha256


def test_a_local_pack_may_be_one_file_and_one_that_is_not_here_is_told(tmp_path: Path) -> None:
    nodes = tmp_path / "custom_nodes"
    nodes.mkdir()
    (nodes / "single.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    where = sources(tmp_path, "http://127.0.0.1:9", nodes)
    assert where.fetch(Pack(name="single.py", local_path="single.py")).locked.size > 0
    message = refused(where, Pack(name="gone", local_path="gone"))
    assert str(nodes) in message
    assert "localPath gone" in message


def test_comfyui_is_found_by_tag_in_a_repository_and_in_a_checkout_at_hand(tmp_path: Path) -> None:
    repository = comfyui(tmp_path)
    found, declared = ComfyUISource(repository.url).fetch("v0.33.0", None, tmp_path / "one")
    assert (found.ref, found.version, len(found.commit)) == ("v0.33.0", "0.33.0", 40)
    assert "numpy>=1.25.0" in [line.text for line in declared.lines]
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", repository.url, str(clone)], check=True)
    (clone / "requirements.txt").write_text("something-else\n")  # the commit counts, not what lies there
    (tmp_path / "two").mkdir()
    at_hand = ComfyUISource(repository.url, clone).fetch("v0.33.0", None, tmp_path / "two")
    assert at_hand == (found, declared)
    with pytest.raises(PackUnavailable, match=r"has no branch, tag or commit v9.*`git fetch` there first"):
        ComfyUISource(repository.url, clone).fetch("v9", None, tmp_path / "three")


def test_a_comfyui_without_its_history_is_of_the_commit_that_is_known(tmp_path: Path) -> None:
    (tmp_path / "comfyui_version.py").write_text('__version__ = "0.33.0"\n')
    (tmp_path / "requirements.txt").write_text("numpy\n")
    known = ComfyUI("https://forge.example/ComfyUI", "v0.33.0", "1" * 40, "0.33.0")
    at_hand = ComfyUISource("https://forge.example/ComfyUI", tmp_path)
    assert at_hand.fetch("v0.33.0", known, tmp_path)[0] == known


def test_which_commit_a_tag_is_says_the_repository_where_a_comfyui_has_no_history(tmp_path: Path) -> None:
    repository = comfyui(tmp_path)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    (unpacked / "comfyui_version.py").write_text('__version__ = "0.33.0"\n')
    found, _ = ComfyUISource(repository.url, unpacked).fetch("v0.33.0", None, tmp_path / "one")
    assert found == ComfyUISource(repository.url).fetch("v0.33.0", None, tmp_path / "two")[0]
    gone = ComfyUISource(f"file://{tmp_path}/gone.git", unpacked)
    with pytest.raises(PackUnavailable, match=r"unpacked has no \.git.* set definition\.baseComfyVersion to a commit"):
        gone.fetch("v0.33.0", None, tmp_path / "three")
