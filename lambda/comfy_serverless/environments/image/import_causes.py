"""Why a pack did not import, and what to do about it: from ComfyUI's own words, and from the lock. No IO.

ComfyUI tells the exception. What a person needs is the module, who declared it or that nobody did, and the line to add.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Final

from comfy_serverless.connector.import_report import NotImported
from comfy_serverless.environments.image import module_names as names
from comfy_serverless.environments.image.import_story import PYTHON, Cause, Kind, Known, Story, exception_of
from comfy_serverless.environments.lock_file import MORE_REQUIREMENTS
from comfy_serverless.environments.locking.base import Base

#: Of any image: what belongs to torch, and ComfyUI's page, come from no list.
_NO_BASE: Final = Base({})


def cause_of(lost: NotImported, known: Known, *, mode: str = "") -> Cause:
    """Why a pack did not import.

    Args:
        mode: how ComfyUI was started when it did not, e.g. "read-only, as on Lambda".
    """
    last = lost.trace[-1].strip() if lost.trace else ""
    story = Story(lost, known, mode, last, exception_of(last), lost.reason or last)
    for rule in _RULES:
        if cause := rule(story):
            return cause
    return _other(story)


def died(pack: str, how: str) -> Cause:
    """A pack whose import ends ComfyUI itself."""
    return Cause(
        Kind.DIED,
        f"ComfyUI itself ends while it imports this pack ({how}): it calls exit, or crashes in a compiled library",
        "take another version of the pack, or do without it: no worker can start with it",
        subject=pack,
    )


def _no_classes(story: Story) -> Cause | None:
    if "lack of NODE_CLASS_MAPPINGS" in story.reason:
        return Cause(
            Kind.NO_CLASSES,
            "it declares no nodes: neither NODE_CLASS_MAPPINGS nor comfy_entrypoint",
            "it is no pack of nodes, or one for the browser alone, which no worker needs: take it out of "
            "comfy-build.yaml, " + story.let_it,
        )
    if re.search(r"No such file or directory: '[^']*/__init__\.py'", story.text) and not story.place:
        return Cause(
            Kind.NO_CLASSES,
            "its folder has no __init__.py, so it is no pack: it is empty, or the pack lies in a folder inside of it",
            "name the folder that has the __init__.py, or take the entry out of comfy-build.yaml",
        )
    return None


def _syntax(story: Story) -> Cause | None:
    if story.exception not in ("SyntaxError", "IndentationError", "TabError"):
        return None
    file, line = (re.findall(r'File "([^"]+)", line (\d+)', "\n".join(story.lost.trace)) or [("", "")])[-1]
    where = f"{file.removeprefix(story.lost.path).lstrip('/') or story.pack}, line {line}" if file else story.reason
    whose = f"the library {story.through}" if story.through else "the pack"
    return Cause(
        Kind.SYNTAX,
        f"{whose} has code that Python {PYTHON} cannot read ({where}: {story.reason})",
        f"it was written for a newer Python, or is broken: take a version for Python {PYTHON}, {story.let_it}",
        story.declared(story.through) if story.through else "",
        subject=file,
    )


def _gpu(story: Story) -> Cause | None:
    if not _GPU.search(story.text):
        return None
    return Cause(
        Kind.GPU,
        f"it needs a GPU while it is imported{story.place}, and the build has none",
        f"on a worker with a GPU it will import: let it fail here, --build-arg ALLOW_IMPORT_FAILURES={story.pack}. A "
        "worker without one cannot have it",
        subject="GPU",
    )


def _installs(story: Story) -> Cause | None:
    is_pip = re.search(r"No module named '?pip'?\b|'-m', 'pip'|\bpip\b.*\binstall\b|\buv\b.*\bpip\b", story.text)
    if not is_pip:
        return None
    return Cause(
        Kind.INSTALLS,
        f"it installs libraries by itself while it is imported{story.place}, and the image has no pip",
        f"{_add_line(story.installs)}. What is there already it does not install",
        subject="pip",
    )


def _abi(story: Story) -> Cause | None:
    if not _ABI.search(story.text):
        return None
    subject = "numpy" if re.search(r"numpy|_ARRAY_API|ABI version", story.text) else "torch"
    if found := re.search(
        r"\blib(?:cudart|cublas(?:Lt)?|cudnn\w*|nvrtc|cufft|cusparse|cusolver|nccl)\.so[.\d]*", story.text
    ):
        subject = "CUDA"
        what = f"a compiled library was built for another CUDA than the image's: it wants {found[0]}"
    else:
        of = f" ({story.installed(subject)})" if story.known.libraries.get(subject) else ""
        what = f"a compiled library was built for another {subject} than the image's{of}: {story.reason}"
    library = story.through or story.library_in_path
    if library:
        what = what.replace("a compiled library", f"the compiled library {library}")
    return Cause(
        Kind.ABI,
        what,
        f"take a version of {library or 'it'} that was built for the image's {subject} (a line in pipDependencies), "
        "or one that comes as sources: those are built against what the image has",
        story.declared(library) if library else "",
        subject=library or subject,
    )


def _shared_library(story: Story) -> Cause | None:
    found = re.search(r"(lib[\w+.-]+?\.so[.\d]*): cannot open shared object file", story.text) or re.search(
        r"(?:no library called|cannot load library|could not find"
        r"|unable to find)\W+(?:the )?['\"]?(lib[\w+.-]+?\.so[.\d]*)",
        story.text,
        re.IGNORECASE,
    )
    if found is None:
        return None
    library, package = found[1], names.debian_of(found[1])
    by = f", which {story.through} needs" if story.through else ""
    return Cause(
        Kind.MISSING_SYSTEM_LIBRARY,
        f"the system's library {library} is missing{by}",
        f"add the line `{package}` to requirements/apt.txt, then lock and build again"
        + (" (opencv-python-headless in place of opencv-python does without it)" if library == "libGL.so.1" else ""),
        subject=library,
    )


def _compiler(story: Story) -> Cause | None:
    program = story.program
    is_torch = any("torch/utils/cpp_extension" in path for path in story.frames)
    if not (is_torch or program in names.COMPILERS or _COMPILER.search(story.text)):
        return None
    wanted = program or ("nvcc" if is_torch or "CUDA_HOME" in story.text else "a compiler")
    return Cause(
        Kind.COMPILER,
        f"it compiles while it is imported{story.place}, and needs {wanted}: {story.reason}",
        "the image has gcc and g++, and no CUDA compiler: take a version of the pack (or of the library) that is "
        f"compiled already, {story.let_it}",
        subject=wanted,
    )


def _program(story: Story) -> Cause | None:
    program = story.program
    if re.search(r"Bad git executable|git executable must be specified", story.text):
        program = "git"
    package = names.PROGRAMS.get(program)
    if package is None:
        return None
    return Cause(
        Kind.MISSING_PROGRAM,
        f"it runs the program {program} while it is imported{story.place}, which is missing",
        f"add the line `{package}` to requirements/apt.txt, then lock and build again",
        subject=program,
    )


def _missing_module(story: Story) -> Cause | None:
    found = re.search(r"No module named '?([\w.]+)'?", story.text)
    if found is None:
        return None
    module = found[1]
    top = module.split(".", maxsplit=1)[0]
    if top in names.COMFYUI and top not in story.known.own_modules.get(story.pack, ()):
        return _of_comfyui(story, f"ComfyUI has no module {module}")
    if top in names.ELSEWHERE:
        return Cause(
            Kind.MISSING_MODULE,
            f"it needs the module {module}{story.place}, which only Windows or macOS have",
            "no worker can run it: do without the pack, or take a version for Linux",
            subject=module,
        )
    if package := names.DEBIAN_MODULES.get(top):
        return Cause(
            Kind.MISSING_MODULE,
            f"the module {module} is missing{story.place}: Debian has it in a package of its own",
            f"add the line `{package}` to requirements/apt.txt, then lock and build again",
            subject=module,
        )
    if top == "custom_nodes" or top in story.known.own_modules.get(story.pack, ()):
        return Cause(
            Kind.MISSING_MODULE,
            f"the module {module} is missing{story.place}: a part of this pack, or of another one",
            "the pack is not whole (a submodule, or a file that its archive leaves out), or needs another beside it",
            subject=module,
        )
    library = names.library_of(module)
    plain = names.normal(re.split(r"[<>=!~]", library, maxsplit=1)[0])
    if has := story.known.modules.get(top) or (plain if plain in story.known.libraries else ""):
        return Cause(
            Kind.LIBRARY_VERSION,
            f"{story.installed(has)} has no module {module}{story.place}: the pack was written for another version of "
            "it",
            f"choose the version that it needs: a line for {has} in pipDependencies"
            + (f" (`{library}`)" if library != plain else ""),
            story.declared(has),
            subject=has,
        )
    asked = f", which the library {story.through} asks for" if story.through else ""
    if _NO_BASE.owns(plain):
        return Cause(
            Kind.MISSING_MODULE,
            f"the module {module} is missing{story.place}{asked}",
            f"no list brings {plain} into the image ({_NO_BASE.why(plain)}): take a version of the pack that does "
            f"without, {story.let_it}",
            subject=module,
        )
    declared = story.declared(library)
    is_declared = "nobody" not in declared and bool(declared)
    return Cause(
        Kind.MISSING_MODULE,
        f"the module {module} is missing{story.place}{asked}",
        "see why it is not in the lock: comfy-serverless env lock says what it leaves out"
        if is_declared
        else _add_line([library]),
        declared,
        subject=module,
    )


def _add_line(libraries: Sequence[str]) -> str:
    """What to do for libraries that nobody declares; without one, what it installs is not known."""
    lines = " and ".join(f"`{library}`" for library in libraries)
    which = f"the line{'s' if len(libraries) > 1 else ''} {lines}" if libraries else "a line for what it installs"
    return f"add {which} to comfyui/{MORE_REQUIREMENTS}, then comfy-serverless env lock, and build again"


def _version(story: Story) -> Cause | None:
    name = attribute = ""
    if found := re.search(r"cannot import name '([^']+)' from (?:partially initialized module )?'([^']+)'", story.text):
        attribute, name = found[1], found[2]
    elif found := re.search(r"(?:partially initialized )?module '([^']+)' has no attribute '([^']+)'", story.text):
        name, attribute = found[1], found[2]
    elif found := re.search(r"No package metadata was found for ([\w.-]+)", story.text):
        return Cause(
            Kind.MISSING_MODULE,
            f"the library {found[1]} is not installed{story.place}",
            _add_line([found[1]]),
            story.declared(found[1]),
            subject=found[1],
        )
    elif found := _WANTS.search(story.text):
        wanted = next(group for group in found.groups() if group)
        name = re.split(r"[<>=!~ (]", wanted, maxsplit=1)[0]
        return _another_version(story, name, f"it wants {wanted.strip()}, and the image has {story.installed(name)}")
    if not name:
        return None
    top = name.split(".", maxsplit=1)[0]
    if top in names.COMFYUI and top not in story.known.own_modules.get(story.pack, ()):
        return _of_comfyui(story, f"ComfyUI's {name} has no {attribute}")
    if top in sys.stdlib_module_names:
        return Cause(
            Kind.SYNTAX,
            f"Python {PYTHON}'s module {name} has no {attribute}{story.place}: it was written for another Python",
            f"take a version for Python {PYTHON}, {story.let_it}",
            subject=name,
        )
    library = story.known.modules.get(top)
    if library is None:
        return None
    return _another_version(story, library, f"{story.installed(library)} has no {attribute} in {name}{story.place}")


def _another_version(story: Story, library: str, what: str) -> Cause:
    asking = f"the library {story.through}" if story.through and story.through != library else "the pack"
    return Cause(
        Kind.LIBRARY_VERSION,
        f"{what}: {asking} was written for an older or newer version of it",
        f"choose the version that it needs: a line for {library} in pipDependencies in comfyui/comfy-build.yaml, or "
        "another version of the pack",
        story.declared(library),
        subject=library,
    )


def _of_comfyui(story: Story, what: str) -> Cause:
    return Cause(
        Kind.COMFYUI_VERSION,
        f"{what}{story.place}: the pack was written for another ComfyUI",
        "take a version of the pack for this ComfyUI, or another baseComfyVersion",
        subject="ComfyUI",
    )


def _writes(story: Story) -> Cause | None:
    found = re.search(r"(?:Permission denied|Read-only file system)(?:: '([^']+)')?", story.text)
    if found is None and not re.search(r"unable to open database file|readonly database", story.text):
        return None
    path = (found[1] if found else "") or ""
    where = f" {path}" if path else ""
    mode = f" (when it was started {story.mode})" if story.mode else ""
    return Cause(
        Kind.WRITES,
        f"it writes{where or ' a file'} while it is imported{story.place}, which cannot be written{mode}",
        "beside itself and in /tmp it may write; elsewhere nothing of the image can be written. See whether the pack "
        f"has a setting for that folder, or take another version, {story.let_it}",
        subject=path,
    )


def _network(story: Story) -> Cause | None:
    if not _NETWORK.search(story.text):
        return None
    host = re.search(r"(?:host='|https?://)([A-Za-z0-9.-]+)", "\n".join([story.text, *story.lost.trace]))
    named = f" ({host[1]})" if host else ""
    mode = f" (it was started {story.mode})" if story.mode else ""
    return Cause(
        Kind.NETWORK,
        f"it needs the network{named} while it is imported{story.place}{mode}",
        "what it fetches each time a worker starts belongs into the image: put the file where the pack looks for it "
        f"(a pack of your own), {story.let_it}",
        subject=host[1] if host else "",
    )


def _missing_file(story: Story) -> Cause | None:
    found = re.search(r"No such file or directory: '([^']+)'", story.text)
    if found is None:
        return None
    return Cause(
        Kind.MISSING_FILE,
        f"the file {found[1]} is missing{story.place}",
        "a file that the pack's archive leaves out, that its install script would have fetched (it is in the lock: "
        f"install_scripts), or that was on the machine it comes from: put it into the pack, {story.let_it}",
        subject=found[1],
    )


def _other(story: Story) -> Cause:
    said = story.reason if story.exception in story.reason else f"{story.exception}: {story.reason}"
    return Cause(
        Kind.OTHER,
        f"it fails while it is imported{story.place}: {said}",
        f"see the traceback above. Take another version of the pack, {story.let_it}",
    )


_GPU: Final = re.compile(
    r"no NVIDIA driver|No CUDA GPUs are available|not compiled with CUDA enabled|CUDA driver version is insufficient"
    r"|libcuda\.so|libnvidia-ml|NVML|CUDA error|CUDA unknown error|\b0 active drivers|No HIP GPUs"
    r"|no CUDA-capable device"
    r"|cuInit|CUDA is not available|requires (?:a )?(?:CUDA|GPU)|GPU is required",
    re.IGNORECASE,
)
_ABI: Final = re.compile(
    r"dtype size changed|binary incompatibility|numpy\.core\.multiarray failed|_multiarray_umath failed"
    r"|_ARRAY_API not found"
    r"|compiled against (?:ABI|API) version|compiled using NumPy|undefined symbol|version `\w+' not found"
    r"|lib(?:cudart|cublas(?:Lt)?|cudnn\w*|nvrtc|cufft|cusparse|cusolver|nccl|torch\w*|c10\w*)\.so[.\d]*: cannot open"
    r"|PyTorch and torch\w+ (?:were|was) compiled with different CUDA|Could not load this library"
    r"|operator torch\w+::\w+ does not exist"
)  # fmt: skip
_COMPILER: Final = re.compile(
    r"CUDA_HOME|Ninja is required|Failed to find C compiler|no (?:C|C\+\+|working) compiler|command '[^']*(?:gcc"
    r"|g\+\+|nvcc|cl)'? failed"
    r"|Unable to find (?:a )?(?:compiler|vcvarsall)|Microsoft Visual C\+\+|Error building extension"
    r"|Error compiling objects",
    re.IGNORECASE,
)  # fmt: skip
_NETWORK: Final = re.compile(
    r"urlopen error|Max retries exceeded|NameResolutionError|Name or service not known"
    r"|Temporary failure in name resolution"
    r"|Network is unreachable|No route to host|Connection refused|ConnectionError|ConnectError|ConnectTimeout"
    r"|ProxyError"
    r"|LocalEntryNotFound|OfflineModeIsEnabled|couldn'?t connect to|[Cc]annot connect to|not (?:find"
    r"|locate) the requested files in the"
    r"|Connection reset|Cannot send a request|HTTP Error \d{3}|getaddrinfo failed|RemoteDisconnected|MaxRetryError"
)  # fmt: skip
_WANTS: Final = re.compile(
    r"([\w.-]+\s*[<>=!~]{1,2}\s*[\w.*,<>=!~]+) is required for a normal functioning"
    r"|(?:requires|need|needs|require|Please (?:install|upgrade"
    r"|update)(?: to)?)\s+([\w.-]+\s*(?:version )?[<>=!~]{1,2}\s*[\w.]+)"
    r"|VersionConflict\W.*?Requirement\.parse\('([^']+)'\)"
)
_RULES: Final[tuple[Callable[[Story], Cause | None], ...]] = (
    *(_no_classes, _syntax, _gpu, _installs, _abi, _shared_library, _compiler, _program),
    *(_missing_module, _version, _writes, _network, _missing_file),
)
