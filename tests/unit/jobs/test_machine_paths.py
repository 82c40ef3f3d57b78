"""Folders of machines are taken out of texts: of every family of paths, out of nothing else, and in no time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_serverless.jobs.machine_paths import without_folders

#: Names of folders that a text must not tell: none of them is a word of the sentences around.
FOLDERS = ("Qalice", "Qwork.v2", "Qa-1_b", "Qélan", "Qs$hare")
SPACED = ("Qmy Qdisk", "QApp QSupport QDir", "Qjane Qvan Qder Qberg")
FILES = ("a.png", "v1-5.safetensors", "x")
SPACED_FILES = ("a b.png", "x and y (1).png")
#: What stands around paths.
WORDS = (
    "cannot read", "no such file:", "(see", "of node 9 (SaveImage)", "and/or", "1/2", "send POST /api/v2/uploads, then",
    "https://example.com/tmp/a.png", "s3://bucket/home/x.png", "models/loras/b.safetensors", "models\\loras\\b",
    "a:b/c", "~/x", "../y", "file:///tmp/x", "data:image/png;base64,AAAA/tmp/x", "\\d+", "\\\\d\\w",
    "'d:\\w+\\s*'", "\\frac{1}{2} \\\\hline\\textbf{x}", "'it is'", "Jane's", '"quoted"', "`code`", "C:\\", "C:/", "//",
    "// a comment", "/", "\\", "/docs lists", "s//x/", "'/'", "12:30", "{a|b}", "#/components/x", "…/seen.png",
    "é ü 名",
)  # fmt: skip


def posix(folders: list[str], file: str, root: str) -> str:
    return f"/{root}/" + "".join(f"{folder}/" for folder in folders) + file


ROOTS = st.sampled_from(("tmp", "opt", "ComfyUI", "workspace", "var", "app", "usr"))
PEOPLES_ROOTS = st.sampled_from(("Users", "Volumes", "Library", "home", "media", "Applications", "c/Users"))
DRIVES = st.sampled_from(("C:\\", "d:\\", "C:/", "\\\\?\\C:\\"))
SHARES = st.sampled_from(
    ("\\\\Qnas\\Qshare\\", "\\\\wsl$\\QUbuntu\\", "\\\\?\\UNC\\Qnas\\Qshare\\", "\\\\Q10.0.0.1\\c$\\")
)


def folders_of(names: tuple[str, ...], least: int = 0) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), min_size=least, max_size=4)


@st.composite
def paths(draw: st.DrawFn) -> tuple[str, str]:
    """A path of any family, as it stands in a text, and what is shown of it."""
    quote = draw(st.sampled_from(("", "", "'", '"', "`")))
    file = draw(st.sampled_from(FILES + SPACED_FILES * bool(quote)))
    names = FOLDERS + SPACED
    match draw(st.sampled_from(("machine", "person", "drive", "share", "slashes"))):
        case "machine":
            path = posix(draw(folders_of(names if quote else FOLDERS)), file, draw(ROOTS))
        case "person":
            path = posix(draw(folders_of(names)), file, draw(PEOPLES_ROOTS))
        case "slashes":
            path, quote, file = f"//Qnas/Qshare/{draw(st.sampled_from(FOLDERS))}/a.png", "", "a.png"
        case family:
            start = draw(DRIVES if family == "drive" else SHARES)
            separator = "/" if start.endswith("/") else "\\"
            path = start + separator.join([*draw(folders_of(names, least=1)), file])
            if separator == "\\" and draw(st.booleans()):
                path = path.replace("\\", "\\\\")  # a text in a text
    return f"{quote}{path}{quote}", f"{quote}…/{file}{quote}"


@given(
    st.lists(st.one_of(st.sampled_from(WORDS).map(lambda word: (word, word)), paths()), max_size=12),
    st.sampled_from((", ", ": ", "\n", " (", "; ")),
)
def test_paths_of_every_family_lose_their_folders_and_nothing_else_changes(
    parts: list[tuple[str, str]], between: str
) -> None:
    text, shown = (between.join(part[place] for part in parts) for place in range(2))
    assert without_folders(text) == shown
    assert not re.search(r"\bQ", shown)
    assert without_folders(shown) == shown, "what was gone through before stays"


@given(st.text(alphabet="ab :.'\"`*(){}-\n…é\\", max_size=60))
def test_text_without_a_slash_or_a_drive_or_a_share_is_unchanged(text: str) -> None:
    if re.search(r"(?i)[a-z]:\\|\\\\", text) is None:
        assert without_folders(text) == text


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.sampled_from((" ", "\n", " - ")))
def test_words_without_paths_are_unchanged_whatever_is_between_them(words: list[str], between: str) -> None:
    assert without_folders(between.join(words)) == between.join(words)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"\\nas\share is not there", "… is not there"),
        (r"'\\nas\share' is not there", "'…' is not there"),
        (r"no \\nas\share\a.png: \\nas\share\b", "no …/a.png: …/b"),
        ('{"m": "\\"/Users/Jane Doe/a.png\\""}', '{"m": "\\"…/a.png\\""}'),
        ('"/Volumes/Jane\'s Disk/x/y z.png"', '"…/y z.png"'),
        ("'/Users/Jane/Research and Development/a b.png'", "'…/a b.png'"),
        ("/Users/jane/ComfyUI or models/b", "…/ComfyUI or models/b"),
        ("/workspace/a failed models/b", "…/a failed models/b"),
        ("'/tmp/x/a.png: no such file/folder'", "'…/a.png: no such file/folder'"),
        ("'/tmp/x/a.png /tmp/y/b c.png'", "'…/a.png …/b c.png'"),
        ("no such key: #/data/models/0", "no such key: #/data/models/0"),
        ("C:\\ComfyUI/models\\a.png", "…/a.png"),
        ("'C:\\a.png' and C:/a.png", "'C:\\a.png' and C:/a.png"),
    ],
)
def test_where_a_path_ends(text: str, shown: str) -> None:
    assert without_folders(text) == shown


HOSTILE = (
    "/users/", "'/tmp/a", "'/tmp/a\"/tmp/b", "'/tmp/`/tmp/\"/tmp/", "c:\\a ", "'c:\\a b ", "\\\\ab\\", "\\", "/", "'",
    "//ab/", "/users/a ", "a b ", "c:/a b c d ", "\\\\?\\", "a", "'\\\\ab", "\\\\ab\\a b ",
)  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("start", ["", "/users/", "'/users/", "c:\\", "\\\\ab\\", "//ab/"])
@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_text_takes_no_longer_than_any(start: str, piece: str) -> None:
    """A megabyte takes less than a second; what gives back all it has taken, at each place, would take hours."""
    text = start + piece * (1_000_000 // len(piece))
    assert len(without_folders(text)) <= len(text)
