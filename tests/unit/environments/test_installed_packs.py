"""Where the packs of an install are from, and what below custom_nodes is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_serverless.environments.build_file import Pack
from comfy_serverless.environments.model_hashes import HashCache
from comfy_serverless.environments.scan import installed_packs
from comfy_serverless.environments.scan.found import Found, FoundPack
from comfy_serverless.environments.scan.install import scan
from comfy_serverless.environments.scan.installed_packs import find_packs, public_address
from tests.environments import packs as kit
from tests.environments.installs import Install
from tests.environments.repositories import Repository, comfyui, git, of_pack

MAPPINGS = "NODE_CLASS_MAPPINGS = {}\n"


def found_below(folder: Path) -> Found:
    found = Found("here")
    find_packs(folder, found)
    return found


def made(folder: Path, files: dict[str, str]) -> Path:
    return kit.unpack({name: text.encode() for name, text in files.items()}, folder)


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """A clone of ComfyUI at v0.33.0, with packs of every origin."""
    folder = tmp_path_factory.mktemp("install")
    (folder / "git").mkdir()
    made_install = Install(folder / "ComfyUI", comfyui(folder / "git"))
    made_install.add_registry_pack("kit_good", "1.0.0")
    made_install.add_git_pack("kit_web", of_pack(folder / "git", "kit_web"), remote="git@github.com:kit/kit_web.git")
    made_install.add_local_pack("kit_v3")
    made_install.add_local_pack("kit_one_file")
    made_install.add_local_pack("kit_no_nodes")
    made_install.add_disabled_pack("kit_twin")
    made_install.add_litter()
    return made_install


def test_each_pack_is_from_where_it_was_installed_from(install: Install, tmp_path: Path) -> None:
    found = scan(install.folder, HashCache(tmp_path / "c"), python=None, with_models=False, show=lambda *_: None)

    commit = git(install.custom_nodes / "kit_web", "rev-parse", "HEAD")
    assert [pack.pack for pack in found.packs] == [
        Pack(name="kit-good", id="kit-good", registry_version="1.0.0"),
        Pack(name="kit_one_file.py", local_path="kit_one_file.py"),
        Pack(name="kit_v3", local_path="kit_v3"),
        Pack(name="kit_web", repository="https://github.com/kit/kit_web", git_ref=commit),
    ]
    assert found.version == "v0.33.0"
    assert found.left_out == [
        "kit_no_nodes: it is no pack: nothing in it declares NODE_CLASS_MAPPINGS or comfy_entrypoint",
        "kit-twin: it is switched off in ComfyUI",
    ]
    assert found.declared == {"kit-colors"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"p/readme.md": ""}, "p: it is no pack: it has no __init__.py"),
        ({"p/inner/__init__.py": MAPPINGS}, "inner inside of it has one: move that up"),
        ({"p/__init__.py": "x = 1\n"}, "nothing in it declares NODE_CLASS_MAPPINGS"),
        ({"p.py": "x = 1\n"}, "p.py: it is no pack: it declares neither"),
        ({"p.disabled/__init__.py": MAPPINGS}, "p: it is switched off"),
        ({".disabled/p@1_0/__init__.py": MAPPINGS}, "p@1_0: it is switched off"),
        ({"ComfyUI-Manager/__init__.py": MAPPINGS}, "ComfyUI-Manager: ComfyUI's Manager is of no use"),
        ({"aux/__init__.py": MAPPINGS}, "aux: 'aux' is a name that Windows keeps"),
    ],
)
def test_what_is_no_pack_is_left_out_and_told(tmp_path: Path, files: dict[str, str], words: str) -> None:
    found = found_below(made(tmp_path, files))

    assert found.packs == []
    assert len(found.left_out) == 1
    assert words in found.left_out[0]


@pytest.mark.parametrize(
    "files",
    [
        {"__pycache__/x.pyc": ""},
        {".git/config": ""},
        {"websocket_image_save.py": MAPPINGS},
        {"example_node.py.example": MAPPINGS},
        {"notes.txt": "NODE_CLASS_MAPPINGS"},
    ],
)
def test_what_belongs_to_comfyui_or_to_nobody_is_passed_over(tmp_path: Path, files: dict[str, str]) -> None:
    found = found_below(made(tmp_path, files))

    assert (found.packs, found.left_out) == ([], [])


@pytest.mark.parametrize(
    ("pyproject", "tracking", "pack"),
    [
        (
            '[project]\nname = "Kit-Good"\nversion = "1.2.3"\n',
            True,
            Pack(name="p", id="kit-good", registry_version="1.2.3"),
        ),
        (
            '[project]\nname = "kit"\nversion = "1.2.3"\n[tool.comfy]\nPublisherId = "k"\n',
            False,
            Pack(name="p", id="kit", registry_version="1.2.3"),
        ),
        ('[project]\nname = "kit"\nversion = "1.2.3"\n', False, Pack(name="p", local_path="p")),
        ('[project]\nname = "kit"\ndynamic = ["version"]\n', True, Pack(name="p", local_path="p")),
        ('[project]\nname = "a b"\nversion = "1"\n', True, Pack(name="p", local_path="p")),
        ("not toml [", True, Pack(name="p", local_path="p")),
        ('\ufeff[project]\nname = "kit"\nversion = "1.0"\n', True, Pack(name="p", id="kit", registry_version="1.0")),
        ("project = 3\ntool = 4\n", True, Pack(name="p", local_path="p")),
    ],
)
def test_a_pack_is_of_the_registry_if_its_files_say_so(
    tmp_path: Path, pyproject: str, tracking: bool, pack: Pack
) -> None:
    files = {"p/__init__.py": MAPPINGS, "p/pyproject.toml": pyproject, **({"p/.tracking": "x"} if tracking else {})}

    assert [one.pack for one in found_below(made(tmp_path, files)).packs] == [pack]


def test_a_changed_pack_of_git_and_one_that_was_never_pushed_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "custom_nodes" / "mine"
    made(folder, {"__init__.py": MAPPINGS})
    git(folder, "init", "-q", ".")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    git(folder, "remote", "add", "upstream", "https://user:secret@git.example.com/me/mine")
    made(folder, {"__init__.py": f"{MAPPINGS}# changed\n"})

    found = found_below(tmp_path / "custom_nodes")

    commit = git(folder, "rev-parse", "HEAD")
    assert [one.pack for one in found.packs] == [
        Pack(name="mine", repository="https://git.example.com/me/mine", git_ref=commit)
    ]
    assert found.remarks == [
        "mine: the name or password in its remote's address is not taken over",
        "mine: it has changes that are not committed, and they are not taken",
        f"mine: its commit {commit[:12]} is on no branch of https://git.example.com/me/mine: push it first",
    ]


@pytest.mark.parametrize("remote", ["", "/srv/git/mine", "ext::sh -c true"])
def test_a_repository_that_nobody_else_reaches_is_a_folder_of_this_machine(tmp_path: Path, remote: str) -> None:
    folder = made(tmp_path / "custom_nodes" / "mine", {"__init__.py": MAPPINGS})
    git(folder, "init", "-q", ".")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    if remote:
        git(folder, "config", "remote.origin.url", remote)

    found = found_below(tmp_path / "custom_nodes")

    assert [one.pack for one in found.packs] == [Pack(name="mine", local_path="mine")]
    assert "it is taken as a folder of this machine" in found.remarks[0]


def test_a_repository_without_a_commit_is_a_folder_of_this_machine(tmp_path: Path) -> None:
    folder = made(tmp_path / "mine", {"__init__.py": MAPPINGS})
    git(folder, "init", "-q", ".")

    assert [one.pack for one in found_below(tmp_path).packs] == [Pack(name="mine", local_path="mine")]


def test_a_tag_that_was_checked_out_is_known_to_its_remote(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "tagged")
    repository.commit({"__init__.py": MAPPINGS}, tag="v1")
    repository.commit({"__init__.py": f"{MAPPINGS}# 2\n"}, tag="v2")
    (tmp_path / "custom_nodes").mkdir()
    git(tmp_path, "clone", "-q", "--depth", "1", "--branch", "v1", repository.url, "custom_nodes/tagged")

    found = found_below(tmp_path / "custom_nodes")

    assert found.remarks == []
    assert found.packs[0].pack.repository == repository.url


def test_links_are_packs_too_and_of_twins_the_first_is_taken(tmp_path: Path) -> None:
    made(tmp_path / "elsewhere", {"__init__.py": MAPPINGS})
    custom_nodes = made(
        tmp_path / "custom_nodes",
        {
            f"{name}/{file}": text
            for name in ("a", "b")
            for file, text in (
                ("__init__.py", MAPPINGS),
                (".tracking", ""),
                ("pyproject.toml", '[project]\nname = "kit"\nversion = "1"\n'),
            )
        },
    )
    (custom_nodes / "linked").symlink_to(tmp_path / "elsewhere")
    (custom_nodes / "dangling").symlink_to(tmp_path / "nowhere")

    found = found_below(custom_nodes)

    assert [one.pack.name for one in found.packs] == ["a", "linked"]
    assert found.left_out == ["b: it is the same pack as a", "dangling: it is a link to what is not there"]


def test_a_pack_that_may_not_be_read_is_told_and_the_others_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, {f"{name}/__init__.py": MAPPINGS for name in ("locked", "open")})
    checked = installed_packs._folder

    def folder(path: Path, found: Found) -> FoundPack:
        if path.name == "locked":
            raise PermissionError(13, "Permission denied")
        return checked(path, found)

    monkeypatch.setattr(installed_packs, "_folder", folder)

    found = found_below(tmp_path)

    assert [one.pack.name for one in found.packs] == ["open"]
    assert found.left_out == ["locked: it cannot be read: Permission denied"]


def test_a_folder_without_packs_is_told(tmp_path: Path) -> None:
    assert "cannot be read" in found_below(tmp_path / "missing").remarks[0]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("git@github.com:a/b.git", "https://github.com/a/b"),
        ("ssh://git@github.com/a/b.git", "https://github.com/a/b"),
        ("https://token@github.com/a/b", "https://github.com/a/b"),
        ("git@git.example.com:a/b.git", "git@git.example.com:a/b.git"),
        ("https://github.com/a/b.git", "https://github.com/a/b.git"),
        ("file:///srv/git/b", "file:///srv/git/b"),
        ("github.com/a/b", "https://github.com/a/b"),
        ("http://[", "http://["),
    ],
)
def test_an_address_becomes_one_that_everybody_reaches(address: str, public: str) -> None:
    assert public_address(address)[0] == public
