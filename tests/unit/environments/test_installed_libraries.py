"""What the install's Python has is evidence: which of its lines count, and which are never listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comfy_serverless.environments.scan.installed_libraries import (
    installed,
    is_bases,
    is_evidence,
    packages_of,
    pip_text,
    python_of,
    without_bases,
)


def made_packages(root: Path, *libraries: str) -> Path:
    packages = root / "lib/python3.11/site-packages"
    for library in libraries:
        (packages / f"{library}.dist-info").mkdir(parents=True)
    return packages


@pytest.mark.parametrize("folder", ["venv", ".venv", "../venv"])
def test_the_python_of_an_install_is_found_beside_it(tmp_path: Path, folder: str) -> None:
    (tmp_path / "ComfyUI").mkdir()
    packages = made_packages(tmp_path / "ComfyUI" / folder, "torch-2.14.1+cu130", "My_Lib-1.0")
    (packages.parent.parent.parent / "pyvenv.cfg").write_text("version = 3.11.7\n")

    found = packages_of(tmp_path / "ComfyUI", None)

    assert found is not None
    assert found.resolve() == packages.resolve()
    assert installed(found) == {"my-lib": "my-lib==1.0", "torch": "torch==2.14.1+cu130"}
    assert python_of(found) == {"os": "Linux", "pythonVersion": "3.11.7", "torch": "2.14.1+cu130"}


def test_the_python_that_is_named_is_taken(tmp_path: Path) -> None:
    packages = made_packages(tmp_path / "env", "numpy-2.4.6")
    (tmp_path / "env/bin").mkdir()
    (tmp_path / "env/bin/python").write_bytes(b"")

    assert packages_of(tmp_path / "ComfyUI", tmp_path / "env/bin/python") == packages
    assert packages_of(tmp_path / "ComfyUI", None) is None


def test_a_library_of_a_repository_keeps_its_commit(tmp_path: Path) -> None:
    packages = made_packages(tmp_path, "a-1.0", "b-2.0")
    origin = {"url": "https://github.com/x/a", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
    (packages / "a-1.0.dist-info/direct_url.json").write_text(json.dumps(origin))
    (packages / "b-2.0.dist-info/direct_url.json").write_text(json.dumps({"url": "file:///home/me/b.whl"}))

    assert installed(packages) == {
        "a": "a @ git+https://github.com/x/a@abc",
        "b": "b==2.0  # installed from elsewhere than an index",
    }


def test_only_what_a_pack_declares_counts_and_the_bases_are_never_listed() -> None:
    libraries = {
        name: f"{name}==1.0"
        for name in ("torch", "nvidia-cublas", "triton", "comfyui-frontend-package", "pip", "color-matcher", "einops")
    }

    text = pip_text(libraries, {"color-matcher", "torch", "not-installed"}, [])

    assert text.splitlines()[1:] == ["color-matcher==1.0", "# einops==1.0"]
    assert is_evidence(text)


def test_numpy_and_scipy_count_together() -> None:
    text = pip_text({"numpy": "numpy==2.4.6", "scipy": "scipy==1.17.1"}, {"numpy"}, [])

    assert text.splitlines()[1:] == ["numpy==2.4.6", "scipy==1.17.1"]


def test_of_variants_of_one_module_one_counts_and_it_is_told() -> None:
    names = ("opencv-python", "opencv-python-headless", "opencv-contrib-python")
    remarks: list[str] = []

    text = pip_text({name: f"{name}==4.12" for name in names}, set(names[:2]), remarks)

    assert [line for line in text.splitlines() if not line.startswith("#")] == ["opencv-python==4.12"]
    assert len(remarks) == 1
    assert "are one module under several names" in remarks[0]


@pytest.mark.parametrize(
    "line", ["x==1.0+cu130", "x @ git+https://h/x@a", "x==1.0  # installed from elsewhere", "x==git-abc"]
)
def test_what_no_index_has_never_counts(line: str) -> None:
    assert pip_text({"x": line}, {"x"}, []).splitlines()[1:] == [f"# {line}"]


def test_a_python_with_nothing_but_the_base_lists_nothing() -> None:
    assert pip_text({"torch": "torch==2"}, {"torch"}, []) == ""


def test_a_whole_freeze_is_put_behind_marks_and_a_list_of_wishes_is_not() -> None:
    assert without_bases("# mine\nnumpy==2.4.6\n") == ("# mine\nnumpy==2.4.6\n", 0)
    assert without_bases("# all\nnumpy==2.4.6\ntorch==2.14.1\n") == ("# all\n# numpy==2.4.6\n# torch==2.14.1\n", 2)


@pytest.mark.parametrize(
    "name", ["torch", "torchaudio", "xformers", "nvidia-nccl-cu13", "cuda-bindings", "comfyui-manager"]
)
def test_the_bases_libraries_are_known(name: str) -> None:
    assert is_bases(name)
