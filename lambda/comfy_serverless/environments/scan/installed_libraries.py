"""What an install's own Python has, and which lines of that a build file lists. Nothing of that Python is run."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

_FOLDERS: Final = ("venv", ".venv", "env", "python_embeded", "../python_embeded", "../venv", "../.venv")
_PACKAGES: Final = ("lib/python3*/site-packages", "Lib/site-packages", "lib64/python3*/site-packages")
#: Torch and what is built for one torch; ComfyUI's own parts; what every Python has. They belong to the base.
_BASES: Final = frozenset(
    {"torch", "torchvision", "torchaudio", "torchtext", "triton", "pytorch-triton", "pytorch-triton-rocm", "xformers"}
    | {"triton-windows", "flash-attn", "sageattention", "bitsandbytes", "intel-extension-for-pytorch"}
    | {"pip", "setuptools", "wheel", "uv", "distribute", "pkg-resources", "comfy-cli", "conda", "virtualenv"}
    | {"comfyui-manager", "comfyui", "comfyui-embedded-docs", "pywin32", "pywinpty", "pypiwin32", "pyreadline3"}
    | {"appnope", "directml", "torch-directml", "onnxruntime-directml", "colorama", "mlx", "mlx-metal", "uvloop"}
)
_BASES_BEGINNINGS: Final = ("nvidia-", "cuda-", "comfyui-frontend", "comfyui-workflow-templates", "pyobjc", "winrt-")
#: What is one library under several names, or moves together: of a group all lines count, or none.
_TOGETHER: Final = (frozenset({"numpy", "scipy"}),)
_ONE_MODULE: Final = (
    ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    ("onnxruntime", "onnxruntime-gpu"),
    ("pillow", "pillow-simd"),
)
_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)")
_HEAD: Final = "# What the install's Python has: evidence, no wishes. Lines without # replace what packs ask for.\n"


def normalized(name: str) -> str:
    """A library's name as all write it the same."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_bases(name: str) -> bool:
    """Whether a library belongs to the image's base, or to another system, and is never listed."""
    return name in _BASES or name.startswith(_BASES_BEGINNINGS)


def packages_of(install: Path, python: Path | None) -> Path | None:
    """The folder `site-packages` of an install's Python; None if there is none to be found."""
    roots = [install / folder for folder in _FOLDERS]
    if python is not None:
        roots = [python, python.parent, python.parent.parent] if python.suffix or python.is_file() else [python]
    found = (packages for root in roots for pattern in _PACKAGES for packages in sorted(root.glob(pattern)))
    return next(iter(sorted(found, key=lambda path: not any(path.glob("torch-*.dist-info")))), None)


def installed(packages: Path) -> dict[str, str]:
    """The libraries of a `site-packages`, as pip lines by their normalized names."""
    lines = {}
    for info in sorted(packages.glob("*.dist-info")):
        name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
        if name and version:
            lines[normalized(name)] = _line(normalized(name), version, info)
    return lines


def python_of(packages: Path) -> dict[str, str]:
    """`environment` of the file, as far as the folders tell it: evidence."""
    facts = {}
    if version := re.search(r"python(3\.\d+)", str(packages)):
        facts["pythonVersion"] = version[1]
    root = packages.parent.parent if packages.parent.name == "Lib" else packages.parent.parent.parent
    for folder in (packages.parent.parent, root):
        try:
            text = (folder / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if version := re.search(r"^version(?:_info)?\s*=\s*(3\.\d+(?:\.\d+)?)", text, re.MULTILINE):
            facts["pythonVersion"] = version[1]
    torch = next((one.name for one in sorted(packages.glob("torch-*.dist-info"))), "")
    if torch:
        facts["torch"] = torch.removeprefix("torch-").removesuffix(".dist-info")
    facts["os"] = "Windows" if packages.parent.name == "Lib" else "Linux"
    return facts


def names_in(lines: Iterable[str]) -> set[str]:
    """The libraries that lines of a requirements.txt name."""
    found = (_NAME.match(line) for line in lines)
    return {normalized(match[1]) for match in found if match is not None}


def pip_text(libraries: Mapping[str, str], declared: Collection[str], remarks: list[str]) -> str:
    """The text of `pipDependencies`: every library, those without # that a pack declares. "" if there are none.

    Args:
        libraries: pip lines by normalized names.
        declared: the names that packs declare.
        remarks: gets what people should know.
    """
    listed = {name: line for name, line in libraries.items() if not is_bases(name)}
    counting = {name for name in declared if name in listed and _is_of_an_index(listed[name])}
    for group in _TOGETHER:
        if counting & group:
            counting |= group & set(listed)
    for variants in _ONE_MODULE:
        there = [name for name in variants if name in listed]
        if len(there) > 1:
            kept = next((name for name in there if name in counting), there[0])
            counting -= set(there) - {kept}
            remarks.append(f"{' and '.join(there)} are one module under several names: take one of them, e.g. {kept}")
    if not listed:
        return ""
    return _HEAD + "".join(f"{'' if name in counting else '# '}{listed[name]}\n" for name in sorted(listed))


def is_evidence(text: str) -> bool:
    """Whether a text of pip lines is what `pip_text` wrote, or empty: then it may be written anew."""
    return not text.strip() or text.startswith(_HEAD)


def without_bases(text: str) -> tuple[str, int]:
    """A text of pip lines in which those of a whole `pip freeze` are put behind #, and how many that were.

    A list with torch in it is a freeze: taken on another system, it would force wrong versions on the image.
    """
    lines = text.split("\n")
    counting = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not any(is_bases(name) for name in names_in(line.strip() for line in counting)):
        return text, 0
    return "\n".join(f"# {line}" if line in counting else line for line in lines), len(counting)


def _is_of_an_index(line: str) -> bool:
    """Whether a line can replace what packs ask for: a version that an index may have."""
    from packaging.requirements import InvalidRequirement, Requirement

    if not re.fullmatch(r"[^ +#@]+", line):
        return False
    try:
        Requirement(line)
    except InvalidRequirement:  # a version of older days
        return False
    return True


def _line(name: str, version: str, info: Path) -> str:
    try:
        origin = json.loads((info / "direct_url.json").read_bytes())
    except (OSError, ValueError):
        return f"{name}=={version}"
    vcs = origin.get("vcs_info") if isinstance(origin, dict) else None
    address = str(origin.get("url", "")) if isinstance(origin, dict) else ""
    if isinstance(vcs, dict) and address.startswith("https://") and "@" not in address:
        return f"{name} @ git+{address}@{vcs.get('commit_id', '')}"
    return f"{name}=={version}  # installed from elsewhere than an index"
