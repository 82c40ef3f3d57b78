"""A build file is written back byte for byte, but for what changed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from comfy_serverless.environments.build_file import BuildFile, Model, Pack, new_text, parse, read_text, updated
from comfy_serverless.errors import InvalidBuildFile
from tests.unit.build_samples import OFFICIAL, build_text

SHA256 = "a" * 64
#: A failure is told by its first example: to shrink one takes minutes.
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)


def changes(before: str, after: str) -> list[str]:
    """The lines that went and came."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


WRITTEN = """\
# of Ana, for the catalogue
schema:   comfy-build/1   # the form
name: "mine"
definition:
    schema: 'distribution-definition/0'

    # what we run
    baseComfyVersion: "v0.33.0"  # was 0.3.64
    models: []   # none yet
    customNodes:
    # drawing
    - name: b-pack   # the big one
      registryVersion: '1.0.0'
      id: b-pack
      team: {owner: ana, since: 2025}

    # never update this one
    -   repository: https://github.com/a/d
        gitRef: main
        name: d-pack
    x-notes: |
        kept as it is
          and indented
    pipDependencies: |   # pins
        # numpy below
        numpy==2.4.6
tail: [1, 2]
"""


@pytest.mark.parametrize("path", OFFICIAL, ids=lambda path: path.stem)
def test_an_official_file_comes_back_byte_for_byte(path: Path) -> None:
    text = read_text(path)

    assert updated(text, parse(text)) == text


@pytest.mark.parametrize("path", OFFICIAL, ids=lambda path: path.stem)
def test_what_is_written_anew_says_the_same_as_the_official_file(path: Path) -> None:
    build = parse(read_text(path))

    assert parse(new_text(build)) == build


def test_a_new_file_has_all_that_the_official_reader_asks_for() -> None:
    written = yaml.safe_load(new_text(BuildFile(name="x", base_comfy_version="v0.33.0")))

    assert written == {
        "schema": "comfy-build/1",
        "id": None,
        "name": "x",
        "description": "",
        "syncedRevision": None,
        "definition": {
            "schema": "distribution-definition/0",
            "baseComfyVersion": "v0.33.0",
            "models": [],
            "customNodes": [],
            "pipDependencies": "",
        },
    }


def test_entries_of_a_new_file_are_sorted() -> None:
    packs = tuple(Pack(name=name, id=name, registry_version="1") for name in ("b", "C", "a"))
    models = tuple(Model(filename=name, type=kind, source_uri="https://h/x") for kind, name in ("ba", "ac", "ab"))

    definition = yaml.safe_load(new_text(BuildFile(packs=packs, models=models)))["definition"]

    assert [pack["name"] for pack in definition["customNodes"]] == ["C", "a", "b"]
    assert [(model["type"], model["filename"]) for model in definition["models"]] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "a"),
    ]


def test_a_changed_value_keeps_its_quotes_and_its_comment() -> None:
    build = replace(parse(WRITTEN), base_comfy_version="v0.34.0", name="ours")

    assert changes(WRITTEN, updated(WRITTEN, build)) == [
        '-name: "mine"',
        '+name: "ours"',
        '-    baseComfyVersion: "v0.33.0"  # was 0.3.64',
        '+    baseComfyVersion: "v0.34.0"  # was 0.3.64',
    ]


def test_a_new_pack_stands_at_its_place_and_the_others_stay() -> None:
    build = parse(WRITTEN)
    build = replace(build, packs=(*build.packs, Pack(name="c-pack", id="c", registry_version="1.10")))

    assert changes(WRITTEN, updated(WRITTEN, build)) == [
        "+    - id: c",
        "+      name: c-pack",
        "+      registryVersion: '1.10'",
    ]


def test_a_pack_that_goes_leaves_the_comments_around_it() -> None:
    build = replace(parse(WRITTEN), packs=parse(WRITTEN).packs[:1])

    assert changes(WRITTEN, updated(WRITTEN, build)) == [
        "-    -   repository: https://github.com/a/d",
        "-        gitRef: main",
        "-        name: d-pack",
    ]


