"""`comfy-serverless env models`: the models of the build file, and their way to where workers have them.

build file ──► all looked at ──► all problems at once, or: the standing manifest | the stack's bucket | the image
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from comfy_serverless.cli.environments.lock_paths import read_build
from comfy_serverless.cli.habits import add_command, counted, print_json, print_table, say, size_in_words
from comfy_serverless.cli.paths import local_path
from comfy_serverless.cli.stack import Stack, add_stack_option, chosen_stack, explained

if TYPE_CHECKING:
    from comfy_serverless.cli.model_store import ModelBucket
    from comfy_serverless.environments.build_file import Model
    from comfy_serverless.environments.lock_file import LockedModel
    from comfy_serverless.environments.models import Found
    from comfy_serverless.worker.model_store.remote import Remote

BUILD_FILE: Final = Path("comfyui/comfy-build.yaml")
LOCK_FILE: Final = "comfy-build.lock"
#: Where the image's build takes models from, beside the build file.
IMAGE_FOLDER: Final = "models"
#: Where the standing manifest of an environment is, in the input bucket of the stack; nothing there is deleted by age.
MANIFEST_KEY: Final = "environment/models.json"

_EXAMPLES = (
    "comfy-serverless env models                                  # what there is, and what is wrong with it",
    "comfy-serverless env models --to manifest --manifest models.json",
    "comfy-serverless env models --to manifest --upload --from ~/ComfyUI --stack comfy-serverless",
    "comfy-serverless env models --to bucket --from ~/ComfyUI --stack comfy-serverless",
    "comfy-serverless env models --to image --from ~/ComfyUI",
)
_NOTES = """\
manifest: a list with each model's own address. A file of this machine has none: --upload brings those to the stack's
          bucket, and the list too, for ModelsManifest of the stack (models_manifest of a GPU stack).
bucket:   all of them are brought to the stack's bucket, and the list: workers ask no other host, and need no token.
image:    all of them are put into comfyui/models/, from where the image's build takes them.
Nothing is sent or written if anything is wrong with any of them. What is there already is not sent again, and an upload
that broke off goes on where it was. For models that need a licence set HF_TOKEN or CIVITAI_TOKEN.
"""
_NEEDS = (
    "cloudformation:DescribeStacks, and on the input bucket s3:GetObject, PutObject, ListBucket, AbortMultipartUpload "
    "and ListMultipartUploadParts"
)


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `env models`."""
    parser = add_command(
        actions,
        "models",
        summary="the models of the build file: to the standing manifest, the stack's bucket, or the image",
        examples=_EXAMPLES,
        notes=_NOTES,
    )
    parser.add_argument("--to", choices=("manifest", "bucket", "image"), help="without it they are only looked at")
    parser.add_argument("--upload", action="store_true", help="with --to manifest: bring files of this machine, too")
    parser.add_argument("--file", type=local_path, default=BUILD_FILE, help=f"the build file (default: {BUILD_FILE})")
    parser.add_argument(
        "--from",
        dest="install",
        type=local_path,
        metavar="DIR",
        default=os.environ.get("COMFYUI_DIR") or None,
        help="the ComfyUI that has the models of `source: local` (default: the environment variable COMFYUI_DIR)",
    )
    parser.add_argument("--manifest", type=local_path, metavar="FILE", help="write the list here, too; `-` prints it")
    parser.add_argument("--replace", action="store_true", help="replace another content of the same name")
    add_stack_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it. Returns the exit code. A `ComfyError` says in its message what to do."""
    from comfy_serverless.environments.models import Target, refuse_problems

    target = Target(options.to) if options.to else Target.NOWHERE
    if options.upload and target is not Target.MANIFEST:
        options.wrong_usage("--upload is for --to manifest: --to bucket uploads anyway, and the image needs no upload")
    if options.manifest is not None and not target.is_for_workers:
        options.wrong_usage("--manifest is for --to manifest and --to bucket")
    models = _models_of(options.file)
    if not models:
        say(f"{options.file} names no models.")
        return 0
    found = _surveyed(models, target, options)
    if target is Target.NOWHERE:
        _report([_Done(one) for one in found], options)
        refuse_problems(found)
    elif target is Target.IMAGE:
        _report(_to_image(found, options), options)
    elif target is Target.BUCKET or options.upload:
        _to_bucket(found, options, is_all=target is Target.BUCKET)
    else:
        _to_manifest(found, options)
    return 0


@dataclass(frozen=True, slots=True)
class _Done:
    """A model and what has become of it: `place` is where it is now, "" if nothing was done with it."""

    found: Found
    place: str = ""
    was_sent: bool = False


def _models_of(path: Path) -> Sequence[Model]:
    return read_build(path).models


def _locked(path: Path) -> Mapping[str, LockedModel]:
    """The models in the lock beside the build file, by their places; none without a lock."""
    from comfy_serverless.environments.lock_file import Lock

    try:
        text = path.with_name(LOCK_FILE).read_text(encoding="utf-8")
    except OSError:
        return {}
    return {f"{model.type}/{model.filename}": model for model in Lock.parse(text).models}


def _surveyed(models: Sequence[Model], target: Any, options: argparse.Namespace) -> list[Found]:  # noqa: ANN401  (Target)
    """What is known of them now: hosts are asked, files of this machine are read."""
    from comfy_serverless.cli.byte_bar import byte_bar
    from comfy_serverless.cli.model_lookup import hosts
    from comfy_serverless.cli.paths import cache_folder
    from comfy_serverless.environments.model_hashes import HashCache
    from comfy_serverless.environments.models import Survey, models_folder_of

    is_needed = options.install is not None and any(model.source == "local" for model in models)
    folder = models_folder_of(options.install) if is_needed else None
    get, tokens = hosts()
    with byte_bar() as show:
        survey = Survey(
            target=target,
            models_folder=folder,
            get=get,
            tokens=tokens,
            locked=_locked(options.file),
            hashes=HashCache(cache_folder() / "model-hashes.json"),  # `env init` fills it, too
            show=functools.partial(show, "reading"),
        )
        return survey.of(models)


def _to_image(found: Sequence[Found], options: argparse.Namespace) -> list[_Done]:
    """Put them into the folder that the image's build takes them from."""
    from comfy_serverless.cli.byte_bar import byte_bar
    from comfy_serverless.environments.model_files import ImageModels
    from comfy_serverless.environments.models import image_note, refuse_problems

    say(image_note(found))
    folder = ImageModels(options.file.absolute().parent / IMAGE_FOLDER, _remote)
    missing = [one for one in found if not one.problems and not folder.has(one)]
    refuse_problems(found, *folder.problems(missing, replaces=options.replace))
    done = []
    for one in found:
        sha256 = one.sha256
        if one in missing:
            with byte_bar() as show:
                sha256 = folder.put(one, functools.partial(show, one.model.filename))
        done.append(_Done(replace(one, sha256=sha256), str(folder.path(one)), was_sent=one in missing))
    return done


