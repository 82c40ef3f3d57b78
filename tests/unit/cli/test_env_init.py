"""`env init`: from what one has to a build file, told in words and in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfy_serverless.cli.main import main
from comfy_serverless.environments.build_file import parse, read_text
from tests.environments import packs as kit

VERSION = '__version__ = "0.33.0"\n'
MAPPINGS = "NODE_CLASS_MAPPINGS = {}\n"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def install(tmp_path: Path) -> Path:
    """A small install that was downloaded, without git."""
    files = {
        "main.py": "",
        "comfyui_version.py": VERSION,
        "custom_nodes/kit-good/__init__.py": MAPPINGS,
        "custom_nodes/kit-good/.tracking": "",
        "custom_nodes/kit-good/pyproject.toml": '[project]\nname = "kit-good"\nversion = "1.2.0"\n',
        "custom_nodes/kit-good/requirements.txt": "kit-colors>=1\ntorch\n",
        "custom_nodes/mine/__init__.py": MAPPINGS,
        "custom_nodes/nothing/readme.md": "",
        "models/vae/a.pt": "a model",
        "venv/pyvenv.cfg": "version = 3.11.7\n",
        **{
            f"venv/lib/python3.11/site-packages/{name}.dist-info/METADATA": ""
            for name in ("kit_colors-1.2", "torch-2.1")
        },
    }
    return kit.unpack({name: text.encode() for name, text in files.items()}, tmp_path / "ComfyUI")


def workflow(path: Path) -> Path:
    model = {"name": "a.pt", "url": "https://example.com/a.pt", "directory": "vae"}
    nodes = [
        {"id": 1, "type": "VAELoader", "properties": {"cnr_id": "comfy-core", "ver": "0.34.0", "models": [model]}}
        | {"widgets_values": ["a.pt"], "mode": 0, "inputs": [], "outputs": []},
        {"id": 2, "type": "KitMore", "properties": {"cnr_id": "kit-more", "ver": "3.0.0"}, "mode": 0, "inputs": []},
    ]
    path.write_text(json.dumps({"nodes": nodes, "links": [], "version": 0.4}))
    return path


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["env", "init", *arguments, "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_an_install_becomes_a_file_and_the_end_says_what_is_in_it(
    install: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["env", "init", str(install)]) == 0

    shown = capsys.readouterr()
    build = parse(read_text(Path("comfyui/comfy-build.yaml")))
    assert build.base_comfy_version == "v0.33.0"
    assert [(pack.name, pack.source) for pack in build.packs] == [("kit-good", "registry"), ("mine", "local")]
    assert [(model.path, model.source) for model in build.models] == [("vae/a.pt", "local")]
    assert build.pip_dependencies.splitlines()[1:] == ["kit-colors==1.2"]
    assert "kit-good 1.2.0 of the registry" in shown.out
    assert "left out: nothing: it is no pack: it has no __init__.py" in shown.err
    assert (
        "comfyui/comfy-build.yaml is written: ComfyUI v0.33.0, 2 packs (1 of the registry, 1 of this machine), 1 model"
        in shown.err
    )
    assert f"Next: comfy-serverless env lock --comfyui {install}" in shown.err


def test_a_second_run_changes_not_a_byte(install: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["env", "init", str(install)])
    first = Path("comfyui/comfy-build.yaml").read_bytes()

    assert main(["env", "init", str(install)]) == 0

    assert Path("comfyui/comfy-build.yaml").read_bytes() == first
    assert "says all of that already" in capsys.readouterr().err


def test_a_file_that_is_there_is_updated_and_every_change_told(
    install: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Path("comfyui/comfy-build.yaml")
    target.parent.mkdir()
    target.write_text(
        "# ours\nschema: comfy-build/1\nname: ours\ndefinition:\n  schema: distribution-definition/0\n"
        "  baseComfyVersion: v0.32.0  # pinned\n  customNodes:\n    - id: own\n      name: own\n"
        "      registryVersion: 1.0.0\n  x-team: us\n"
    )

    answer = run_json(capsys, str(install))

    assert [(one["kind"], one["name"], one["what"]) for one in answer["changes"]] == [
        ("key", "baseComfyVersion", "changed"),
        ("model", "vae/a.pt", "added"),
        ("pack", "kit-good", "added"),
        ("pack", "mine", "added"),
        ("key", "pipDependencies", "added"),
    ]
    text = target.read_text()
    assert text.startswith("# ours\nschema: comfy-build/1\nname: ours\n")
    assert "  baseComfyVersion: v0.33.0  # pinned\n" in text
    assert "  x-team: us\n" in text
    assert "kept as they are, and not in what was read now: own" in answer["remarks"]


def test_force_writes_the_file_anew(install: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = Path("comfyui/comfy-build.yaml")
    target.parent.mkdir()
    target.write_text("not a build file at all [")

    assert main(["env", "init", str(install)]) == 1
    assert "invalid_build_file: comfyui/comfy-build.yaml, line 1" in capsys.readouterr().err
    assert main(["env", "init", str(install), "--force"]) == 0
    assert parse(target.read_text()).name == "ComfyUI"


def test_a_dry_run_writes_nothing(install: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_json(capsys, str(install), "--dry-run", "-o", "other.yaml")

    assert (answer["written"], answer["new"]) == (False, True)
    assert answer["next"].startswith("comfy-serverless env lock --file other.yaml")
    assert not Path("other.yaml").exists()


def test_an_install_and_a_workflow_become_one_file(
    install: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = run_json(capsys, str(install), str(workflow(tmp_path / "w.json")))

    assert [pack["name"] for pack in answer["packs"]] == ["kit-good", "mine", "kit-more"]
    (model,) = answer["models"]
    assert (model["source"], model["source_uri"]) == ("address", "https://example.com/a.pt")
    assert model["sha256"] is not None
    assert any("was made with ComfyUI v0.34.0" in remark for remark in answer["remarks"])


def test_a_workflow_alone_becomes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_json(capsys, str(workflow(tmp_path / "portrait.json")))

    assert answer["base_comfy_version"] == "v0.34.0"
    assert [pack["id"] for pack in answer["packs"]] == ["kit-more"]
    assert [model["filename"] for model in answer["models"]] == ["a.pt"]
    assert parse(read_text(Path("comfyui/comfy-build.yaml"))).name == "portrait"


def test_a_graph_in_api_format_says_that_it_names_no_packs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "g.json").write_text(json.dumps({"1": {"class_type": "KitMore", "inputs": {}}}))

    answer = run_json(capsys, "g.json", "--comfyui-ref", "v0.33.0")

    assert answer["packs"] == []
    assert any("a graph in API format names no packs" in remark for remark in answer["remarks"])


def test_a_snapshot_becomes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = {"comfyui": "a" * 40, "git_custom_nodes": {}, "cnr_custom_nodes": {"kit-good": "1.2.0"}, "pips": {}}
    (tmp_path / "s.json").write_text(json.dumps(snapshot))

    answer = run_json(capsys, "s.json")

    assert answer["base_comfy_version"] == "a" * 40
    assert [pack["registry_version"] for pack in answer["packs"]] == ["1.2.0"]


def test_a_build_file_is_taken_over_byte_for_byte(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = (
        "# theirs\nschema: comfy-build/1\nid: 12\nname: theirs\ndefinition:\n  schema: distribution-definition/0\n"
        "  baseComfyVersion: v0.33.0\n  x: {y: z}\n"
    )
    (tmp_path / "theirs.yaml").write_text(text)

    run_json(capsys, "theirs.yaml")

    assert Path("comfyui/comfy-build.yaml").read_text() == text


def test_a_whole_freeze_that_is_taken_over_is_put_behind_marks(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    official = request.config.rootpath / "tests/fixtures/build_files/scanned.yaml"

    answer = run_json(capsys, str(official))

    assert answer["overrides"] == []
    assert any("a whole pip freeze, and its 96 lines are put behind #" in remark for remark in answer["remarks"])
    assert any("off.disabled: its name ends with .disabled" in remark for remark in answer["remarks"])
    before, after = official.read_text().splitlines(), Path("comfyui/comfy-build.yaml").read_text().splitlines()
    assert [
        line.replace("# ", "", 1) if line != old else line for old, line in zip(before, after, strict=True)
    ] == before


def test_the_file_itself_can_be_the_source(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    official = request.config.rootpath / "tests/fixtures/build_files/scanned.yaml"
    (tmp_path / "own.yaml").write_bytes(official.read_bytes())

    answer = run_json(capsys, "own.yaml", "-o", "own.yaml")

    assert (answer["written"], answer["overrides"]) == (True, [])
    assert [change["name"] for change in answer["changes"]] == ["pipDependencies"]


def test_a_picture_with_a_workflow_becomes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = PngInfo()
    info.add_text("workflow", workflow(tmp_path / "w.json").read_text())
    info.add_text("prompt", json.dumps({"2": {"class_type": "KitMore", "inputs": {}}}))
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png", pnginfo=info)

    answer = run_json(capsys, "picture.png")

    assert [pack["id"] for pack in answer["packs"]] == ["kit-more"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("missing", "missing is not there: a SOURCE is"),
        ("missing.yaml", "missing.yaml is not there: a SOURCE is"),
        (".", "is no ComfyUI"),
        ("empty.json", "is empty"),
        ("list.json", "list.json is JSON, but no workflow and no snapshot"),
        ("broken.yaml", "broken.yaml, line 2"),
    ],
)
def test_a_source_that_is_none_is_refused_and_nothing_is_written(
    source: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.json").write_text("")
    Path("list.json").write_text("[1]")
    Path("broken.yaml").write_text("a: [")

    assert main(["env", "init", source, "--json"]) == 1

    assert words in json.loads(capsys.readouterr().out)["error"]["message"]
    assert not Path("comfyui").exists()


def test_a_ref_that_is_none_is_refused(install: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "init", str(install), "--comfyui-ref=--upload-pack"]) == 1
    assert "is no branch, tag or commit" in capsys.readouterr().err


def test_without_a_source_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["env", "init"])

    assert ended.value.code == 2
    assert "SOURCE" in capsys.readouterr().err


def test_a_folder_around_the_install_is_enough(install: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_json(capsys, str(install.parent), "--no-models")

    assert [pack["name"] for pack in answer["packs"]] == ["kit-good", "mine"]
    assert answer["models"] == []