def test_a_pack_from_another_source_keeps_what_else_it_says() -> None:
    build = parse(WRITTEN)
    moved = Pack(name="b-pack", repository="https://h/b", git_ref="v2")

    assert changes(WRITTEN, updated(WRITTEN, replace(build, packs=(moved, build.packs[1])))) == [
        "-      registryVersion: '1.0.0'",
        "-      id: b-pack",
        "+      gitRef: v2",
        "+      repository: https://h/b",
    ]


def test_what_the_scanner_knew_of_local_files_goes_with_them() -> None:
    text = read_text(Path("tests/fixtures/build_files/scanned.yaml"))
    build = parse(text)
    packs = tuple(
        Pack(name=pack.name, id="lf", registry_version="2.0.0") if pack.name == "local_folder" else pack
        for pack in build.packs
    )

    after = updated(text, replace(build, packs=packs))

    assert (
        "    - gitRef: null\n      id: lf\n      name: local_folder\n      registryVersion: 2.0.0\n"
        "      repository: null\n      source: registry\n    - gitRef: null\n"
    ) in after
    assert len(after.splitlines()) == len(text.splitlines()) - 1


def test_the_first_models_stand_behind_the_comment_of_the_empty_list() -> None:
    build = replace(
        parse(WRITTEN), models=(Model(filename="x.pt", type="vae", sha256=SHA256, source_uri="https://h/x"),)
    )

    assert changes(WRITTEN, updated(WRITTEN, build)) == [
        "-    models: []   # none yet",
        "+    models:   # none yet",
        "+      - filename: x.pt",
        f"+        sha256: {SHA256}",
        "+        sourceUri: https://h/x",
        "+        type: vae",
    ]


def test_pip_lines_change_line_by_line_and_the_header_keeps_its_comment() -> None:
    build = parse(WRITTEN)

    assert changes(WRITTEN, updated(WRITTEN, replace(build, pip_dependencies=f"{build.pip_dependencies}av==18\n"))) == [
        "+        av==18"
    ]


def test_the_last_entry_leaves_an_empty_list() -> None:
    after = updated(WRITTEN, replace(parse(WRITTEN), packs=()))

    assert "    customNodes: []\n    # drawing\n" in after
    assert "    # never update this one\n" in after


def test_line_ends_of_windows_and_a_byte_order_mark_stay() -> None:
    text = "\ufeff" + WRITTEN.replace("\n", "\r\n")
    build = replace(
        parse(text), packs=(*parse(text).packs, Pack(name="z", local_path="z")), environment={"os": "Linux"}
    )

    after = updated(text, build)

    assert after.startswith("\ufeff# of Ana")
    assert after.count("\n") == after.count("\r\n")
    assert parse(after) == build


def test_a_file_without_a_last_line_end_gets_none_in_the_middle() -> None:
    text = build_text("  customNodes:\n    - {name: a, id: a, registryVersion: 1.0.0}").rstrip()
    build = replace(parse(text), packs=(*parse(text).packs, Pack(name="b", id="b", registry_version="1.0.0")))

    assert updated(text, build) == f"{text}\n    - id: b\n      name: b\n      registryVersion: 1.0.0"


def test_json_stays_json() -> None:
    text = (
        '{"schema": "comfy-build/1", "definition": {"schema": "distribution-definition/0", "models": [],'
        ' "customNodes": [{"name": "a", "id": "a", "registryVersion": "1"}, {"name": "c", "repository": "https://h/c"}]}}'
    )
    build = parse(text)
    wanted = replace(
        build,
        name="x",
        base_comfy_version="v1",
        packs=(Pack(name="b", local_path="b"), replace(build.packs[1], git_ref="main")),
        models=(Model(filename="x", type="loras", source_uri="https://h/x", size_bytes=3),),
    )

    after = updated(text, wanted)

    assert parse(after) == wanted
    assert yaml.safe_load(after) == json.loads(after)


def test_what_would_be_no_build_file_is_not_written() -> None:
    with pytest.raises(InvalidBuildFile, match="write the name alone"):
        updated(WRITTEN, replace(parse(WRITTEN), packs=(Pack(name="../a", local_path="a"),)))
    with pytest.raises(InvalidBuildFile, match="claims the folder"):
        new_text(BuildFile(packs=(Pack(name="a", local_path="a"), Pack(name="A", local_path="b"))))


