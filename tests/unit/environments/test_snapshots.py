"""What a snapshot of the Manager, or of the desktop app, says of an environment."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.environments.build_file import Pack
from comfy_serverless.environments.scan.found import Found
from comfy_serverless.environments.scan.snapshots import is_snapshot, read_snapshot
from comfy_serverless.errors import InvalidBuildFile

COMMIT = "783545f689a0af730065994b46b382ae24844c99"


def read(document: dict[str, Any]) -> Found:
    return read_snapshot(document, source="snapshot.json")


def test_packs_of_all_kinds_are_taken_from_the_managers_snapshot() -> None:
    found = read(
        {
            "comfyui": COMMIT,
            "git_custom_nodes": {
                "https://github.com/kijai/ComfyUI-KJNodes.git": {"hash": "a" * 40, "disabled": False},
                "git@github.com:me/off": {"hash": "b" * 40, "disabled": True},
            },
            "cnr_custom_nodes": {"rgthree-comfy": "1.0.2"},
            "file_custom_nodes": [
                {"filename": "websocket_image_save.py", "disabled": False},
                {"filename": "mine.py", "disabled": False},
                {"filename": "old.py", "disabled": True},
            ],
            "pips": {"numpy==2.4.6": "", "torch==2.14.1": ""},
        }
    )

    assert found.version == COMMIT
    assert [pack.pack for pack in found.packs] == [
        Pack(name="ComfyUI-KJNodes", repository="https://github.com/kijai/ComfyUI-KJNodes.git", git_ref="a" * 40),
        Pack(name="rgthree-comfy", id="rgthree-comfy", registry_version="1.0.2"),
    ]
    assert found.left_out == [
        "off: it is switched off",
        "mine.py: a snapshot has its name alone: give the install, too, which has the file",
        "old.py: it is switched off",
    ]
    assert found.libraries == {"numpy": "numpy==2.4.6", "torch": "torch==2.14.1"}


@pytest.mark.parametrize("version", ["nightly", "unknown", ""])
def test_a_version_that_is_no_release_becomes_the_newest_and_is_told(version: str) -> None:
    found = read({"cnr_custom_nodes": {"kit": version}})

    assert [pack.pack.registry_version for pack in found.packs] == ["latest"]
    assert "so the lock takes the newest release" in found.remarks[0]


def test_a_repository_without_a_commit_is_told() -> None:
    found = read({"git_custom_nodes": {"https://github.com/a/b": {"hash": None, "disabled": False}}})

    assert [pack.pack for pack in found.packs] == [Pack(name="b", repository="https://github.com/a/b")]
    assert "names no commit" in found.remarks[0]


def test_the_manager_itself_and_addresses_that_are_none_are_left_out() -> None:
    found = read(
        {
            "git_custom_nodes": {
                "https://github.com/ltdrdata/ComfyUI-Manager": {"hash": "a" * 40},
                "C:\\packs\\mine": {"hash": "a" * 40},
            }
        }
    )

    assert found.packs == []
    assert len(found.left_out) == 2


def test_of_two_packs_with_one_name_the_first_is_taken() -> None:
    found = read(
        {"git_custom_nodes": {f"https://github.com/{owner}/kit": {"hash": "a" * 40} for owner in ("one", "two")}}
    )

    assert [pack.pack.repository for pack in found.packs] == ["https://github.com/one/kit"]
    assert found.left_out == ["kit: another pack of that name is taken already"]


def test_a_snapshot_of_the_desktop_app_is_read() -> None:
    snapshot = {
        "comfyui": {"ref": "v0.33.0", "commit": COMMIT, "releaseTag": "v0.33.0"},
        "customNodes": [
            {"id": "kit-good", "type": "cnr", "dirName": "kit-good", "enabled": True, "version": "1.2.0"},
            {
                "id": "b",
                "type": "git",
                "dirName": "b",
                "enabled": True,
                "url": "https://github.com/a/b",
                "commit": "c" * 40,
            },
            {"id": "mine.py", "type": "file", "dirName": "mine.py", "enabled": True},
            {"id": "off", "type": "cnr", "dirName": "off", "enabled": False, "version": "1"},
        ],
        "pipPackages": {"numpy": "2.4.6"},
    }

    for document in (snapshot, {"type": "comfyui-desktop-2-snapshot", "snapshots": [snapshot]}):
        assert is_snapshot(document)
        found = read(document)
        assert found.version == "v0.33.0"
        assert [pack.pack.name for pack in found.packs] == ["kit-good", "b"]
        assert len(found.left_out) == 2
        assert found.libraries == {"numpy": "numpy==2.4.6"}


@pytest.mark.parametrize(
    "document", [None, [], {}, {"nodes": []}, {"snapshots": []}, {"snapshots": [1]}, {"3": {"class_type": "X"}}]
)
def test_other_documents_are_no_snapshots(document: object) -> None:
    assert not is_snapshot(document)


@pytest.mark.parametrize(
    "document",
    [
        {"git_custom_nodes": [1]},
        {"cnr_custom_nodes": "x"},
        {"cnr_custom_nodes": {}, "file_custom_nodes": {"a": 1}},
        {"cnr_custom_nodes": {}, "pips": 3},
        {"customNodes": [1]},
    ],
)
def test_a_snapshot_of_another_form_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidBuildFile, match=r"snapshot\.json: .* must be"):
        read(document)


@pytest.mark.parametrize("odd", [None, 3, [], {"hash": 3}, {"hash": "--upload-pack=x"}])
def test_odd_values_crash_nothing(odd: object) -> None:
    found = read({"comfyui": odd, "git_custom_nodes": {"https://github.com/a/b": odd}, "cnr_custom_nodes": {"x": odd}})

    assert len(found.packs) + len(found.left_out) == 2


def test_an_address_without_a_scheme_is_that_of_a_forge_and_what_is_left_out_has_no_remark() -> None:
    found = read(
        {
            "git_custom_nodes": {"github.com/a/b": {"hash": "a" * 40}, "https://github.com/a/../c": {"hash": ""}},
            "cnr_custom_nodes": {"../x": "nightly"},
        }
    )
    assert [pack.pack for pack in found.packs] == [
        Pack(name="b", repository="https://github.com/a/b", git_ref="a" * 40)
    ]
    assert [text.partition(":")[0] for text in found.left_out] == ["c", "../x"]
    assert not found.remarks
