"""A pack's requirements.txt, read as pip reads it."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from comfy_serverless.environments.locking import requirement_lines
from comfy_serverless.environments.locking.requirement_lines import Declarations, repository_of


def read(folder: Path, text: str | bytes, **others: str) -> Declarations:
    (folder / "requirements.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    for name, content in others.items():
        path = folder / f"{name}.txt"
        path.write_text(content)
    return requirement_lines.read(folder, "pack")


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("", []),
        ("# only a remark\n\n", []),
        ("numpy>=1.25  # at least\r\n", ["numpy>=1.25"]),
        ("foo#not-a-remark", []),
        ("a\\\n>=1\n", ["a>=1"]),
        ("Foo_Bar[extra] >=1,<2", ["Foo_Bar[extra] >=1,<2"]),
        ("a; sys_platform == 'win32'\nb; sys_platform != 'win32'", ["b"]),
        ("a; python_version < '3.10'\nb ; python_version >= '3.10' and platform_machine == 'x86_64'", ["b"]),
        ("a==1 --hash=sha256:00 --hash=sha256:11", ["a==1"]),
        (
            "git+https://forge.example/x/y@main#egg=why&subdirectory=z",
            ["why @ git+https://forge.example/x/y@main#subdirectory=z"],
        ),
        ("-e git+https://forge.example/x/y#egg=why", ["why @ git+https://forge.example/x/y"]),
        ("git+https://forge.example/x/y", ["git+https://forge.example/x/y"]),
        (
            "https://host.example/foo_bar-1.0-py3-none-any.whl",
            ["foo_bar @ https://host.example/foo_bar-1.0-py3-none-any.whl"],
        ),
        ("name @ https://host.example/n.zip ; sys_platform == 'darwin'", []),
    ],
)
def test_lines_ask_for_what_pip_would_install(tmp_path: Path, text: str, asked: list[str]) -> None:
    assert [line.requirement for line in read(tmp_path, text).lines] == asked


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + b"numpy\n",
        codecs.BOM_UTF16_LE + "numpy\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "numpy\r\n".encode("utf-16-be"),
        b"# -*- coding: latin-1 -*-\n# caf\xe9\nnumpy\n",
        b"# caf\xe9\nnumpy\n",
    ],
)
def test_every_encoding_that_windows_writes_is_read(tmp_path: Path, content: bytes) -> None:
    assert [line.requirement for line in read(tmp_path, content).lines] == ["numpy"]


def test_files_that_it_names_count_with_their_own_lines(tmp_path: Path) -> None:
    found = read(tmp_path, "-r more.txt\n-c limits.txt\na\n", more="\nb>=1\n-r requirements.txt\n", limits="b<3\n")
    assert [(line.file, line.line, line.text, line.is_limit) for line in found.lines] == [
        ("more.txt", 2, "b>=1", False), ("limits.txt", 1, "b<3", True), ("requirements.txt", 3, "a", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "--extra-index-url https://somebody:secret@host.example/simple",
            "names an index of its own, `--extra-index-url https://host.example/simple`",
        ),
        ("-i https://host.example", "names an index of its own"),
        ("--pre", "has an option for pip, `--pre`"),
        ("a --config-settings=x=y", "--config-settings"),
        ("-e .", "a folder or file of the pack itself, `-e .`"),
        ("./wheels/a-1-py3-none-any.whl", "a folder or file of the pack itself"),
    ],
)
def test_what_pip_would_do_beside_is_told(tmp_path: Path, text: str, told: str) -> None:
    found = read(tmp_path, f"{text}\n")
    [warning] = found.warnings
    assert warning.startswith("pack (requirements.txt, line 1) ")
    assert told in warning
    assert "secret" not in warning
    assert not found.problems


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("numpy=1.0", "two signs, name==1.0"),
        ("numpy scipy", "one library a line"),
        ("numpy>=1.2.*", "`.*` goes with == and !="),
        ("kit >= = 1", "no requirement that pip reads"),
        ("a @ git+https://x:${TOKEN}@forge.example/x", "has a variable"),
        ("a @ git+https://somebody:secret@forge.example/x", "has a password or token"),
        ("a @ git+ssh://somebody:secret@forge.example/x", "has a password or token"),
        ("git+ssh://somebody:secret@forge.example/x#egg=a", "has a password or token"),
        ("a @ https://host.example/a-1.0-py3-none-any.whl?token=secret", "has a password or token"),
        ("https://host.example/a-1.0-py3-none-any.whl?X-Amz-Signature=secret", "has a password or token"),
        ("numpy @ file:///croot/numpy_1/work", "is a file of somebody's machine"),
        ("a @ git+ext::sh%20-c%20id", "has an address that is not taken"),
        ("a @ hg+https://forge.example/x", "has an address that is not taken"),
        ("a @ git+ssh://-oProxyCommand=id/x", "has an address that is not taken"),
        ("-c https://somebody:secret@host.example/c.txt", "not part of it"),
        ("-r gone.txt", "names a file that is not there"),
        ("-r ../outside.txt", "names a file that is not there"),
        ("-r https://host.example/r.txt", "not part of it"),
    ],
)
def test_lines_that_nobody_can_install_are_problems_with_pack_file_and_line(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "outside.txt").write_text("evil\n")
    inner = tmp_path / "pack"
    inner.mkdir()
    found = read(inner, f"# first\n{text}\n")
    [problem] = found.problems
    assert problem.startswith("pack (requirements.txt, line 2): `")
    assert told in problem
    assert "secret" not in problem
    assert not found.lines


@pytest.mark.parametrize(
    ("address", "repository", "ref"),
    [
        ("git+ssh://git@forge.example/a/b.git", "git+ssh://git@forge.example/a/b.git", ""),
        ("git+ssh://git@forge.example:22/a/b@v1", "git+ssh://git@forge.example:22/a/b", "v1"),
        ("git+https://forge.example/a/b@feature/x#egg=b", "git+https://forge.example/a/b", "feature/x"),
        ("b @ git+https://forge.example/a/b@v1", "b @ git+https://forge.example/a/b", "v1"),
        ("git+file:///folder@2/b.git@v1", "git+file:///folder@2/b.git", "v1"),
    ],
)
def test_a_users_at_sign_is_none_of_a_ref(address: str, repository: str, ref: str) -> None:
    assert repository_of(address) == (repository, ref)
