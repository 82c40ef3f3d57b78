"""Libraries that packs of an install import and nobody declares: the install has them by chance, the image will not.

The packs' files are read, and none is run: what is imported at once, from the entry on, outside of functions and of a
`try` that goes on without it. What is imported in another way only the import check of the build sees.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from comfy_serverless.environments.image import module_names
from comfy_serverless.environments.lock_file import MORE_REQUIREMENTS
from comfy_serverless.environments.scan.installed_libraries import installed, is_bases, names_in, normalized

_MOST_FILES, _MOST_FILE_BYTES = 500, 2_000_000
_GOES_ON: Final = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
_NOT_LIBRARIES: Final = sys.stdlib_module_names | module_names.COMFYUI | module_names.ELSEWHERE | {"custom_nodes"}


def remarks(packs: Iterable[Path], declared: Collection[str], packages: Path) -> list[str]:
    """What to add for each pack that imports what nobody declares, as sentences.

    Args:
        packs: their folders, or files.
        declared: the libraries that ComfyUI and the packs declare, by normalized names.
        packages: `site-packages` of the install.
    """
    imports = {pack.name: imports_of(pack) for pack in packs}
    if not any(imports.values()):
        return []
    owners = _owners(packages)
    coming, lines = _with_their_needs(declared, packages), installed(packages)
    told = []
    for pack, modules in imports.items():
        for module, place in modules.items():
            have = owners.get(module, frozenset())
            same = frozenset().union(*(module_names.same_module(name) for name in have))
            if have and not same & coming and not any(map(is_bases, have)):
                line = _line(module, same, sorted(have)[0], lines)
                told.append(
                    f"{pack}: it imports {module} ({place}), which no requirements.txt names, and the install has it "
                    f"({sorted(have)[0]}): add the line `{line}` to comfyui/{MORE_REQUIREMENTS}, or it does not import "
                    "in the image"
                )
    return told


def imports_of(pack: Path) -> dict[str, str]:
    """The modules of others that a pack imports as soon as it is imported itself, each with where."""
    root = pack.parent if pack.is_file() else pack
    own = {pack.name, *(path.stem for path in root.iterdir())} if pack.is_dir() else {pack.stem}
    found: dict[str, str] = {}
    pending, seen = [pack if pack.is_file() else pack / "__init__.py"], set[Path]()
    while pending and len(seen) < _MOST_FILES:
        file = pending.pop(0)
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        for statement in _at_import(_statements(file)):
            if isinstance(statement, ast.ImportFrom) and statement.level:
                pending += [path for path in _named_files(file, statement) if path.is_relative_to(root)]
                continue
            for name in _modules(statement):
                top = name.partition(".")[0]
                if top not in _NOT_LIBRARIES and top not in own:
                    found.setdefault(top, f"{file.relative_to(root).as_posix()}, line {statement.lineno}")
    return found


def _statements(file: Path) -> list[ast.stmt]:
    try:
        with file.open("rb") as content:
            return ast.parse(content.read(_MOST_FILE_BYTES)).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # the build says what is wrong with it
        return []


def _at_import(statements: Iterable[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that happen whenever these statements run, without those that may fail."""
    for statement in statements:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield statement
        elif isinstance(statement, ast.ClassDef | ast.With):
            yield from _at_import(statement.body)
        elif isinstance(statement, ast.Try) and not any(map(_goes_on, statement.handlers)):
            yield from _at_import([*statement.body, *statement.orelse, *statement.finalbody])


def _goes_on(handler: ast.ExceptHandler) -> bool:
    """Whether a pack goes on without what could not be imported."""
    return handler.type is None or any(
        isinstance(node, ast.Name) and node.id in _GOES_ON for node in ast.walk(handler.type)
    )


def _modules(statement: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(statement, ast.ImportFrom):
        return [statement.module] if statement.module else []
    return [alias.name for alias in statement.names]


def _named_files(file: Path, statement: ast.ImportFrom) -> list[Path]:
    """The files that a relative import may read."""
    folder = file.parent
    for _ in range(statement.level - 1):
        folder = folder.parent
    parts = statement.module.split(".") if statement.module else []
    packages = [folder.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)]
    named = [folder.joinpath(*parts, alias.name) for alias in statement.names if alias.name != "*"]
    return [path for base in [*packages, *named] for path in (base.with_name(f"{base.name}.py"), base / "__init__.py")]


def _owners(packages: Path) -> dict[str, frozenset[str]]:
    """The libraries that have a module, of those of a `site-packages`."""
    found: dict[str, set[str]] = {}
    for info in packages.glob("*.dist-info"):
        name = _name_of(info)
        for line in _text(info / "RECORD").splitlines():
            path = line.partition(",")[0].strip('"')
            if path.endswith((".py", ".so", ".pyd")):
                found.setdefault(path.partition("/")[0].partition(".")[0], set()).add(name)
    return {module: frozenset(names) for module, names in found.items()}


def _with_their_needs(names: Collection[str], packages: Path) -> frozenset[str]:
    """Libraries, and all that they need in turn."""
    needs = {_name_of(info): info / "METADATA" for info in packages.glob("*.dist-info")}
    done: set[str] = set()
    pending = [normalized(name) for name in names]
    while pending:
        name = pending.pop()
        if name in done:
            continue
        done |= module_names.same_module(name) | {name}
        if name in needs:
            wanted = re.findall(r"^Requires-Dist: (?!.*extra\s*==)(.+)$", _text(needs[name]), re.MULTILINE)
            pending += names_in(wanted)
    return frozenset(done)


def _line(module: str, same: frozenset[str], have: str, lines: Mapping[str, str]) -> str:
    """The line for a library: the name that is best for the image, or the repository that the install has it from."""
    if " @ " in lines.get(have, ""):
        return lines[have]
    usual = module_names.library_of(module)
    return usual if normalized(re.split(r"[<>=]", usual)[0]) in same else have


def _name_of(info: Path) -> str:
    return normalized(info.name.removesuffix(".dist-info").rpartition("-")[0])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
