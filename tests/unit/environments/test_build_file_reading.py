"""A build file is read, or refused with every problem it has: line, key, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from comfy_serverless.environments.build_file import Model, Pack, overrides, parse, read_text
from comfy_serverless.errors import InvalidBuildFile
from tests.unit.build_samples import OFFICIAL, build_text, model_text, pack_text

SHA256 = "a" * 64
WIDE = "# \U0001f600 ü\n"


def problems_of(text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(InvalidBuildFile) as refused:
        parse(text)
    return [(one["line"], one["key"], one["message"]) for one in refused.value.details["problems"]]


@pytest.mark.parametrize("path", OFFICIAL, ids=lambda path: path.stem)
def test_what_the_official_tool_writes_is_read(path: Path) -> None:
    build = parse(read_text(path))

    assert build.name
    assert all(pack.source in ("registry", "git", "local") for pack in build.packs)
    assert all(model.source == "local" and model.sha256 for model in build.models)


def test_an_official_scan_says_where_each_pack_is_from() -> None:
    build = parse(read_text(Path("tests/fixtures/build_files/scanned.yaml")))

    assert build.base_comfy_version == "v0.33.0"
    assert build.environment["torch"] == "2.14.1"
    by_name = {pack.name: pack for pack in build.packs}
    assert by_name["comfyui-kjnodes"] == Pack(name="comfyui-kjnodes", id="comfyui-kjnodes", registry_version="1.1.4"), (
        "where it was on the machine is no second source"
    )
    assert by_name["Git-Pack"].repository == "https://github.com/someone/Git-Pack"
    assert by_name["Git-Pack"].local_path is None
    assert by_name["local_folder"] == Pack(name="local_folder", local_path="local_folder")
    assert len(overrides(build)) == 96
    assert not any(line.startswith("#") for line in overrides(build))


def test_every_problem_is_told_at_once_with_its_line() -> None:
    text = build_text(
        "  models:\n"
        "    - filename: ../x.safetensors\n"
        "      type: custom_nodes\n"
        "      sha256: ABC\n"
        "      sizeBytes: -1\n"
        "      sourceUri: http://a/b\n"
        "  customNodes:\n"
        "    - name: a\n"
        "      registryVersion: 1.10\n"
        "    - name: b\n"
        "  pipDependencies: |\n"
        "    numpy==2.4.6\n"
        "    numpy = 3\n",
        schema="comfy-build/9",
        base="--upload-pack=x",
    )

    assert [(line, key) for line, key, _ in problems_of(text)] == [
        (1, "schema"),
        (8, "definition.baseComfyVersion"),
        (10, "definition.models[0].filename"),
        (11, "definition.models[0].type"),
        (12, "definition.models[0].sha256"),
        (13, "definition.models[0].sizeBytes"),
        (14, "definition.models[0].sourceUri"),
        (17, "definition.customNodes[0].registryVersion"),
        (18, "definition.customNodes[1]"),
        (21, "definition.pipDependencies"),
    ]


def test_the_message_names_the_file_and_says_what_to_do() -> None:
    with pytest.raises(InvalidBuildFile) as refused:
        parse(pack_text("name: a", "id: a", "registryVersion: 1.10"), name="comfyui/comfy-build.yaml")

    assert refused.value.message == (
        "comfyui/comfy-build.yaml, line 12, definition.customNodes[0].registryVersion: "
        'YAML reads 1.10 as another thing than a text: write "1.10"'
    )


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "it is empty"),
        ("# only a comment\n", 1, "it is empty"),
        ("schema: comfy-build/1\n\tname: x\n", 2, "a tab: indent with blanks"),
        ("schema: comfy-build/1\nname: a: b\n", 2, "put the text in quotes"),
        ("schema: comfy-build/1\nname: 'a\n", 3, "a quote that is never closed"),
        ("schema: comfy-build/1\nname: [a\n", 3, ""),
        ("schema: comfy-build/1\nname: @x\n", 2, "put the text in quotes"),
        ("schema: comfy-build/1\nname: a\x07b\n", 2, "a control character (U+0007)"),
        ("schema: comfy-build/1\nname: a\ud800b\n", 2, "half of a character"),
        ("schema: comfy-build/1\n---\nname: x\n", 3, "a second document"),
        ("schema: &a comfy-build/1\nname: *a\n", 1, "anchors (&name) and aliases (*name) are not taken"),
        ("schema: comfy-build/1\nname: !!python/object/apply:os.system ['true']\n", 2, "the tag"),
        ("schema: comfy-build/1\nname: !own x\n", 2, "the tag '!own' is not taken"),
        ("schema: comfy-build/1\n<<: {name: x}\n", 2, "merge keys"),
        ("schema: comfy-build/1\n? [a]\n: b\n", 2, "a key is a list or a mapping"),
        ("a: " + "[" * 60 + "]" * 60, 1, "more than 40 levels"),
        ("a: [" + "x," * 200_001 + "]", 1, "more than 200,000 values"),
        ("- a\n- b\n", 1, "it is no mapping of keys"),
        ("schema: comfy-build/1\nname: x\n", 1, "it is missing, or no mapping"),
        ("schema: comfy-build/1\ndefinition: null\n", 2, "it is missing, or no mapping"),
        ("name: x\ndefinition: {schema: distribution-definition/0}\n", 1, "write `schema: comfy-build/1`"),
        ("PK\x03\x04", 1, "a control character"),
        (build_text("  models: {}\n"), 9, "it must be a list"),
        (build_text("  models: [x]\n"), 9, "it must be a mapping"),
        (build_text("  environment: x\n"), 9, "it must be a mapping"),
        (build_text("  pipDependencies: [numpy]\n"), 9, "write `pipDependencies: |`"),
        (build_text("  models: []\n  models: []\n"), 10, "the key stands in line 9 already"),
        (build_text(base="0.33"), 8, 'write "0.33"'),
        (build_text(base="[v1]"), 8, "it must be a text"),
        (build_text(base="main..dev"), 8, "is no branch, tag or commit"),
    ],
)
def test_what_is_no_build_file_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    (place, _, message), *_ = problems_of(text)

    assert place == line
    assert words in message


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["id: a", "registryVersion: 1.0.0"], "it is missing"),
        (["name: a", "id: a"], "nothing says where it is from"),
        (["name: a", "id: a", "registryVrsion: 1.0.0"], "`localPath` (is it meant by 'registryVrsion'?)"),
        (["name: a", "id: a", "source: registry", "registryversion: 1"], "(is it meant by 'registryversion'?)"),
        (["nmae: a", "id: a", "registryVersion: 1.0.0"], "it is missing (is it meant by 'nmae'?)"),
        (["name: a", "source: local", "locaPath: a"], "says `source: local` (is it meant by 'locaPath'?)"),
        (["name: a", "registryVersion: 1.0.0"], "a pack of the registry needs its id"),
        (["name: a", "id: a b", "registryVersion: 1.0.0"], "is no id of the Comfy Registry"),
        (["name: a", "id: a", "registryVersion: ../1"], "is no version of the Comfy Registry"),
        (["name: a", "id: a", "registryVersion: 1.0.0", "repository: https://h/a/b", "gitRef: v1"], "two sources"),
        (["name: a", "source: elsewhere", "repository: https://h/a/b"], "is none of registry, git, local, blob"),
        (["name: a", "source: git", "localPath: a"], "says `source: git`"),
        (["name: a", "source: local"], "says `source: local`"),
        (["name: a", "source: local", "localPath: ../a"], "does not stay below the folder"),
        (["name: a", "source: local", "localPath: /etc"], "is no path below the folder"),
        (["name: a", "source: local", "localPath: 'a\\b'"], "write / between folders"),
        (["name: ../a", "repository: https://h/a/b"], "write the name alone"),
        (["name: .hidden", "repository: https://h/a/b"], "ComfyUI passes over it"),
        (["name: aux", "repository: https://h/a/b"], "Windows keeps for a device"),
        (["name: [a]", "repository: https://h/a/b"], "it must be a text"),
        (["name: a", "repository: https://me:secret@h/a/b"], "a name or a password in it"),
        (["name: a", "repository: --upload-pack=x"], "is no address that is taken"),
        (["name: a", "repository: ext::sh -c true"], "is no address"),
        (["name: a", "repository: http://h/a/b"], "is no address that is taken"),
        (["name: a", "repository: https://h/a/../b"], "is no address that is taken"),
        (["name: a", "repository: ssh://-oProxyCommand=id/a"], "is no address that is taken"),
        (["name: a", "repository: 'me@-oProxyCommand:a'"], "is no address that is taken"),
        (["name: a", "repository: https://h/a/b", "gitRef: -x"], "is no branch, tag or commit"),
        (["name: a", "repository: https://h/a/b", "gitRef: 1234567"], 'write "1234567"'),
    ],
)
def test_a_pack_that_cannot_be_is_refused(lines: list[str], words: str) -> None:
    found = problems_of(pack_text(*lines))

    assert any(words in message for _, _, message in found), found


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["type: loras", "sourceUri: https://h/x"], "it is missing"),
        (["filename: x", "type: loras"], "nothing says where it is from"),
        (["filename: x", "type: loras", "sourceUrl: https://h/x"], "`localPath` (is it meant by 'sourceUrl'?)"),
        (["fileName: x", "type: loras", "sourceUri: https://h/x"], "it is missing (is it meant by 'fileName'?)"),
        (["filename: x", "type: ../loras", "sourceUri: https://h/x"], "is no folder below models/"),
        (["filename: x", "type: loras//a", "sourceUri: https://h/x"], "is no folder below models/"),
        (["filename: x", "type: Loras", "sourceUri: https://h/x"], "ComfyUI's folder is 'loras'"),
        (["filename: x", "type: configs/a", "sourceUri: https://h/x"], "holds no models"),
        (["filename: x", "type: loras/con.x", "sourceUri: https://h/x"], "Windows keeps for a device"),
        (["filename: a/x", "type: loras", "sourceUri: https://h/x"], "write the name alone"),
        (["filename: x", "type: loras", f"sha256: {'A' * 64}", "sourceUri: https://h/x"], "in small letters"),
        (["filename: x", "type: loras", "sizeBytes: '12'", "sourceUri: https://h/x"], "a whole number"),
        (["filename: x", "type: loras", "sourceUri: https://h/x?token=abc"], "has a token in it"),
        (
            ["filename: x", "type: loras", "sourceUri: https://huggingface.co/a/b/blob/main/x"],
            "write https://huggingface.co/a/b/resolve/main/x",
        ),
        (["filename: x", "type: loras", "sourceUri: file:///etc/passwd"], "is no address that is taken"),
        (["filename: x", "type: loras", "source: local"], "it is missing"),
        (["filename: x", "type: loras", "source: local", "localPath: a/../../x"], "does not stay below"),
    ],
)
def test_a_model_that_cannot_be_is_refused(lines: list[str], words: str) -> None:
    found = problems_of(model_text(*lines))

    assert any(words in message for _, _, message in found), found


@pytest.mark.parametrize(
    ("second", "key"),
    [
        ("name: One\n      id: other\n      registryVersion: 2.0.0", "name"),
        ("name: two\n      id: Pack-One\n      registryVersion: 2.0.0", "id"),
        ("name: two\n      repository: git@github.com:A/B.git", "repository"),
    ],
)
def test_packs_that_claim_the_same_are_refused(second: str, key: str) -> None:
    text = build_text(
        "  customNodes:\n    - name: one\n      id: pack-one\n      repository: https://github.com/a/b\n"
        f"      gitRef: main\n    - {second}\n"
    )

    (line, where, message), *_ = problems_of(text)

    assert (line, where) == (14, f"definition.customNodes[1].{key}")
    assert "the pack in line 10" in message


def test_a_model_that_stands_twice_is_refused() -> None:
    entry = "    - filename: x.safetensors\n      type: loras\n      sourceUri: https://h/x\n"

    assert problems_of(build_text(f"  models:\n{entry}{entry}")) == [
        (13, "definition.models[1]", "models/loras/x.safetensors stands in line 10 already: delete one of the two")
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-r requirements.txt", "is an option of pip"),
        ("--index-url https://h/simple", "is an option of pip"),
        ("-e git+https://github.com/a/b@1234#egg=b", "write it as `b @ git+https://github.com/a/b@1234`"),
        ("git+https://github.com/a/b#egg=b", "write it as `b @ git+https://github.com/a/b`"),
        ("./wheels/x.whl", "is no requirement"),
        ("numpy=2", "is no requirement"),
        ("numpy==2 --hash=sha256:aa", "the lock finds the hashes itself"),
        ("Pillow==12", "stands in line 10 already"),
        ("--index-url https://me:secret@h/simple", "is an option of pip"),
        ("git+https://me:secret@h/a/b", "is no requirement"),
        ("a @ https://h/a-1-py3-none-any.whl?token=secret", "has a password or token in its address"),
        ("a @ git+ssh://me:secret@h/a", "has a password or token in its address"),
        ("a @ file:///croot/a/work", "is a file of somebody's machine"),
    ],
)
def test_a_pip_line_that_nothing_can_be_made_of_is_refused(line: str, words: str) -> None:
    found = problems_of(build_text(f"  pipDependencies: |\n    pillow\n    # two\n    {line}\n"))

    assert [(place, key) for place, key, _ in found] == [(12, "definition.pipDependencies")]
    assert words in found[0][2]
    assert "secret" not in found[0][2]


def test_pip_lines_count_without_comments() -> None:
    text = build_text("  pipDependencies: |\n    # a\n    numpy==2.4.6  # why\n\n    b @ git+https://h/b@main#x=y\n")

    assert overrides(parse(text)) == ("numpy==2.4.6", "b @ git+https://h/b@main#x=y")


@pytest.mark.parametrize(
    "lines",
    [
        ["name: a", "id: a", "registryVersion: 1.0.0", "repository: https://github.com/a/b"],
        ["name: a", "id: a", "registryVersion: !!str 1.0", "blobId: xyz"],
        ["name: a", "id: a", "source: registry", "registryVersion: '1.0'", "gitRef: null"],
        ["name: a", "id: a", "registryVersion: latest", "unknown: {deep: [1, 2]}"],
    ],
)
def test_a_pack_of_the_registry_may_say_more_of_itself(lines: list[str]) -> None:
    (pack,) = parse(pack_text(*lines)).packs

    assert pack.source == "registry"
    assert (pack.repository, pack.git_ref, pack.blob_id) == (None, None, None)


def test_a_pack_without_a_ref_is_of_the_default_branch() -> None:
    assert parse(pack_text("name: a", "repository: https://h/a")).packs == (Pack(name="a", repository="https://h/a"),)


def test_a_model_may_be_of_this_machine_and_have_an_address() -> None:
    text = model_text(
        "filename: x", "type: loras", f"sha256: {SHA256}", "source: local", "localPath: loras/x", "sourceUri: s3://b/x"
    )

    assert parse(text).models == (
        Model(filename="x", type="loras", sha256=SHA256, local_path="loras/x", source_uri="s3://b/x"),
    )


@pytest.mark.parametrize("around", ["\ufeff{}", "{}\n...\n", "---\n{}", "%YAML 1.1\n---\n{}"])
def test_what_stands_around_a_document_is_taken(around: str) -> None:
    assert parse(around.format(build_text())).base_comfy_version == "v0.33.0"


def test_both_parsers_of_pyyaml_say_the_same_places() -> None:
    text = WIDE + "a: 'é𝄞'\r\nb:\r\n- {c: d}\r\n- |+\r\n  ü\r\n\r\n# c\r\ne: >\n  x\n f: \n"[:-5]

    def places(events: Iterator[yaml.Event]) -> Iterator[tuple[type, int, int, int]]:
        for event in events:
            start, end = event.start_mark, event.end_mark
            assert start is not None
            assert end is not None
            yield type(event), start.index, end.index, start.line

    fast = list(places(yaml.parse(text, Loader=yaml.CSafeLoader)))
    plain = list(places(yaml.parse(text, Loader=yaml.SafeLoader)))
    assert fast == plain


def test_json_is_a_build_file_too() -> None:
    text = (
        '{"schema": "comfy-build/1", "name": "x", "definition": {"schema": "distribution-definition/0",'
        ' "models": [{"filename": "x", "type": "loras", "sizeBytes": 12, "sourceUri": "https://h/x"}]}}'
    )

    assert parse(text).models[0].size_bytes == 12


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (build_text().encode("utf-16"), "it is UTF-16"),
        (build_text().replace("mine", "süß").encode("latin-1"), "line 3: it is not UTF-8"),
        (b"#" * 2_000_001, "more than 2,000,000 bytes"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "comfy-build.yaml"
    path.write_bytes(content)

    with pytest.raises(InvalidBuildFile, match=words):
        read_text(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.yaml", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(InvalidBuildFile, match=r"cannot be read|is no file"):
            read_text(path)
