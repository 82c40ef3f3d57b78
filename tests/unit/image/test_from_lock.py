"""What the build makes of the lock: nothing but what it says, from archives at hand first, and no surprise in a ZIP."""

from __future__ import annotations

import hashlib
import http.server
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.environments import tree_zip
from comfy_serverless.environments.lock_file import release_version
from tests.unit.locked_world import COMMIT, HASH, ROOT, Lock, archive, install, library, lock_of, pack, run, vendor


def libraries(lock: Mapping[str, Any], ours: Path, *, torch: str = "torch==2 --hash=x\n") -> dict[str, list[str]]:
    requirements = ours.parent / "requirements"
    requirements.mkdir(exist_ok=True)
    for build in ("cpu", "cuda"):
        (requirements / f"torch-{build}.txt").write_text(torch)
    out = ours.parent / "lists"
    done = run("libraries", requirements, out, lock=lock, ours=ours)
    assert done.returncode == 0, done.stderr
    return {path.stem: path.read_text().splitlines() for path in out.iterdir()}


def test_libraries_of_comfyui_are_a_layer_and_what_only_packs_need_another(ours: Path) -> None:
    lists = libraries(
        lock_of(
            requirements=[
                library("numpy", "scipy 1.0: numpy>=1", "pack: numpy<3"),
                library("scipy", "ComfyUI: scipy"),
                library("filelock", "torch"),
                library("opencv-python-headless", "pack: opencv-python-headless"),
                library("shapely", "opencv-python-headless 1.0: shapely"),
            ]
        ),
        ours,
    )
    line = "{}==1.0 --hash=" + HASH
    assert lists["core"] == [line.format(name) for name in ("filelock", "numpy", "scipy")]
    assert lists["packs"] == [line.format(name) for name in ("opencv-python-headless", "shapely")]


def test_a_pack_with_the_name_of_a_library_does_not_make_its_needs_comfyuis(ours: Path) -> None:
    lists = libraries(lock_of(requirements=[library("scipy", "ComfyUI: scipy"), library("toy", "scipy: toy")]), ours)
    assert lists["packs"] == [f"toy==1.0 --hash={HASH}"]


def test_sources_and_repositories_have_lists_of_their_own_and_addresses_keep_their_hash(ours: Path) -> None:
    git = f"git+https://github.com/owner/toy@{COMMIT}#subdirectory=python"
    lists = libraries(
        lock_of(
            requirements=[
                library("docopt", "pack: docopt", kind="sdist"),
                library("toy", "pack: toy", kind="git", url=git, hashes=[]),
                library("wheelhouse", "pack: x", kind="url", url="https://host.test/w-1-py3-none-any.whl"),
                library("tarred", "pack: x", kind="url", url="https://host.test/t-1.tar.gz"),
            ],
            build_requirements=[library("setuptools")],
            apt=["libgl1"],
        ),
        ours,
    )
    assert lists["sources"] == [f"docopt==1.0 --hash={HASH}", f"tarred @ https://host.test/t-1.tar.gz --hash={HASH}"]
    assert lists["git"] == [f"toy @ {git}"]
    assert lists["packs"] == [f"wheelhouse @ https://host.test/w-1-py3-none-any.whl --hash={HASH}"]
    assert (lists["builders"], lists["apt"]) == ([f"setuptools==1.0 --hash={HASH}"], ["libgl1"])


def test_what_the_lock_has_itself_does_not_come_with_torch_too(ours: Path) -> None:
    torch = f"filelock==9 \\\n    --hash={HASH}\n    # via torch\ntorch==2 \\\n    --hash={HASH}\n"
    lists = libraries(lock_of(requirements=[library("FileLock", "torch")]), ours, torch=torch)
    assert lists["torch-cuda"] == lists["torch-cpu"] == [f"torch==2 --hash={HASH}"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (library("numpy", hashes=[]), "numpy has no hash"),
        (library("numpy", hashes=["md5:1"]), "no hash of numpy"),
        (library("numpy --index-url=https://evil.test"), "the name of a library"),
        (library("numpy", version="1\n--index-url=https://evil.test"), "the version of numpy"),
        (library("toy", kind="git", url="git+https://host.test/toy@main"), "without its commit"),
        (library("toy", kind="url", url="https://host.test/a b.whl"), "the address of toy"),
        (library("toy", kind="conda"), "'conda', which is none"),
    ],
)
def test_nothing_is_handed_to_pip_that_could_be_anything(ours: Path, entry: Lock, said: str) -> None:
    done = run("libraries", ours, ours, lock=lock_of(requirements=[entry]), ours=ours)
    assert done.returncode == 1
    assert said in done.stderr
    assert "comfy-serverless env lock" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "comfy-build.lock is missing"),
        ("<<<<<<< ours\n{}", "marks of a merge"),
        ("[]", "the schema None"),
        ('{"schema": "comfy-serverless-lock/9"}', "'comfy-serverless-lock/9'"),
    ],
)
@pytest.mark.parametrize("action", ["libraries", "comfyui", "packs"])
def test_a_lock_that_cannot_be_used_is_said_with_the_command_that_makes_one(
    ours: Path, action: str, text: str | None, said: str
) -> None:
    done = run(action, *([ours] * {"libraries": 2, "comfyui": 2, "packs": 3}[action]), lock=text, ours=ours)
    assert done.returncode == 1
    assert said in done.stderr
    assert "comfy-serverless env lock" in done.stderr
    assert "Traceback" not in done.stderr