def _remote(url: str) -> Remote:
    """What reads the file at an address, as a worker would."""
    from comfy_serverless.cli.stack import client_of_models
    from comfy_serverless.fetch.tokens import tokens_of
    from comfy_serverless.fetch.web import Network
    from comfy_serverless.settings import Settings
    from comfy_serverless.worker.model_store.remote import remote_of

    settings = Settings.from_environment()
    s3: Any = client_of_models() if url.startswith("s3://") else None
    return remote_of(url, s3=s3, network=Network.of(settings), allowed_buckets=(), tokens=tokens_of(settings))


def _to_manifest(found: Sequence[Found], options: argparse.Namespace) -> None:
    """Write the list of their own addresses."""
    from comfy_serverless.cli.needs_manifest import write_manifest
    from comfy_serverless.environments.models import refuse_problems

    left = [
        f"{one.model.path}: it is a file of this machine, which workers do not reach: bring it to the stack's bucket, "
        "with --upload --stack NAME"
        for one in found
        if one.model.source == "local" and not one.problems
    ]
    refuse_problems(found, *left)
    done = [_Done(one, one.model.source_uri or "") for one in found]
    path = options.manifest or Path("models.json")
    write_manifest(path, _entries(done))
    _report(done, options, manifest=str(path))


def _to_bucket(found: Sequence[Found], options: argparse.Namespace, *, is_all: bool) -> None:
    """Bring models to the stack's bucket, and the list of all of them. What is in S3 already stays where it is."""
    from comfy_serverless.cli.model_store import ModelBucket
    from comfy_serverless.cli.needs_manifest import write_manifest
    from comfy_serverless.environments.models import refuse_problems, request_of

    refuse_problems(found)
    with explained(options, needs=_NEEDS):
        stack = Stack.of(chosen_stack(options))
        bucket = ModelBucket(stack.s3, stack.input_bucket)
        plan = []
        for one in found:
            own = one.model.source_uri or ""
            goes = one.model.source == "local" or (is_all and not own.startswith("s3://"))
            plan.append(_Done(one, bucket.address(request_of(one, "s3://bucket/x")) if goes else own, was_sent=goes))
        _entries(plan)  # that it is no list which workers take is said before anything is sent
        plan = _without_what_is_there(plan, bucket, replaces=options.replace)
        done = [_send(each, bucket, replaces=options.replace) if each.was_sent else each for each in plan]
        address = _put_manifest(stack, _entries(done))
    if options.manifest is not None:
        write_manifest(options.manifest, _entries(done))
    _report(done, options, manifest=address)
    say(f'Workers get it by: make deploy SET="ModelsManifest={address}"   (GPU stacks: -c models_manifest={address})')


