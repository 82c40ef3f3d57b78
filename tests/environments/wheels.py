"""Wheels and sdists, made on the spot, the same to the byte each time."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.environments import packs

#: Versions that a package's author has taken back: the index says so, a folder cannot.
YANKED = {"kit_yanked-1.0-py3-none-any.whl": "wrong results"}

#: Builds the sdists of the kit: a PEP 517 backend in 30 lines, because the tests fetch no setuptools.
_BACKEND = '''\
"""A build backend in small. `SOURCES` in kit_build.txt are compiled with cc, modules are taken as they are."""

import base64, hashlib, os, pathlib, subprocess, sysconfig, zipfile


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name, version, *sources = pathlib.Path("kit_build.txt").read_text().split()
    tag = "py3-none-any"
    files = {path.name: path.read_bytes() for path in pathlib.Path(".").glob(name + ".py")}
    for source in sources:
        made = pathlib.Path(source).stem + sysconfig.get_config_var("EXT_SUFFIX")
        include = "-I" + sysconfig.get_paths()["include"]
        subprocess.check_call([os.environ.get("CC", "cc"), "-shared", "-fPIC", include, source, "-o", made])
        files[made] = pathlib.Path(made).read_bytes()
        python = "cp" + sysconfig.get_config_var("py_version_nodot")
        tag = f"{python}-{python}-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
    info = f"{name}-{version}.dist-info"
    files[f"{info}/METADATA"] = pathlib.Path("PKG-INFO").read_bytes()
    pure = str(not sources).lower()
    wheel = f"Wheel-Version: 1.0\\nGenerator: kit\\nRoot-Is-Purelib: {pure}\\nTag: {tag}\\n"
    files[f"{info}/WHEEL"] = wheel.encode()
    record = ""
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(data)}\\n"
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\\n").encode()
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / f"{name}-{version}-{tag}.whl", "w") as target:
        for path, data in files.items():
            target.writestr(zipfile.ZipInfo(path, (2026, 10, 1, 12, 0, 0)), data)
    return f"{name}-{version}-{tag}.whl"
'''

_C_SOURCE = """\
#include <Python.h>
static PyObject *one(PyObject *self, PyObject *none) { return PyLong_FromLong(1); }
static PyMethodDef methods[] = {{"one", one, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "kit_compiled", "", -1, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_kit_compiled(void) { return PyModule_Create(&module); }
"""

#: What a module that was compiled for numpy 1 does under numpy 2.
_OLD_ABI = """\
import numpy

if int(numpy.__version__.split(".")[0]) >= 2:
    raise ImportError("numpy.core.multiarray failed to import")
"""


class Wheelhouse:
    """A folder of distributions, for `--find-links` or behind `wheel_index.WheelIndex`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def wheel(
        self,
        name: str,
        version: str,
        *,
        files: Mapping[str, bytes | str] | None = None,
        requires: Sequence[str] = (),
        tag: str = "py3-none-any",
        requires_python: str = "",
    ) -> Path:
        """Add a wheel; without files it has one module with a version."""
        stem = name.replace("-", "_")
        info = f"{stem}-{version}.dist-info"
        content = {
            path: text.encode() if isinstance(text, str) else text
            for path, text in (files or {f"{stem}.py": f'__version__ = "{version}"\n'}).items()
        }
        content[f"{info}/METADATA"] = metadata(name, version, requires=requires, requires_python=requires_python)
        pure = str(tag.endswith("-none-any")).lower()
        content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: kit\nRoot-Is-Purelib: {pure}\nTag: {tag}\n".encode()
        content[f"{info}/RECORD"] = _record(content, info)
        return self._put(f"{stem}-{version}-{tag}.whl", packs.archive(content))

    def sdist(
        self,
        name: str,
        version: str,
        *,
        files: Mapping[str, str] | None = None,
        sources: Sequence[str] = (),
        requires: Sequence[str] = (),
        build_requires: Sequence[str] = ("kit-backend",),
    ) -> Path:
        """Add an sdist that `kit-backend` builds; `sources` are files in C."""
        stem = name.replace("-", "_")
        content = source_files(
            name, version, files=files, sources=sources, requires=requires, build_requires=build_requires
        )
        return self._put(f"{stem}-{version}.tar.gz", _tar(content, below=f"{stem}-{version}/"))

    def _put(self, name: str, content: bytes) -> Path:
        (self.folder / name).write_bytes(content)
        return self.folder / name


def source_files(
    name: str,
    version: str,
    *,
    files: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
    requires: Sequence[str] = (),
    build_requires: Sequence[str] = ("kit-backend",),
) -> dict[str, bytes]:
    """The source tree of a library: what an sdist has inside, and what a repository would have."""
    stem = name.replace("-", "_")
    wanted = ", ".join(f'"{line}"' for line in build_requires)
    content = {
        "PKG-INFO": metadata(name, version, requires=requires).decode(),
        "kit_build.txt": " ".join((stem, version, *sources)) + "\n",
        "pyproject.toml": f'[build-system]\nrequires = [{wanted}]\nbuild-backend = "kit_backend"\n\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\ndependencies = {list(requires)!r}\n'.replace("'", '"'),
        **(files or {f"{stem}.py": f'__version__ = "{version}"\n'}),
    }
    return {path: text.encode() for path, text in content.items()}


def metadata(name: str, version: str, *, requires: Sequence[str] = (), requires_python: str = "") -> bytes:
    lines = ["Metadata-Version: 2.2", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {requires_python}"] if requires_python else []
    lines += [f"Requires-Dist: {line}" for line in requires]
    return ("\n".join(lines) + "\n").encode()


def fill(house: Wheelhouse) -> Wheelhouse:
    """Everything that the packs of the kit, and the small ComfyUI, ask for."""
    for version in ("1.0", "1.1", "2.0"):
        house.wheel("kit-math", version)
    house.wheel("kit-colors", "1.0", files={"kit_colors.py": "def inverted(image):\n    return 1.0 - image\n"})
    house.wheel("kit-colors", "1.2", files={"kit_colors.py": "def inverted(image):\n    return 1.0 - image\n"})
    house.wheel("kit-geometry", "1.0", requires=["kit-math>=1"])
    house.wheel("kit-geometry", "2.0", requires=["kit-math>=2"])
    house.wheel("kit-extra", "1.0", files={"kit_extra.py": "def use(image):\n    return image\n"})
    house.wheel("kit-engine", "0.33.1", requires=["numpy", "kit-math"])
    house.wheel(
        "kit-native",
        "1.0",
        files={"kit_native.py": _OLD_ABI},
        tag="cp311-cp311-manylinux_2_17_x86_64",
        requires=["numpy"],
    )
    house.wheel("kit-windows", "1.0", tag="cp311-cp311-win_amd64")
    house.wheel("kit-tomorrow", "1.0", requires_python=">=3.13")
    house.wheel("kit-yanked", "1.0")
    house.wheel("kit-yanked", "1.1")
    house.wheel("kit-backend", "1.0", files={"kit_backend.py": _BACKEND})
    house.sdist("kit-source", "1.0", files={"kit_source.py": "def half(image):\n    return image * 0.5\n"})
    house.sdist("kit-compiled", "1.0", files={"kit_compiled.c": _C_SOURCE}, sources=["kit_compiled.c"])
    # Names of the real index that the small ComfyUI asks for; nothing is in them.
    for name, version in (
        ("numpy", "1.23.5"),
        ("numpy", "1.26.4"),
        ("numpy", "2.4.6"),
        ("pillow", "13.0.0"),
        ("xformers", "0.0.40"),
    ):
        house.wheel(name, version, files={f"kit_empty_{name}.py": ""})
    for name in (
        "comfyui-frontend-package==1.49.6",
        "comfyui-workflow-templates==0.11.44",
        "comfyui-embedded-docs==0.5.10",
    ):
        house.wheel(*name.split("=="))
    return house


def _record(content: Mapping[str, bytes], info: str) -> bytes:
    lines = []
    for path, data in sorted(content.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}")
    return "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()


def _tar(content: Mapping[str, bytes], *, below: str) -> bytes:
    made = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=made, mode="wb", mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w") as target,
    ):
        for path in sorted(content):
            entry = tarfile.TarInfo(below + path)
            entry.size, entry.mtime, entry.mode = len(content[path]), 1790856000, 0o644
            target.addfile(entry, io.BytesIO(content[path]))
    return made.getvalue()