# ---- packs ----


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """A host of archives on this machine: a function from a content to its address."""
    contents: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = int(self.path.split("?")[0].strip("/"))
            self.send_response(200 if number < len(contents) else 404)
            self.end_headers()
            self.wfile.write(contents[number] if number < len(contents) else b"")

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def address(content: bytes) -> str:
        contents.append(content)
        return f"http://127.0.0.1:{server.server_port}/{len(contents) - 1}?signature=secret"

    yield address
    server.shutdown()


GOOD = {"__init__.py": "NODE_CLASS_MAPPINGS = {}", "web/toy.js": "//"}


def test_a_pack_is_fetched_and_lies_in_its_folder(ours: Path, tmp_path: Path, host: Callable[[bytes], str]) -> None:
    content = archive(GOOD, tmp_path / "a.zip")
    done = install(ours, pack("toy", content, url=host(content)))
    assert done.returncode == 0, done.stderr
    files = {str(path.relative_to(tmp_path / "packs")): path.read_text() for path in (tmp_path / "packs").rglob("*.*")}
    assert files == {f"toy/{name}": text for name, text in GOOD.items()}


def test_an_archive_at_hand_is_taken_before_any_host_is_asked(ours: Path, tmp_path: Path) -> None:
    content = archive({f"toy-main/{name}": text for name, text in GOOD.items()}, tmp_path / "a.zip")
    vendor(ours, content)
    done = install(ours, pack("toy", content, url="http://127.0.0.1:9/gone"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "packs/toy/__init__.py").is_file(), "the one folder of a forge's archive is the pack"


def test_a_pack_that_is_one_file_stays_one(ours: Path, tmp_path: Path) -> None:
    content = archive({"single.py": "x = 1"}, tmp_path / "a.zip")
    vendor(ours, content)
    assert install(ours, pack("single.py", content)).returncode == 0
    assert (tmp_path / "packs/single.py").read_text() == "x = 1"


def test_another_content_than_was_locked_is_refused_without_what_is_secret_in_its_address(
    ours: Path, tmp_path: Path, host: Callable[[bytes], str]
) -> None:
    content = archive(GOOD, tmp_path / "a.zip")
    other = archive({**GOOD, "evil.py": ""}, tmp_path / "b.zip")[: len(content)]
    done = install(ours, pack("toy", content, url=host(other)))
    assert done.returncode == 1
    assert "the pack toy in http://127.0.0.1" in done.stderr
    assert "is another than was locked" in done.stderr
    assert hashlib.sha256(content).hexdigest() in done.stderr
    assert "secret" not in done.stderr
    assert not (tmp_path / "packs/toy").exists()


def test_more_than_was_locked_is_not_even_read(ours: Path, tmp_path: Path, host: Callable[[bytes], str]) -> None:
    content = archive(GOOD, tmp_path / "a.zip")
    done = install(ours, pack("toy", content, url=host(content + b"\0" * 100_000)))
    assert f"more than the {len(content)} bytes" in done.stderr


def test_a_damaged_archive_at_hand_is_refused(ours: Path, tmp_path: Path) -> None:
    content = archive(GOOD, tmp_path / "a.zip")
    (ours / "archives" / f"{hashlib.sha256(content).hexdigest()}.zip").write_bytes(content[:-1])
    done = install(ours, pack("toy", content))
    assert "the pack toy in comfyui/archives is another than was locked" in done.stderr


def test_a_host_that_does_not_have_it_is_said_with_what_to_do(
    ours: Path, tmp_path: Path, host: Callable[[bytes], str]
) -> None:
    content = archive(GOOD, tmp_path / "a.zip")
    done = install(ours, pack("toy", content, url=host(content).replace("/0?", "/7?")))
    assert "the archive of the pack toy cannot be fetched from http://127.0.0.1" in done.stderr
    assert "404" in done.stderr
    assert "--vendor" in done.stderr


def test_a_local_pack_without_its_archive_is_said(ours: Path, tmp_path: Path) -> None:
    content = archive(GOOD, tmp_path / "a.zip")
    done = install(ours, pack("toy", content, source="local", version=None))
    assert "the pack toy is a local one" in done.stderr
    assert "comfyui/archives" in done.stderr


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "a/../../evil.py", "..\\evil.py", "C:/evil.py"])
def test_nothing_leaves_the_folder_of_a_pack(ours: Path, tmp_path: Path, name: str) -> None:
    content = archive({"__init__.py": "", name: "evil"}, tmp_path / "a.zip")
    vendor(ours, content)
    done = install(ours, pack("toy", content))
    assert done.returncode == 1
    assert "the archive of the pack toy has a name that leads out of its folder" in done.stderr
    assert list(tmp_path.rglob("evil.py")) == []