def _without_what_is_there(plan: Sequence[_Done], bucket: ModelBucket, *, replaces: bool) -> list[_Done]:
    """The plan, in which what is in the bucket is not sent. Raises MissingAsset if other contents have their names."""
    from comfy_serverless.environments.models import refuse_problems, request_of

    left, occupied = [], []
    for each in plan:
        one, sha256 = each.found, each.found.sha256
        there = bucket.find(request_of(one, each.place)) if each.was_sent else None
        left.append(replace(each, was_sent=False) if there is not None and there.sha256 == sha256 else each)
        if there is not None and sha256 not in {None, there.sha256} and not replaces:
            occupied.append(
                f"{one.model.path}: {there.address} is another content ({there.sha256 or 'nobody has said which'}): "
                "rename this one, or replace that with --replace (what names it by its SHA-256 fails then)"
            )
    refuse_problems([], *occupied)
    return left


def _send(planned: _Done, bucket: ModelBucket, *, replaces: bool) -> _Done:
    from comfy_serverless.cli.byte_bar import byte_bar
    from comfy_serverless.cli.model_sources import ModelSource
    from comfy_serverless.environments.models import request_of

    found, own = planned.found, planned.found.model.source_uri or ""
    request = request_of(found, own or planned.place)
    with byte_bar() as show:
        opened = (
            ModelSource.of(own, request, show=show)
            if found.file is None
            else ModelSource.of_file(found.file, sha256=found.sha256 or "")
        )
        with opened as source:
            stored, was_sent = bucket.add(source, request, replaces=replaces, show=show)
    say(f"{'brought' if was_sent else 'the store has it already:'} {found.model.path} ({stored.address})")
    return _Done(replace(found, sha256=stored.sha256, size_bytes=stored.size_bytes), planned.place, was_sent)


def _entries(done: Sequence[_Done]) -> list[dict[str, str]]:
    """The standing manifest of these. Raises InvalidRequest if workers would not take it."""
    from comfy_serverless.environments.models import entry_of
    from comfy_serverless.jobs.request import parse_manifest

    entries = [entry_of(each.found, each.place) for each in done]
    parse_manifest(entries, source="the list of models")
    return entries


def _put_manifest(stack: Stack, entries: Sequence[Mapping[str, str]]) -> str:
    """Write the list into the stack's bucket; returns its address."""
    body = (json.dumps(list(entries), indent=2) + "\n").encode()
    stack.s3.put_object(Bucket=stack.input_bucket, Key=MANIFEST_KEY, Body=body, ContentType="application/json")
    return f"s3://{stack.input_bucket}/{MANIFEST_KEY}"


def _report(done: Sequence[_Done], options: argparse.Namespace, *, manifest: str | None = None) -> None:
    """Say what there is, and where it is now."""
    if str(options.manifest) == "-":
        pass  # stdout is the list's
    elif options.json:
        print_json({"models": [_as_json(each) for each in done], "manifest": manifest})
    else:
        rows = [_as_row(each.found) for each in done]
        titles = ("name", "folder", "size", "sha256", "from")
        print_table(titles, rows, folds=("name", "folder", "sha256", "from"), right=("size",))
    for each in done:
        for note in each.found.notes:
            say(note)
    size = size_in_words(sum(each.found.size_bytes or 0 for each in done))
    sent = f"; {sum(each.was_sent for each in done)} were brought there now" if options.to else ""
    say(f"{counted(len(done), 'model')}, {size}{sent}.")
    if manifest is not None:
        say(f"The list is in {manifest}. Workers keep all of it: give TemporaryStorage twice that size.")


def _as_row(found: Found) -> list[str]:
    size = "?" if found.size_bytes is None else size_in_words(found.size_bytes)
    return [found.model.filename, found.model.type, size, found.sha256 or "-", found.where]


def _as_json(done: _Done) -> dict[str, Any]:
    found = done.found
    return {
        "name": found.model.filename,
        "folder": found.model.type,
        "size_bytes": found.size_bytes,
        "sha256": found.sha256,
        "from": found.where,
        "to": done.place or None,
        "was_sent": done.was_sent,
        "problems": list(found.problems),
        "notes": list(found.notes),
    }