# ---- any file, in any layout, becomes any other, and nothing else changes

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+ ü-]{0,8}[A-Za-z0-9_]", fullmatch=True).filter(
    lambda name: name.lower().partition(".")[0].strip() not in {"con", "aux", "nul", "prn"}
)
SAFE = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.-]{0,6}[A-Za-z0-9]", fullmatch=True).filter(lambda text: ".." not in text)
REFS = SAFE.filter(lambda ref: not ref.endswith(".lock"))
ODD_TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["null", "yes", "1.10", "1e5", "0x1f", "12:30", "~", "- a", "a: b", "a #b", "'", '"', "2025-01-01", "=", "<<"]
    ),
).filter(lambda text: text.encode("utf-8", "ignore").decode() == text)
PIP_LINES = st.lists(
    st.one_of(
        st.sampled_from(["", "# a comment", "  # indented", "#\ttab", "# süß \U0001f600"]),
        st.integers(0, 10_000).map(lambda number: f"lib{number}==1.{number}"),
    ),
    max_size=5,
    unique=True,
)
PIP_TEXTS = st.tuples(PIP_LINES, st.sampled_from(["", "\n", "\n\n"])).map(lambda parts: "\n".join(parts[0]) + parts[1])


@st.composite
def pack_lists(draw: st.DrawFn) -> tuple[Pack, ...]:
    names = draw(st.lists(NAMES, max_size=5, unique_by=str.lower))
    packs = []
    for number, name in enumerate(names):
        fields: Mapping[str, Any] = draw(
            st.one_of(
                st.fixed_dictionaries({"registry_version": SAFE}).map(lambda one: {**one, "id": f"id{number}"}),  # noqa: B023
                st.fixed_dictionaries({"git_ref": st.none() | REFS}).map(
                    lambda one: {**one, "repository": f"https://h/o/r{number}"}  # noqa: B023
                ),
                st.fixed_dictionaries({"local_path": NAMES}),
                st.fixed_dictionaries({"blob_id": SAFE}),
            )
        )
        packs.append(Pack(name=name, **fields))
    return tuple(sorted(packs, key=lambda pack: (pack.name, pack.id or "", pack.repository or "")))


@st.composite
def model_lists(draw: st.DrawFn) -> tuple[Model, ...]:
    folders = st.sampled_from(["loras", "vae", "text_encoders/gemma", "own"])
    places = draw(st.lists(st.tuples(folders, NAMES), max_size=5, unique=True))
    models = []
    for folder, name in places:
        source: Mapping[str, Any] = draw(
            st.sampled_from(
                [
                    {"local_path": f"{folder}/{name}"},
                    {"source_uri": "https://h/m?a=b#c"},
                    {"source_uri": "s3://b/m", "local_path": f"{folder}/{name}"},
                    {"blob_id": "xyz"},
                ]
            )
        )
        facts: Mapping[str, Any] = draw(
            st.fixed_dictionaries(
                {
                    "sha256": st.none() | st.sampled_from([SHA256, "0" * 64]),
                    "size_bytes": st.none() | st.integers(0, 2**40),
                }
            )
        )
        models.append(Model(filename=name, type=folder, **source, **facts))
    return tuple(sorted(models, key=lambda model: (model.type, model.filename, model.sha256 or "")))


BUILDS = st.builds(
    BuildFile,
    base_comfy_version=st.none() | REFS,
    packs=pack_lists(),
    models=model_lists(),
    pip_dependencies=PIP_TEXTS,
    environment=st.dictionaries(SAFE, ODD_TEXTS, max_size=2),
    base_image=st.none() | ODD_TEXTS.filter(bool),
    name=ODD_TEXTS,
    description=ODD_TEXTS,
)


