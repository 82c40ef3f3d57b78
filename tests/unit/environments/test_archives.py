"""Archives that a stranger made."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_serverless.environments.archives import BadArchive, unpack


def zipped(path: Path, files: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return path


def tarred(path: Path, change: Callable[[tarfile.TarInfo], None]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("pack/__init__.py")
        change(entry)
        archive.addfile(entry, io.BytesIO(b""))
    return path


@pytest.mark.parametrize("name", ["pack.zip", "node.tar.gz"])
def test_a_zip_is_one_whatever_its_name(tmp_path: Path, name: str) -> None:
    folder = unpack(zipped(tmp_path / name, {"__init__.py": b"X = 1", "a/b.txt": b"b"}), tmp_path / "to")
    assert folder == tmp_path / "to"
    assert (folder / "a" / "b.txt").read_bytes() == b"b"


def test_a_real_tar_and_the_folder_of_a_forge_are_taken(tmp_path: Path) -> None:
    assert unpack(tarred(tmp_path / "a.tar.gz", lambda _: None), tmp_path / "one") == tmp_path / "one" / "pack"
    made = zipped(tmp_path / "b.zip", {"pack-main/__init__.py": b"", "pack-main/nodes.py": b""})
    assert (unpack(made, tmp_path / "two") / "nodes.py").is_file()


@pytest.mark.parametrize(
    "name", ["../evil.py", "a/../../evil.py", "/etc/evil", "C:\\evil.py", "..\\evil.py", "a/..\\..\\evil.py"]
)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadArchive, match="leads out of its folder"):
        unpack(zipped(tmp_path / "pack.zip", {name: b"evil"}), tmp_path / "to")
    assert not (tmp_path / "evil.py").exists()


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="link"):
        unpack(zipped(tmp_path / "pack.zip", {"link": b"/etc/passwd"}, stat.S_IFLNK | 0o777), tmp_path / "one")

    def linked(entry: tarfile.TarInfo) -> None:
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"

    def device(entry: tarfile.TarInfo) -> None:
        entry.type = tarfile.CHRTYPE

    for number, change in enumerate((linked, device)):
        with pytest.raises(BadArchive, match="link or device"):
            unpack(tarred(tmp_path / f"{number}.tar.gz", change), tmp_path / f"tar{number}")


def test_bombs_are_refused_before_they_fill_the_disk(tmp_path: Path) -> None:
    bomb = zipped(tmp_path / "bomb.zip", {"__init__.py": b"\0" * 5_000_000})
    assert bomb.stat().st_size < 10_000
    with pytest.raises(BadArchive, match=r"unpacks to more than 1,000,000 bytes"):
        unpack(bomb, tmp_path / "to", most_bytes=1_000_000)
    many = zipped(tmp_path / "many.zip", {f"{number}.py": b"" for number in range(20)})
    with pytest.raises(BadArchive, match=r"more than 10 files"):
        unpack(many, tmp_path / "files", most_files=10)


def test_a_name_twice_in_another_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="twice"):
        unpack(zipped(tmp_path / "pack.zip", {"Nodes.py": b"1", "nodes.py": b"2"}), tmp_path / "to")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken", b"<html>not found</html>"])
def test_what_is_no_archive_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pack.zip"
    path.write_bytes(content)
    with pytest.raises(BadArchive, match=r"damaged|no archive"):
        unpack(path, tmp_path / "to")


def test_an_empty_and_an_encrypted_archive_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="is empty"):
        unpack(zipped(tmp_path / "empty.zip", {}), tmp_path / "to")
    path = zipped(tmp_path / "pack.zip", {"__init__.py": b"1"})
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02") + 8
    struct.pack_into("<H", content, place, 1)
    path.write_bytes(content)
    with pytest.raises(BadArchive, match="encrypted"):
        unpack(path, tmp_path / "locked")
