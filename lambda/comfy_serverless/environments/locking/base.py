"""What the image has from elsewhere, whatever packs ask for: torch and its kin, and no web page.

The versions of torch are those of requirements/torch.in; it comes in one of two builds, with locks of their own. While
libraries are resolved, a stand-in takes the place of each: a wheel with its name, its version and nothing inside.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from comfy_serverless.environments.lock_file import lines_of
from comfy_serverless.environments.locking.requirement_lines import Declared, admits, normalized, requirement_of
from comfy_serverless.errors import NotLocked

#: Who asks for what torch itself needs: see requirements/torch-needs.in.
TORCH: Final = "torch"
#: Built for one torch, or a part of it: the image has what its torch brings.
_BOUND_TO_TORCH: Final = frozenset({"triton", "pytorch-triton", "triton-windows", "xformers"})
#: ComfyUI's web page and its manager: nobody looks at the page in a worker, and the manager would change the image.
_PAGE: Final = frozenset(
    {"comfyui-frontend-package", "comfyui-embedded-docs", "comfyui-manager", "comfyui-workflow-templates"}
)
_PAGE_PARTS: Final = "comfyui-workflow-templates-"
_CORE_PAGE: Final = "comfyui-"
COMFYUI: Final = "ComfyUI"


@dataclass(frozen=True, slots=True)
class Base:
    """The image's own.

    Attributes:
        torch: name -> version, of requirements/torch.in.
        needs: what torch needs of the index; it is locked with the rest.
        torch_in: the text that all this was read from, for the hash of the inputs; `apt_txt` likewise.
        further: names that come with torch's build for CUDA.
    """

    torch: Mapping[str, str]
    needs: tuple[Declared, ...] = ()
    torch_in: str = ""
    apt_txt: str = ""
    further: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def read(cls, folder: Path) -> Base:
        """Read requirements/: torch.in, torch-needs.in, torch-cuda.txt and apt.txt.

        Raises:
            NotLocked: there is no torch.in, or a line in it that pins no version.
        """
        path = folder / "torch.in"
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise NotLocked(
                f"{path} cannot be read: {error.strerror}. It has the versions of torch that the image has; run this "
                "in a checkout of comfy-serverless, or name its folder with --requirements."
            ) from error
        torch = {}
        for line in lines_of(text):
            name, _, version = line.partition("==")
            if not version:
                raise NotLocked(f"{path}: `{line}` pins no version; write name==version.")
            torch[normalized(name.strip())] = version.strip()
        needs_text = _text(folder / "torch-needs.in")
        needs = tuple(
            Declared(TORCH, "requirements/torch-needs.in", 0, line, _name(line), line) for line in lines_of(needs_text)
        )
        cuda = {normalized(line.split("==")[0]) for line in lines_of(_text(folder / "torch-cuda.txt")) if "==" in line}
        further = frozenset(name for name in cuda if name.startswith(("nvidia-", "cuda-")))
        return cls(torch, needs, "\n".join([text, *lines_of(needs_text)]), _text(folder / "apt.txt"), further)

    @property
    def apt(self) -> tuple[str, ...]:
        """Packages of Debian."""
        return tuple(sorted(name for line in lines_of(self.apt_txt) for name in line.split()))

    @property
    def excluded(self) -> tuple[str, ...]:
        """Names that no library brings in."""
        return tuple(sorted(_BOUND_TO_TORCH | _PAGE | self.further))

    def owns(self, name: str) -> bool:
        """Whether the image has it from elsewhere, or has no use for it."""
        return name in self.torch or name in _BOUND_TO_TORCH | _PAGE | self.further or name.startswith(_PAGE_PARTS)

    def why(self, name: str) -> str:
        """What the image has in its place, as the end of a sentence."""
        if name in self.torch:
            return f"the image has {name} {self.torch[name]} (requirements/torch.in)"
        if name in self.further or (name in _BOUND_TO_TORCH and name != "xformers"):
            return "it comes with the image's torch"
        if name == "xformers":
            return "it is built for one torch, and ComfyUI does without: it uses PyTorch's own attention"
        return "a worker has no web page and no manager"

    def stand_ins(self, folder: Path) -> tuple[str, ...]:
        """Write the stand-ins. Returns a requirement for each."""
        made = []
        for name, version in sorted(self.torch.items()):
            path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
            info = f"{name.replace('-', '_')}-{version}.dist-info"
            with zipfile.ZipFile(path, "w") as wheel:
                wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
                wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
                wheel.writestr(f"{info}/RECORD", "")
            made.append(f"{name} @ {path.resolve().as_uri()}")
        return tuple(made)


def without_base(lines: Iterable[Declared], base: Base) -> tuple[list[Declared], list[str]]:
    """The lines that are resolved, and what a person should know of the others."""
    kept, warnings = [], []
    for line in lines:
        if line.source == COMFYUI and line.name.startswith(_CORE_PAGE):
            continue
        if not base.owns(line.name):
            kept.append(line)
        elif line.name in base.torch:
            if not line.is_limit and not _admits_torch(line.requirement, base.torch[line.name]):
                warnings.append(
                    f"{line.place} asks for {line.text}, and gets {base.torch[line.name]}: {base.why(line.name)}."
                )
        elif line.name not in _PAGE or line.source != COMFYUI:
            warnings.append(f"{line.place} asks for {line.text}: it is not installed, {base.why(line.name)}.")
    return kept, warnings


def usable_overrides(lines: Sequence[Declared], base: Base) -> tuple[list[Declared], list[str]]:
    """The overrides that are applied, and a warning for each one that is not, because it is of the base."""
    kept = [line for line in lines if not base.owns(line.name)]
    warnings = [
        f"pipDependencies has {line.text}: it is not applied, {base.why(line.name)}."
        for line in lines
        if base.owns(line.name)
        and not (line.name in base.torch and _admits_torch(line.requirement, base.torch[line.name]))
    ]
    return kept, warnings


def accepted_torch(lines: Sequence[Declared], base: Base) -> frozenset[str]:
    """The names of torch's kin that pipDependencies asks for in the image's version: libraries' own limits give way."""
    return frozenset(
        line.name
        for line in lines
        if line.name in base.torch and _admits_torch(line.requirement, base.torch[line.name])
    )


def _admits_torch(requirement: str, version: str) -> bool:
    """Whether the image's build of a version is what is asked for: `==2.14.1+cu130` is, as a build of the same."""
    asked = requirement_of(requirement)
    if asked is None or asked.url is not None:
        return False
    return admits(requirement, version) or admits(requirement.split("+")[0], version)


def _name(line: str) -> str:
    requirement = requirement_of(line)
    if requirement is None:
        raise NotLocked(f"requirements/torch-needs.in: `{line}` is no requirement.")
    return normalized(requirement.name)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