@st.composite
def layouts(draw: st.DrawFn, build: BuildFile) -> tuple[str, list[str]]:
    """The text of a build file in somebody's own layout, and the remarks in it, which must all stay."""
    document = yaml.safe_load(new_text(build))
    document["x-tail"] = ["own", {"deep": None}]
    remarks: list[str] = []
    mark = "\ufeff" if draw(st.booleans()) else ""
    if draw(st.integers(0, 4)) == 0:
        flow = yaml.safe_dump(document, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
        return mark + flow, []
    dumper: Any = yaml.SafeDumper
    if draw(st.booleans()):
        dumper = type("Deeper", (yaml.SafeDumper,), {"increase_indent": _indent_lists})
    text = yaml.dump(
        document,
        Dumper=dumper,
        allow_unicode=True,
        default_flow_style=draw(st.sampled_from([False, False, None])),
        sort_keys=draw(st.booleans()),
        width=10**6,
        indent=draw(st.sampled_from([2, 4])),
    )
    lines = []
    for number, line in enumerate(text.split("\n")[:-1]):
        if draw(st.integers(0, 3)) == 0 and _is_own_line(text, number):
            remarks.append(f"# remark {number}")
            lines.append(f"{' ' * draw(st.integers(0, 8))}{remarks[-1]}")
        lines.append(line)
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    ending = newline if draw(st.booleans()) else ""
    return mark + newline.join(lines) + ending, remarks


def _indent_lists(self: Any, flow: bool = False, indentless: bool = False) -> Any:
    return yaml.SafeDumper.increase_indent(self, flow, False)


def _loaded(text: str) -> Any:
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


#: What stands within an entry: remarks there go with it.
INNER = (
    *("filename", "localPath", "sha256", "sizeBytes", "source", "sourceUri", "type"),
    *("id", "name", "registryVersion", "repository", "gitRef", "blobId"),
)


def _is_own_line(text: str, number: int) -> bool:
    """Whether a remark may stand before a line: not within an entry, or a text that goes over lines."""
    if text.split("\n")[number].strip().partition(":")[0] in INNER:
        return False
    before = "\n".join([*text.split("\n")[:number], "# remark", *text.split("\n")[number:]])
    try:
        return bool(_loaded(before) == _loaded(text))
    except yaml.YAMLError:
        return False


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None, phases=UNSHRUNK)
@given(data=st.data(), first=BUILDS, second=BUILDS)
def test_any_file_becomes_any_other_and_keeps_every_remark(
    data: st.DataObject, first: BuildFile, second: BuildFile
) -> None:
    text, remarks = data.draw(layouts(first))
    old = parse(text)
    packs = (*[pack for pack in old.packs if data.draw(st.booleans())], *second.packs)
    wanted = replace(
        second,
        packs=_apart(packs),
        models=tuple({model.path: model for model in (*old.models[:2], *second.models)}.values()),
    )

    after = updated(text, wanted)

    assert updated(text, old) == text
    assert updated(after, wanted) == after
    assert all(after.count(remark) >= 1 for remark in remarks)
    assert yaml.safe_load(after)["x-tail"] == ["own", {"deep": None}]
    assert after.startswith("\ufeff") == text.startswith("\ufeff")
    assert ("\r\n" in text) <= ("\r\n" in after)


def _apart(packs: tuple[Pack, ...]) -> tuple[Pack, ...]:
    """The packs without those that claim the same as one before."""
    kept: list[Pack] = []
    for pack in packs:
        claims = [{one.name.lower(), one.id, one.repository} - {None} for one in kept]
        if not any({pack.name.lower(), pack.id, pack.repository} & claim for claim in claims):
            kept.append(pack)
    return tuple(kept)


@settings(max_examples=100, deadline=None, phases=UNSHRUNK)
@given(build=BUILDS)
def test_what_is_written_is_what_is_read(build: BuildFile) -> None:
    assert parse(new_text(build)) == build


@settings(max_examples=200, deadline=None, phases=UNSHRUNK)
@given(text=st.text(alphabet=st.sampled_from("ab:-#'\"|>[]{},&*!%@?\n \t\r\x85\u2028\ufeffü\x00"), max_size=60))
def test_no_text_crashes_the_reader(text: str) -> None:
    with pytest.raises(InvalidBuildFile):
        parse(text)
