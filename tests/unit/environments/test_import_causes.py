"""Why a pack did not import: the module, who declared it or that nobody did, and what to do. ComfyUI's words are "
"real."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_serverless.connector.import_report import ImportReport, NotImported
from comfy_serverless.environments.image import module_names
from comfy_serverless.environments.image.import_causes import cause_of
from comfy_serverless.environments.image.import_story import Cause, Kind, Known, Library

#: What ComfyUI 0.33.0 wrote of packs that fail in these ways, without lines of its own source.
REAL = Path(__file__).parents[2] / "fixtures" / "comfyui" / "import_failures.txt"
KNOWN = Known(
    libraries={
        "numpy": Library("2.4.6", ("ComfyUI: numpy>=1.25.0", "scipy 1.17.1: numpy>=1.25")),
        "transformers": Library("5.1", ("ComfyUI: transformers",)),
        "setuptools": Library("84.0", ("torch",)),
        "scikit-learn": Library("1.9", ("pack: scikit-learn",)),
    },
    declared={"missing_module": ["opencv-python>=4; sys_platform == 'win32'"], "other": ["pack>=1"]},
    modules={"numpy": "numpy", "transformers": "transformers", "sklearn": "scikit-learn"},
    own_modules={"pack": frozenset({"pack", "utils", "nodes"})},
)


def real() -> dict[str, NotImported]:
    report = ImportReport()
    for line in REAL.read_text(encoding="utf-8").splitlines():
        report.see(line)
    return {lost.pack: lost for lost in report.not_imported}


def cause(pack: str) -> Cause:
    return cause_of(real()[pack], KNOWN, mode="read-only, as on Lambda")


def said(last: str, *frames: str, reason: str | None = None) -> Cause:
    """The cause of an exception at the end of a traceback of the pack `pack`."""
    folder = "/tmp/comfyui/custom_nodes/pack"
    trace = [
        f'  File "{folder}/__init__.py", line 3, in <module>',
        *(f'  File "{frame}", line 7, in x' for frame in frames),
    ]
    reason = last.partition(": ")[2] if reason is None else reason
    return cause_of(NotImported("pack", reason, folder, trace=(*trace, last)), KNOWN, mode="read-only, as on Lambda")


@pytest.mark.parametrize(
    ("pack", "kind", "what", "do"),
    [
        (
            "missing_deep",
            Kind.MISSING_MODULE,
            "segment_anything_hq is missing (nodes.py, line 1)",
            "`segment-anything-hq`",
        ),
        (
            "missing_module",
            Kind.MISSING_MODULE,
            "the module cv2 is missing (__init__.py, line 1)",
            "env lock says what",
        ),
        ("meta", Kind.MISSING_MODULE, "the library not-there is not installed", "the line `not-there`"),
        ("pkgres", Kind.LIBRARY_VERSION, "setuptools 84.0 has no module pkg_resources", "`setuptools<81`"),
        ("missing_lib2", Kind.MISSING_SYSTEM_LIBRARY, "libGL.so.1 is missing", "`libgl1` to requirements/apt.txt"),
        ("abi", Kind.ABI, "another numpy than the image's (numpy 2.4.6)", "was built for the image's numpy"),
        ("abi2", Kind.ABI, "another numpy than the image's", "was built for the image's numpy"),
        ("cudahome", Kind.COMPILER, "needs nvcc", "no CUDA compiler"),
        ("network", Kind.NETWORK, "needs the network (huggingface.co)", "belongs into the image"),
        ("network2", Kind.NETWORK, "needs the network (huggingface.co)", "ALLOW_IMPORT_FAILURES=network2"),
        ("gpu", Kind.GPU, "needs a GPU while it is imported (__init__.py, line 2)", "ALLOW_IMPORT_FAILURES=gpu."),
        ("gpu2", Kind.GPU, "needs a GPU", "ALLOW_IMPORT_FAILURES=gpu2."),
        ("no_classes", Kind.NO_CLASSES, "declares no nodes", "take it out of comfy-build.yaml"),
        ("empty_folder", Kind.NO_CLASSES, "no __init__.py", "name the folder that has the __init__.py"),
        ("sub_only", Kind.NO_CLASSES, "in a folder inside of it", "name the folder that has the __init__.py"),
        (
            "old_name",
            Kind.LIBRARY_VERSION,
            "numpy 2.4.6 has no not_there_any_more",
            "a line for numpy in pipDependencies",
        ),
        ("old_attr", Kind.LIBRARY_VERSION, "numpy 2.4.6 has no bool8", "a line for numpy in pipDependencies"),
        ("newer_syntax", Kind.SYNTAX, "Python 3.11 cannot read (__init__.py, line 1", "a version for Python 3.11"),
        ("assertion", Kind.OTHER, "(__init__.py, line 1): AssertionError", "ALLOW_IMPORT_FAILURES=assertion"),
    ],
)
def test_each_way_to_fail_is_known_with_what_to_do(pack: str, kind: Kind, what: str, do: str) -> None:
    found = cause(pack)
    assert found.kind is kind
    assert what in found.what
    assert do in found.do


def test_it_is_said_who_declared_it_or_that_nobody_did() -> None:
    assert cause("missing_deep").declared == "declared by nobody: no requirements.txt of a pack names it"
    assert "declared by missing_module: opencv-python>=4" in cause("missing_module").declared
    assert cause("old_attr").declared == "asked for by ComfyUI: numpy>=1.25.0, scipy 1.17.1: numpy>=1.25"


@pytest.mark.parametrize(
    ("module", "line"),
    [("PIL.Image", "pillow"), ("yaml", "pyyaml"), ("cv2", "opencv-python-headless"), ("some_lib.x", "some-lib")],
)
def test_what_nobody_declares_is_told_with_the_whole_line_and_its_file(module: str, line: str) -> None:
    known = Known(own_modules={"pack": frozenset({"pack"})})
    lost = NotImported(
        "pack", f"No module named '{module}'", trace=(f"ModuleNotFoundError: No module named '{module}'",)
    )
    found = cause_of(lost, known)
    assert found.declared == "declared by nobody: no requirements.txt of a pack names it"
    assert found.do == (
        f"add the line `{line}` to comfyui/more-requirements.txt, then comfy-serverless env lock, and build again"
    )


def test_a_line_of_ones_own_that_is_not_in_the_lock_is_no_line_to_add() -> None:
    lost = NotImported("pack", "No module named 'yaml'", trace=("ModuleNotFoundError: No module named 'yaml'",))
    found = cause_of(lost, Known(more=["pyyaml; python_version < '3'"]))
    assert found.declared.startswith("declared by more-requirements.txt: pyyaml; python_version < '3', and yet not in")
    assert found.do.startswith("see why it is not in the lock")


def test_what_no_list_brings_is_no_line_to_add() -> None:
    found = said("ModuleNotFoundError: No module named 'xformers'", reason="No module named 'xformers'")
    assert "no list brings xformers into the image (it is built for one torch" in found.do
    assert "more-requirements.txt" not in found.do


def test_without_a_lock_nothing_is_said_about_who_declared_it() -> None:
    lost = real()["missing_deep"]
    assert cause_of(lost, Known(is_locked=False)).declared == ""


@pytest.mark.parametrize(
    ("last", "kind", "words"),
    [
        ("ModuleNotFoundError: No module named 'comfy.ops2'", Kind.COMFYUI_VERSION, "written for another ComfyUI"),
        (
            "ImportError: cannot import name 'X' from 'comfy.utils' (/opt/comfyui/comfy/utils.py)",
            Kind.COMFYUI_VERSION,
            "X",
        ),
        ("AttributeError: module 'folder_paths' has no attribute 'y'", Kind.COMFYUI_VERSION, "folder_paths has no y"),
        ("ModuleNotFoundError: No module named 'utils.extra'", Kind.MISSING_MODULE, "a part of this pack"),
        ("ModuleNotFoundError: No module named 'custom_nodes.Other'", Kind.MISSING_MODULE, "or of another one"),
        ("ModuleNotFoundError: No module named 'winreg'", Kind.MISSING_MODULE, "only Windows"),
        ("ModuleNotFoundError: No module named 'tkinter'", Kind.MISSING_MODULE, "`python3-tk`"),
        (
            "ModuleNotFoundError: No module named 'transformers.old'",
            Kind.LIBRARY_VERSION,
            "transformers 5.1 has no module",
        ),
        (
            "subprocess.CalledProcessError: Command '['python', '-m', 'pip', 'install', '-r', 'needs.txt']' failed",
            Kind.INSTALLS,
            "add a line for what it installs to comfyui/more-requirements.txt",
        ),
        ("/opt/comfyui-venv/bin/python: No module named pip", Kind.INSTALLS, "add a line for what it installs"),
        (
            "subprocess.CalledProcessError: Command '['python', '-m', 'pip', 'install', '-q', 'x>=1', 'y']' returned 1",
            Kind.INSTALLS,
            "add the lines `x>=1` and `y` to comfyui/more-requirements.txt",
        ),
        ("OSError: libcudart.so.12: cannot open shared object file: No such file", Kind.ABI, "another CUDA"),
        ("OSError: libcuda.so.1: cannot open shared object file: No such file", Kind.GPU, "needs a GPU"),
        ("ImportError: /opt/x/site-packages/xformers/_C.so: undefined symbol: _ZN3c10", Kind.ABI, "library xformers"),
        ("AttributeError: _ARRAY_API not found", Kind.ABI, "another numpy"),
        (
            "OSError: cannot load library 'libsndfile.so': libsndfile.so: cannot open shared object file",
            Kind.MISSING_SYSTEM_LIBRARY,
            "`libsndfile1`",
        ),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'ffmpeg'", Kind.MISSING_PROGRAM, "`ffmpeg`"),
        ("ImportError: Bad git executable.", Kind.MISSING_PROGRAM, "`git`"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'nvcc'", Kind.COMPILER, "needs nvcc"),
        ("OSError: CUDA_HOME environment variable is not set.", Kind.COMPILER, "needs nvcc"),
        ("RuntimeError: Ninja is required to load C++ extensions", Kind.COMPILER, "compiles while it is imported"),
        ("PermissionError: [Errno 13] Permission denied: '/opt/x/config.ini'", Kind.WRITES, "/opt/x/config.ini"),
        ("OSError: [Errno 30] Read-only file system: '/var/data'", Kind.WRITES, "read-only, as on Lambda"),
        ("sqlite3.OperationalError: unable to open database file", Kind.WRITES, "writes a file"),
        ("huggingface_hub.errors.LocalEntryNotFoundError: Cannot find", Kind.NETWORK, "needs the network"),
        ("AssertionError: Torch not compiled with CUDA enabled", Kind.GPU, "needs a GPU"),
        ("RuntimeError: 0 active drivers ([]). There should only be one.", Kind.GPU, "needs a GPU"),
        (
            "ImportError: cannot import name 'override' from 'typing' (/usr/lib/python3.11/typing.py)",
            Kind.SYNTAX,
            "3.11",
        ),
        (
            "ImportError: tokenizers>=0.22,<0.23 is required for a normal functioning of this module",
            Kind.LIBRARY_VERSION,
            "it wants tokenizers>=0.22,<0.23",
        ),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/x/model.pth'", Kind.MISSING_FILE, "/x/model.pth"),
        ("NameError: name 'x' is not defined", Kind.OTHER, "name 'x' is not defined"),
    ],
)
def test_the_same_kinds_in_other_words(last: str, kind: Kind, words: str) -> None:
    found = said(last)
    assert found.kind is kind
    assert words in f"{found.what} {found.do}"


def test_a_library_in_between_is_named() -> None:
    site = "/opt/comfyui-venv/lib/python3.11/site-packages"
    found = said("ModuleNotFoundError: No module named 'cv2'", f"{site}/controlnet_aux/util.py")
    assert "which the library controlnet_aux asks for" in found.what
    assert "(__init__.py, line 3)" in found.what
    old = said("AttributeError: module 'numpy' has no attribute 'float'", f"{site}/imgaug/imgaug.py")
    assert "the library imgaug was written for" in old.what


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("cv2", "opencv-python-headless"),
        ("sklearn.cluster", "scikit-learn"),
        ("google.protobuf.x", "protobuf"),
        ("segment_anything", "segment-anything"),
        ("unknown_module.part", "unknown-module"),
    ],
)
def test_the_library_of_a_module(module: str, library: str) -> None:
    assert module_names.library_of(module) == library


@pytest.mark.parametrize(
    ("shared", "package"),
    [
        ("libGL.so.1", "libgl1"),
        ("libgthread-2.0.so.0", "libglib2.0-0"),
        ("libavcodec.so.59", "ffmpeg"),
        ("libfoo.so.3", "libfoo3"),
        ("libfoo2.so.1", "libfoo2-1"),
        ("libXext.so.6", "libxext6"),
        ("libSM.so.6", "libsm6"),
    ],
)
def test_the_package_of_a_shared_library(shared: str, package: str) -> None:
    assert module_names.debian_of(shared) == package