def test_links_are_refused(ours: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as made:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = 0o120777 << 16
        made.writestr(entry, "/etc/passwd")
    vendor(ours, path.read_bytes())
    assert "has a link" in install(ours, pack("toy", path.read_bytes())).stderr


def test_what_is_no_archive_is_said(ours: Path) -> None:
    vendor(ours, b"<html>Sign in</html>")
    assert (
        "the archive of the pack toy is damaged, or no archive"
        in install(ours, pack("toy", b"<html>Sign in</html>")).stderr
    )


@pytest.mark.parametrize("name", ["../toy", ".", "a/b", " toy", ".hidden", "__pycache__", ""])
def test_a_name_that_is_no_folder_of_a_pack_is_refused(ours: Path, name: str) -> None:
    done = install(ours, pack(name, b""))
    assert done.returncode == 1
    assert "comfyui/comfy-build.lock: " in done.stderr


def test_two_packs_for_one_folder_are_both_named(ours: Path) -> None:
    done = install(ours, pack("Toy", b"1"), pack("toy", b"2"))
    assert "two packs want the folder custom_nodes/toy: Toy and toy" in done.stderr


def test_a_pack_cannot_take_the_place_of_comfyuis_own(ours: Path, tmp_path: Path) -> None:
    (tmp_path / "core_nodes").mkdir()
    (tmp_path / "core_nodes/websocket_image_save.py").touch()
    done = install(ours, pack("websocket_image_save.py", b""))
    assert "custom_nodes/websocket_image_save.py is ComfyUI's own" in done.stderr


def test_a_pack_that_was_put_there_and_is_not_locked_is_said_with_the_entry_it_needs(ours: Path) -> None:
    (ours / "custom_nodes/mine").mkdir(parents=True)
    done = install(ours)
    assert done.returncode == 1
    assert "comfyui/custom_nodes/mine is not in the lock" in done.stderr
    assert "localPath: mine" in done.stderr


def test_a_local_pack_that_was_changed_since_makes_the_lock_stale(ours: Path, tmp_path: Path) -> None:
    folder = ours / "custom_nodes/toy"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("one")
    with (tmp_path / "a.zip").open("wb") as file:
        tree_zip.write(folder, file)
    content = (tmp_path / "a.zip").read_bytes()
    vendor(ours, content)
    locked = pack("toy", content, source="local", version=None)
    assert install(ours, locked).returncode == 0
    (folder / "__init__.py").write_text("two")
    tmp_path.joinpath("packs/toy/__init__.py").unlink()
    tmp_path.joinpath("packs/toy").rmdir()
    said = install(ours, locked).stderr
    assert "the lock is stale: comfyui/custom_nodes/toy/__init__.py has changed since" in said


def test_the_release_is_the_hash_of_the_locks_bytes_as_the_package_says_it() -> None:
    text = (ROOT / "comfyui" / "comfy-build.lock").read_text(encoding="utf-8")
    assert (
        release_version(text) == hashlib.sha256((ROOT / "comfyui" / "comfy-build.lock").read_bytes()).hexdigest()[:12]
    )
