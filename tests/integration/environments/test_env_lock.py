"""`env lock` with the real uv, a small registry, repositories over file:// and an index of the tests' own."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path

import pytest

from comfy_serverless.environments.locking import git
from comfy_serverless.environments.locking.lock import Locker
from tests.environments import packs, wheels
from tests.environments.repositories import Repository
from tests.environments.repositories import git as run_git
from tests.integration.environments.env_world import Project, local, of_git, registered


def test_every_ref_becomes_a_commit_and_every_file_a_hash(made: Project) -> None:
    repository = made.world.repository("kit_v3")
    packs.unpack(packs.files("kit_web"), made.folder / "comfyui" / "custom_nodes" / "kit_web")
    made.write(registered("kit_good", "1.1.0"), of_git("kit_v3", repository.url, "master"), local("kit_web"))
    said = made.lock()
    lock = made.locked
    good, v3, web = lock.packs
    assert (lock.comfyui.version, lock.comfyui.ref, len(lock.comfyui.commit)) == ("0.33.0", "v0.33.0", 40)
    assert (good.source, good.version, good.url) == (
        "registry", "1.1.0", f"{made.world.registry.url}/archives/kit-good/1.1.0/node.zip",
    )  # fmt: skip
    assert good.sha256 == made.world.registry.published["kit-good"]["1.1.0"].sha256
    assert good.requirements == ("kit-colors>=1.0", "kit-math")
    assert (v3.source, v3.ref, len(v3.commit or "")) == ("git", "master", 40)
    assert (web.source, web.commit) == ("local", None)
    kept = made.folder / "comfyui" / "archives" / f"{web.sha256}.zip"
    assert kept.stat().st_size == web.size
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    colors = next(each for each in lock.requirements if each.name == "kit-colors")
    assert (colors.version, colors.kind, len(colors.hashes)) == ("1.2", "wheel", 1)
    assert colors.size == (made.world.wheelhouse.folder / "kit_colors-1.2-py3-none-any.whl").stat().st_size
    assert {"ComfyUI: kit-colors", "kit_good: kit-colors>=1.0"} <= set(colors.declared_by)
    assert not {"torch", "torchvision", "torchaudio", "comfyui-frontend-package"} & made.versions.keys()
    assert lock.torch == {"torch": "2.14.1", "torchvision": "0.29.1", "torchaudio": "2.11.0"}
    assert "3 packs" in said
    assert made.world.index.url not in made.lock_path.read_text()


def test_the_same_file_is_the_same_lock_in_another_order_folder_and_time_zone(
    made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [registered("kit_good", "1.1.0"), registered("kit_source"), registered("kit_needs_compiler")]
    made.write(*entries)
    made.lock()
    first = made.lock_path.read_bytes()
    made.lock_path.unlink()
    made.lock()
    assert made.lock_path.read_bytes() == first
    other = tmp_path / "elsewhere"
    made.folder.rename(other)
    made.folder = other
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    time.tzset()
    made.write(*reversed(entries), more="  # a remark changes nothing\n")
    made.lock_path.unlink()
    made.lock()
    monkeypatch.undo()
    time.tzset()
    assert made.lock_path.read_bytes() == first


def test_an_unchanged_file_asks_nobody_and_writes_nothing(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    made.write(registered("kit_good", "1.1.0"))
    made.lock()
    before = made.lock_path.stat()
    monkeypatch.setattr(Locker, "lock", lambda *_: pytest.fail("it asks the network"))
    assert "nothing has changed" in made.lock()
    assert made.lock_path.stat() == before
    assert made.run("lock", "--check")[0] == 0


def test_what_is_pinned_stays_until_it_is_upgraded(made: Project) -> None:
    house, repository = made.world.wheelhouse, Repository(made.world.folder / "git", "moving")
    house.wheel("kit-moving", "1.0")
    house.wheel("kit-still", "1.0")
    first = repository.commit({**packs.files("kit_good"), "requirements.txt": "kit-moving\nkit-still\n"})
    made.write(of_git("moving", repository.url, "master"))
    made.lock()
    house.wheel("kit-moving", "1.1")
    house.wheel("kit-still", "1.1")
    second = repository.commit({**packs.files("kit_good"), "requirements.txt": "kit-moving\nkit-still\nkit-extra\n"})
    made.write(of_git("moving", repository.url, "master"), registered("kit_source"))
    made.lock()
    assert made.locked.packs[1].commit == first
    assert (made.versions["kit-moving"], made.versions["kit-still"]) == ("1.0", "1.0")
    made.monkeypatch.setenv("UV_NO_CACHE", "1")  # as it is ten minutes later
    made.lock("--upgrade", "kit_moving")
    assert (made.versions["kit-moving"], made.versions["kit-still"]) == ("1.1", "1.0")
    assert made.locked.packs[1].commit == first
    said = made.lock("--upgrade")
    assert made.locked.packs[1].commit == second
    assert (made.versions["kit-still"], made.versions["kit-extra"]) == ("1.1", "1.0")
    assert "kit-still 1.0 -> 1.1" in said
    assert "+ kit-extra 1.0" in said


def test_check_says_why_a_lock_is_stale_and_asks_nobody(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = packs.unpack(packs.files("kit_web"), made.folder / "comfyui" / "custom_nodes" / "kit_web")
    made.write(registered("kit_good", "1.1.0"), local("kit_web"))
    assert "env lock" in made.run("lock", "--check")[2]
    made.lock()
    for variable in ("COMFY_REGISTRY_URL", "COMFYUI_REPOSITORY", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert made.run("lock", "--check")[0] == 0
    (folder / "more.py").write_text("MORE = 1\n")
    code, out, _ = made.run("lock", "--check", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (1, "lock_stale")
    assert "kit_web have changed" in out
    (folder / "more.py").unlink()
    (made.folder / "requirements" / "apt.txt").write_text("libgl1\n")
    assert "apt.txt" in made.run("lock", "--check")[2]
    made.write(registered("kit_good", "1.0.0"), ref="v0.32.0")
    said = made.run("lock", "--check")[2]
    assert "v0.32.0 in the build file" in said
    assert "kit_good has another source or version" in said
    assert "kit_web is gone" in said


def test_sources_repositories_and_addresses_are_pinned_with_what_builds_them(made: Project) -> None:
    library = made.world.library("kit-lib")
    file = made.world.wheelhouse.wheel("kit-direct", "3.0")
    repository = Repository(made.world.folder / "git", "wants_all")
    asked = f"kit-compiled\nkit-lib @ git+{library.url}@master\nkit-direct @ {made.world.index.url}/files/{file.name}\n"
    repository.commit({**packs.files("kit_good"), "requirements.txt": asked}, tag="one")
    made.write(of_git("wants_all", repository.url, "one"))
    made.lock()
    found = {each.name: each for each in made.locked.requirements}
    commit = git.commit_of(library.bare, "master")
    assert (found["kit-lib"].kind, found["kit-lib"].url) == ("git", f"git+{library.url}@{commit}")
    assert found["kit-compiled"].kind == "sdist"
    assert found["kit-compiled"].hashes[0].startswith("sha256:")
    assert (found["kit-direct"].kind, found["kit-direct"].url) == ("url", f"{made.world.index.url}/files/{file.name}")
    [builder] = made.locked.build_requirements
    assert (builder.name, builder.kind) == ("kit-backend", "wheel")
    assert "kit-compiled 1.0: kit-backend" in builder.declared_by
    library.commit(wheels.source_files("kit-lib", "1.1"))
    made.write(of_git("wants_all", repository.url, "one"), registered("kit_good"))
    made.lock()
    assert {each.name: each for each in made.locked.requirements}["kit-lib"].url == f"git+{library.url}@{commit}"


def test_vendored_archives_are_those_of_the_lock(made: Project) -> None:
    repository = made.world.repository("kit_v3")
    made.write(registered("kit_good", "1.1.0"), of_git("kit_v3", repository.url, "v0.3.0"))
    made.lock("--vendor")
    kept = {path.stem: path for path in (made.folder / "comfyui" / "archives").iterdir()}
    assert kept.keys() == {pack.sha256 for pack in made.locked.packs}
    with zipfile.ZipFile(kept[made.locked.packs[1].sha256]) as archive:
        assert "__init__.py" in archive.namelist()
        assert not [name for name in archive.namelist() if ".git/" in name]


def test_what_an_install_script_would_fetch_is_told_and_nothing_is_run(made: Project) -> None:
    made.write(registered("kit_install_script"))
    said = made.lock()
    [script] = made.locked.packs[0].install_scripts
    assert script.file == "install.py"
    assert "https://models.example.com/kit/weights.safetensors" in script.fetches
    assert "pip install kit-extra==1.0" in script.fetches
    assert "install.py, which is not run" in said
    assert "kit-extra" not in made.versions


def test_what_belongs_to_the_base_is_the_bases(made: Project) -> None:
    made.write(registered("kit_takes_torch"), overrides=["torch==2.9.0+cu128", "triton", "kit-nobody==1"])
    made.lock()
    warnings = "\n".join(made.locked.warnings)
    assert "kit_takes_torch (requirements.txt, line 1) asks for torch==2.1.0, and gets 2.14.1" in warnings
    assert "asks for xformers: it is not installed" in warnings
    assert "pipDependencies has torch==2.9.0+cu128: it is not applied" in warnings
    assert "pipDependencies has triton: it is not applied" in warnings
    assert "nothing asks for kit-nobody" in warnings
    assert not {"torch", "xformers", "triton", "kit-nobody"} & made.versions.keys()
    assert made.locked.overrides == ("kit-nobody==1",)


def test_a_library_that_wants_another_torch_is_a_conflict_that_an_override_accepts(made: Project) -> None:
    made.world.wheelhouse.wheel("kit-torchy", "1.0", requires=["torch<2.5"])
    repository = Repository(made.world.folder / "git", "wants_torchy")
    repository.commit({**packs.files("kit_good"), "requirements.txt": "kit-torchy\n"})
    made.write(of_git("wants_torchy", repository.url, "master"))
    error = made.fail()
    assert error["code"] == "environment_conflict"
    assert "wants_torchy (requirements.txt, line 1) asks for kit-torchy: " in error["message"]
    assert "the image has torch 2.14.1 (requirements/torch.in)" in error["message"]
    assert error["details"]["override"] == ["torch==2.14.1"]
    made.write(of_git("wants_torchy", repository.url, "master"), overrides=error["details"]["override"])
    made.lock()
    assert made.versions["kit-torchy"] == "1.0"


def test_a_conflict_names_both_packs_both_lines_and_the_override_that_resolves_it(made: Project) -> None:
    entries = registered("kit_conflict_a"), registered("kit_conflict_b"), registered("kit_good", "1.1.0")
    made.write(*entries)
    error = made.fail()
    assert error["code"] == "environment_conflict"
    message = error["message"]
    assert "kit_conflict_a (requirements.txt, line 1) asks for kit-math<2\n" in message
    assert (
        "kit_conflict_b (requirements.txt, line 2) asks for kit-geometry>=2: kit-geometry>=2.0 needs kit-math>=2"
        in message
    )
    assert "kit_good" not in message
    assert message.endswith("\n\nkit-math==2.0")
    assert error["details"]["override"] == ["kit-math==2.0"]
    assert not made.lock_path.exists()
    made.write(*entries, overrides=error["details"]["override"])
    made.lock()
    assert made.versions["kit-math"] == "2.0"
    assert (
        "kit-math is 2.0, and kit_conflict_a (requirements.txt, line 1) asks for kit-math<2" in made.locked.warnings[0]
    )


def test_all_that_cannot_be_had_is_told_at_once(made: Project) -> None:
    names = "kit_old_numpy", "kit_unsatisfiable", "kit_other_platform", "kit_newer_python"
    made.write(*map(registered, names))
    error = made.fail()
    told = "\n".join(error["details"]["problems"])
    assert "ComfyUI (requirements.txt, line 7) asks for numpy>=1.25.0" in told
    assert "kit_old_numpy (requirements.txt, line 1) asks for numpy==1.23.5" in told
    assert "asks for kit-nowhere>=3: the index has no library of the name kit-nowhere" in told
    assert "asks for kit-windows: it has no wheel for Linux (x86_64) and Python 3.11" in told
    assert "asks for kit-tomorrow: it is for Python >=3.13 only" in told
    overrides = error["details"]["override"]
    assert "numpy==2.4.6" in overrides
    assert 'kit-windows ; sys_platform == "never"' in overrides
    assert error["message"].endswith("\n".join(overrides))


def test_an_index_that_does_not_answer_is_no_conflict(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://somebody:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    made.write(registered("kit_good"))
    error = made.fail()
    assert error["code"] == "library_unavailable"
    assert error["message"].startswith("The package index cannot be reached")
    assert "127.0.0.1:9" in error["message"]
    assert "secret" not in error["message"]


def test_a_repository_of_a_library_that_cannot_be_had_is_told_with_pack_and_line(made: Project) -> None:
    repository = Repository(made.world.folder / "git", "wants_gone")
    asked = f"# a remark\nkit-gone @ git+file://{made.world.folder}/git/gone.git@main\n"
    repository.commit({**packs.files("kit_good"), "requirements.txt": asked})
    made.write(of_git("wants_gone", repository.url, "master"))
    error = made.fail()
    assert error["code"] == "library_unavailable"
    assert "wants_gone (requirements.txt, line 2) asks for kit-gone @ git+file://" in error["message"]


def test_versions_that_were_taken_back_are_told(made: Project) -> None:
    made.write(registered("kit_yanked"))
    assert "kit-yanked==1.0 has been taken back by its author (wrong results)" in made.lock()


def test_opencv_is_installed_once_whatever_it_is_called(made: Project) -> None:
    for name in ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"):
        made.world.wheelhouse.wheel(name, "4.12.0.88")
    asking = []
    for name, line in (
        ("cv_one", "opencv-python>=4.8"),
        ("cv_two", "opencv-python-headless"),
        ("cv_three", "opencv-contrib-python"),
    ):
        repository = Repository(made.world.folder / "git", name)
        repository.commit({**packs.files("kit_good"), "requirements.txt": f"{line}\n"})
        asking.append(of_git(name, repository.url, "master"))
    made.write(*asking[:1])
    assert "libgl1" in made.lock()
    made.write(*asking[:2])
    made.lock()
    assert [name for name in made.versions if name.startswith("opencv")] == ["opencv-python-headless"]
    made.write(*asking)
    said = made.lock()
    assert [name for name in made.versions if name.startswith("opencv")] == ["opencv-contrib-python-headless"]
    assert "are one module, cv2" in said
    declared = {each.name: each.declared_by for each in made.locked.requirements}["opencv-contrib-python-headless"]
    assert {"cv_one: opencv-python>=4.8", "cv_two: opencv-python-headless"} <= set(declared)


def test_scipy_follows_an_overridden_numpy(made: Project) -> None:
    house = made.world.wheelhouse
    house.wheel("scipy", "1.13.0", requires=["numpy>=1.22,<2.3"])
    house.wheel("scipy", "1.17.0", requires=["numpy>=2"])
    repository = Repository(made.world.folder / "git", "wants_scipy")
    repository.commit({**packs.files("kit_good"), "requirements.txt": "scipy\n"})
    made.write(of_git("wants_scipy", repository.url, "master"), overrides=["numpy==1.26.4"])
    made.lock()
    assert (made.versions["numpy"], made.versions["scipy"]) == ("1.26.4", "1.13.0")


def test_a_lock_that_cannot_be_written_leaves_the_old_one(made: Project) -> None:
    made.write(registered("kit_good", "1.0.0"))
    made.lock()
    before = made.lock_path.read_bytes()
    made.write(registered("kit_good", "7.0.0"))
    assert "it has 1.1.0, 1.0.0" in made.fail()["message"]
    assert made.lock_path.read_bytes() == before
    assert sorted(path.name for path in made.lock_path.parent.iterdir()) == ["comfy-build.lock", "comfy-build.yaml"]


def test_diff_says_what_a_person_wants_to_know(made: Project) -> None:
    made.write(registered("kit_good", "1.0.0"), registered("kit_source"), ref="v0.32.0")
    made.lock()
    old = made.folder / "old.lock"
    old.write_bytes(made.lock_path.read_bytes())
    made.write(registered("kit_good", "1.1.0"), registered("kit_install_script"), overrides=["kit-math==1.1"])
    made.lock()
    code, out, _ = made.run("diff", str(old))
    assert code == 0
    assert "ComfyUI 0.32.0 (v0.32.0, " in out
    assert "kit_good 1.0.0 -> 1.1.0" in out
    assert "+ kit_install_script 1.0.0" in out
    assert "- kit_source 1.0.0" in out
    assert "- kit-source 1.0 (sources)" in out
    assert "kit-math 2.0 -> 1.1" in out
    assert "to fetch: packs " in out
    code, out, _ = made.run("diff", str(old), "--json")
    assert {"name": "kit_source", "old": "1.0.0", "new": None} in json.loads(out)["packs"]
    assert "Both build the same" in made.run("diff", str(made.lock_path))[1]
    code, out, _ = made.run("diff", "HEAD", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (1, "invalid_lock")
    for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "a lock")):
        run_git(made.folder, *arguments)
    assert "Both build the same" in made.run("diff", "HEAD")[1]
    assert "kit_good 1.0.0 -> 1.1.0" in made.run("diff", str(old), "main")[1]


def test_overrides_of_another_system_do_not_count_and_wrong_ones_are_told(made: Project) -> None:
    made.write(registered("kit_good", "1.1.0"), overrides=["kit-math==1.0 ; sys_platform == 'win32'"])
    assert "it is for another system or Python" in made.lock()
    assert made.versions["kit-math"] == "2.0"
    made.write(registered("kit_good", "1.1.0"), overrides=["--pre", "kit-math=1"])
    message = made.fail()["message"]
    assert "--pre" in message
    assert "kit-math=1" in message


def test_a_damaged_lock_is_made_anew_and_unknown_names_are_told(made: Project) -> None:
    made.write(registered("kit_good", "1.0.0"))
    made.lock_path.write_text("<<<<<<< HEAD\n{}\n")
    assert "none of its pins is kept" in made.lock()
    assert made.versions["kit-colors"] == "1.2"
    assert "Did you mean kit-colors?" in made.fail("--upgrade", "kit-color")["message"]


def test_without_a_build_file_or_with_a_folder_that_is_none_it_says_what_to_do(made: Project) -> None:
    made.write(registered("kit_good"))
    assert "gone (--comfyui, or COMFYUI_DIR) is no folder" in made.fail("--comfyui", "gone")["message"]
    secret = made.fail("--comfyui-repository", "https://me:secret@forge.example/x")["message"]
    assert "has a user name or password in its address" in secret
    assert "secret@" not in secret
    (made.folder / "comfyui" / "comfy-build.yaml").unlink()
    assert "comfy-build.yaml is not there. Make it: comfy-serverless env init" in made.fail()["message"]
