"""Makes a build file of what one has, for `comfy-serverless env init`.

sources ──► each read: install, workflow, snapshot, build file ──► merged ──► onto the file that is there ──► written
                                                                                  └──► told: changes, what is left out
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfy_serverless.cli.environments.init_report import Outcome, tell
from comfy_serverless.cli.habits import print_json, size_in_words
from comfy_serverless.cli.paths import cache_folder, is_folder, local_path
from comfy_serverless.environments.build_file import BuildFile, new_text, parse, read_text, rules, updated
from comfy_serverless.environments.scan.found import Found, FoundPack
from comfy_serverless.environments.scan.installed_libraries import without_bases
from comfy_serverless.environments.scan.merging import changes, merged, onto
from comfy_serverless.environments.scan.snapshots import is_snapshot, read_snapshot
from comfy_serverless.errors import InvalidBuildFile, InvalidRequest

_BUILD_FILE_NAME = "comfy-build.yaml"


def run(options: argparse.Namespace) -> int:
    """Write the build file. Returns the exit code."""
    target: Path = options.output
    ref = _checked_ref(options.comfyui_ref)
    existing = None if options.force or not target.exists() else read_text(target)
    if existing is not None:
        parse(existing, name=str(target))
    sources = [_Source(name, options) for name in options.sources]
    found = [source.read() for source in sources]
    name = options.name or _name_of(options.sources[0])
    build, remarks = merged(found, ref=ref, name=name)
    own = next((source.text for source in sources if source.text and source.is_at(target)), "")
    base = own or existing or next((source.text for source in sources if source.text), "")
    if base:
        is_of_install = any(source.version and source.is_of_install for source in found)
        build, more = onto(
            parse(base, name=str(target)), build, ref=ref, is_of_install=is_of_install, wished=_wished(found)
        )
        remarks += more if existing is not None else []
    if options.name:
        build = replace(build, name=options.name)
    text = updated(base, build) if base else new_text(build)
    is_written = text != existing and not options.dry_run
    if is_written:
        _write(target, text)
    old = BuildFile() if existing is None else parse(existing)
    outcome = Outcome(
        path=target,
        build=build,
        is_new=existing is None,
        is_written=is_written,
        changes=tuple(changes(old, build)),
        remarks=tuple(dict.fromkeys([*(one for source in found for one in source.remarks), *remarks])),
        left_out=tuple(dict.fromkeys(one for source in found for one in source.left_out)),
        install=next((str(source.install) for source in sources if source.install is not None), None),
    )
    if options.json:
        print_json(outcome.to_json())
    else:
        tell(outcome)
    return 0


class _Source:
    """One SOURCE of the command line.

    Attributes:
        text: of a build file; "" of anything else.
        install: the folder of an install; None for anything else.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self._name, self._options = name, options
        self.text = ""
        self.install: Path | None = None

    def read(self) -> Found:
        """What the source has. Raises InvalidBuildFile, InvalidRequest or InvalidWorkflow if it has nothing."""
        path = local_path(self._name)
        if self._name != "-":
            _check_there(path)
        if self._name != "-" and is_folder(path):
            return self._read_folder(path)
        if path.suffix.lower() in (".yaml", ".yml"):
            return self._read_build_file(path)
        return self._read_document(str(path) if self._name != "-" else "-")

    def is_at(self, target: Path) -> bool:
        """Whether the source is the file that is written."""
        path = local_path(self._name)
        return any(one.is_file() and one.samefile(target) for one in (path, path / _BUILD_FILE_NAME) if target.exists())

    def _read_folder(self, path: Path) -> Found:
        from comfy_serverless.environments.model_hashes import HashCache
        from comfy_serverless.environments.scan.install import comfyui_folder, scan

        install = comfyui_folder(path)
        if install is None:
            if (path / _BUILD_FILE_NAME).is_file():
                return self._read_build_file(path / _BUILD_FILE_NAME)
            raise InvalidBuildFile(
                f"{path} is no ComfyUI: it has no custom_nodes/ and no main.py. Name the folder that it is in."
            )
        self.install = install
        cache = HashCache(cache_folder() / "model-hashes.json")
        python = self._options.python and local_path(str(self._options.python))
        from comfy_serverless.cli.progress_line import ProgressLine

        with ProgressLine("looking at the install") as line:

            def show(done: int, total: int) -> None:
                line.show(done / max(total, 1), f"hashing, {size_in_words(done)} of {size_in_words(total)}")

            return scan(install, cache, python=python, with_models=self._options.models, show=show)

    def _read_build_file(self, path: Path) -> Found:
        self.text = read_text(path)
        build = parse(self.text, name=str(path))
        pip, count = without_bases(build.pip_dependencies)
        found = Found(self._name, version=build.base_comfy_version or "", environment=dict(build.environment))
        found.packs = [FoundPack(pack) for pack in build.packs]
        found.models = list(build.models)
        found.pip = pip
        if count:
            found.remarks.append(
                f"pipDependencies has torch or other parts of the base: it is a whole pip freeze, and its {count} "
                "lines are put behind #. Take the # from those that packs really need"
            )
            self.text = updated(self.text, replace(build, pip_dependencies=pip))
        if build.base_image is not None:
            found.remarks.append(
                f"baseImage {build.base_image!r} is a name of Comfy's own catalogue, and has no meaning here"
            )
        found.remarks += [
            f"{pack.name}: its name ends with .disabled, so ComfyUI passes over it: delete it, or rename the folder"
            for pack in build.packs
            if pack.name.endswith(".disabled")
        ]
        return found

    def _read_document(self, name: str) -> Found:
        from comfy_serverless.cli.made_files import read_value

        if name != "-":
            document, _ = read_value(name)
            if not isinstance(document, Mapping):
                raise InvalidRequest(
                    f"{name} is JSON, but no workflow and no snapshot: a SOURCE is a ComfyUI folder, a workflow, "
                    "a snapshot or a comfy-build.yaml."
                )
            if is_snapshot(document):
                return read_snapshot(document, source=self._name)
            if str(document.get("schema", "")).startswith("comfy-build/"):
                return self._read_build_file(local_path(name))
        return self._read_workflow(name)

    def _read_workflow(self, name: str) -> Found:
        from comfy_serverless.cli.documents import read_document
        from comfy_serverless.environments.scan.workflow_packs import read_needs
        from comfy_serverless.graph.needs import needs_of

        document = read_document(name)
        info = document.extra_data.get("extra_pnginfo")
        saved = info.get("workflow") if isinstance(info, Mapping) else None
        needs = needs_of(document.editors or document.graph, None, saved=saved if isinstance(saved, Mapping) else None)
        models: list[Mapping[str, Any]] = list(needs.to_json()["models"])
        problems: list[str] = []
        if self._options.lookup:
            from comfy_serverless.cli.model_lookup import looked_up

            told, problems = looked_up(models)
            models = list(told)
        found = read_needs(needs, models if self._options.models else (), source=self._name)
        found.remarks += [*document.warnings, *problems]
        if not document.editors and saved is None:
            found.remarks.append(
                "a graph in API format names no packs: give the file that the editor saved, or a picture made with it"
            )
        return found


def _check_there(path: Path) -> None:
    """Raise InvalidRequest if there is nothing of that name; of what may not be looked at, its reader says why."""
    try:
        path.stat()
    except FileNotFoundError as error:
        raise InvalidRequest(
            f"{path} is not there: a SOURCE is a ComfyUI folder, a workflow, a snapshot or a comfy-build.yaml."
        ) from error
    except (OSError, ValueError):
        return


def _wished(found: Sequence[Found]) -> set[str]:
    """The packs that only a workflow names."""
    there = {pack.pack.name for source in found if source.is_of_install for pack in source.packs}
    return {pack.pack.name for source in found if not source.is_of_install for pack in source.packs} - there


def _name_of(source: str) -> str:
    return "workflow" if source == "-" else local_path(source).resolve().name.partition(".")[0] or "comfyui"


def _checked_ref(ref: str | None) -> str | None:
    if ref is not None and (wrong := rules.git_ref(ref)):
        raise InvalidRequest(f"--comfyui-ref: {wrong}.")
    return ref


def _write(target: Path, text: str) -> None:
    """Write the file whole, or not at all. Raises InvalidBuildFile if it cannot be written."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(text.encode())
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InvalidBuildFile(f"{target} cannot be written: {error.strerror}.") from error
