"""Which packs did not import, from the lines of real ComfyUIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.connector.import_report import ImportReport, NotImported
from comfy_serverless.connector.pack_sources import declared_classes
from comfy_serverless.connector.process import ComfyProcess
from comfy_serverless.connector.refusals import explained, refusal
from tests.patience import PATIENCE_S

PACKS = "/tmp/comfyui/custom_nodes"
#: ComfyUI 0.3.64 writes bare lines, 0.33.0 a coloured level before each record.
LEVELS = {"0.3.64": ("", ""), "0.33.0": ("\x1b[1m\x1b[33m[WARNING]\x1b[0m ", "\x1b[32m[INFO]\x1b[0m ")}
UNKNOWN = {"type": "invalid_prompt", "message": "Cannot execute because node Lost does not exist.", "details": "#1"}


def report(*lines: str) -> dict[str, str]:
    reading = ImportReport()
    for line in lines:
        reading.see(line)
    return {lost.pack: lost.reason for lost in reading.not_imported}


@pytest.mark.parametrize("version", LEVELS)
def test_packs_and_their_reasons_are_read_from_what_comfyui_writes(version: str) -> None:
    warning, info = LEVELS[version]
    assert report(
        f"{info}ComfyUI version: {version}",
        f"{warning}Traceback (most recent call last):",
        f'  File "{PACKS}/missing/__init__.py", line 1, in <module>',
        "    import cv2",
        "ModuleNotFoundError: No module named 'cv2'",
        "",
        f"{warning}Cannot import {PACKS}/missing module for custom nodes: No module named 'cv2'",
        f"{warning}Cannot import {PACKS}/two words.py module for custom nodes: line one",
        "line two",
        f"{warning}Skip {PACKS}/no_mapping module for custom nodes due to the lack of NODE_CLASS_MAPPINGS or "
        "comfy_entrypoint (need one).",
        f"{info}",
        "Import times for custom nodes:",
        f"{info}   0.0 seconds (IMPORT FAILED): {PACKS}/missing",
        f"{info}   0.0 seconds (IMPORT FAILED): {PACKS}/two words.py",
        f"{info}   0.0 seconds (IMPORT FAILED): {PACKS}/no_mapping",
        f"{info}   0.1 seconds: {PACKS}/good",
        f"{info}Starting server",
    ) == {
        "missing": "No module named 'cv2'",
        "two words.py": "line one",
        "no_mapping": "the lack of NODE_CLASS_MAPPINGS or comfy_entrypoint (need one).",
    }


def test_a_pack_that_is_only_listed_counts() -> None:
    found = report(f"   0.0 seconds (IMPORT FAILED): {PACKS}/quiet")
    assert found == {"quiet": "ComfyUI does not say why: see its log"}


def test_comfyuis_own_nodes_count_too_each_once() -> None:
    found = report(
        "Cannot import /opt/comfyui/comfy_extras/nodes_canny.py module for custom nodes: No module named 'kornia'",
        "IMPORT FAILED: nodes_canny.py",
    )
    assert found == {"nodes_canny.py": "No module named 'kornia'"}


def test_an_exception_without_words_is_told_by_its_name() -> None:
    assert report("AssertionError", "", f"Cannot import {PACKS}/a module for custom nodes: ") == {"a": "AssertionError"}


@pytest.mark.parametrize("mark", ["Starting server", "[INFO] Starting server", "To see the GUI go to: http://x:8188"])
def test_what_jobs_write_once_comfyui_is_up_makes_no_pack_a_lost_one(mark: str) -> None:
    assert report(mark, f"Cannot import {PACKS}/good module for custom nodes: forged") == {}


def test_a_reason_is_one_bounded_line_without_secrets() -> None:
    said = "\x1b[31mred\x07 https://ana:pass@host/x?token=abc HF_TOKEN=hf_abc, Authorization: Bearer xyz " + "x" * 5000
    (reason,) = report(f"Cannot import {PACKS}/a module for custom nodes: {said}").values()
    assert reason.isprintable()
    assert len(reason) < 400
    assert not [secret for secret in ("pass@", "abc", "xyz") if secret in reason]


def test_endless_packs_are_bounded() -> None:
    lines = [f"Cannot import {PACKS}/p{number} module for custom nodes: x" for number in range(5000)]
    assert len(report(*lines)) == 200


def test_a_process_tells_of_its_own_start_only(tmp_path: Path) -> None:
    script = tmp_path / "engine.sh"
    script.write_text(
        f'[ -e {tmp_path}/fixed ] || echo "Cannot import {PACKS}/a module for custom nodes: x"; echo Starting server\n'
        "exec sleep 60\n"
    )
    process = ComfyProcess(
        lambda _port: ["sh", str(script)], host="127.0.0.1", first_port=0, answers=lambda _port: False
    )
    try:
        process.start()
        _wait_for_line(process)
        assert [lost.pack for lost in process.not_imported] == ["a"]
        process.kill()
        (tmp_path / "fixed").touch()
        process.start()
        _wait_for_line(process)
        assert process.not_imported == ()
    finally:
        process.stop()


def _wait_for_line(process: ComfyProcess) -> None:
    import time

    give_up_at = time.monotonic() + PATIENCE_S
    while "Starting server" not in process.log_tail:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


SOURCES = {
    "__init__.py": 'from .nodes import A\nNODE_CLASS_MAPPINGS = {"Load Image (Pack)": A, "Two": x.Two}\n',
    "nodes.py": 'class ByName:\n    pass\nio.Schema(node_id="V3Node", display_name="no")\n',
    "broken.py": "class Half:\n  def x(:\n",
    "more/deep.py": "NODES = {\n    'Deep': Deep,\n    'default': True,\n}\n",
    "__pycache__/old.py": "class Stale: pass\n",
}


def test_the_source_of_a_pack_tells_its_classes_also_where_it_cannot_be_parsed(tmp_path: Path) -> None:
    for name, text in SOURCES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00class Odd:\n")
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
    names = declared_classes(tmp_path)
    assert {"Load Image (Pack)", "Two", "ByName", "V3Node", "Half", "Deep"} <= names
    assert not names & {"default", "Stale", "no"}
    assert declared_classes(tmp_path / "nodes.py") == {"ByName", "V3Node"}
    assert declared_classes(tmp_path / "nowhere") == frozenset()


def test_names_are_bounded(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"f{number}.py").write_text("".join(f"class C{number}x{index}:\n" for index in range(200)))
    assert len(declared_classes(tmp_path)) == 2000


def explained_with(*lost: NotImported) -> tuple[str, dict[str, Any]]:
    graph = {"1": {"class_type": "Lost", "inputs": {}}, "2": {"class_type": "SaveImagee", "inputs": {}}}
    error = explained(refusal(UNKNOWN, {}), graph, {"Lost": None, "SaveImagee": None}, ["SaveImage"], lost)
    return error.message, error.details


def test_the_job_that_misses_a_class_hears_of_which_pack_it_is_and_why_that_did_not_import() -> None:
    pack = NotImported("toy", "No module named 'cv2'", classes=frozenset({"Lost"}))
    message, details = explained_with(pack, NotImported("other", "syntax"))
    assert (
        "Node 1 (Lost): ComfyUI has no such node (it is of toy, which did not import: No module named 'cv2')" in message
    )
    assert "(did you mean 'SaveImage'?)" in message
    assert "These did not: toy (No module named 'cv2'), other (syntax)" in message
    assert details["not_imported"] == [
        {"pack": "toy", "reason": "No module named 'cv2'"},
        {"pack": "other", "reason": "syntax"},
    ]


def test_a_message_names_ten_packs_at_most() -> None:
    message, details = explained_with(*(NotImported(f"p{number}", "x") for number in range(50)))
    assert "p9 (x) and 40 more" in message
    assert len(details["not_imported"]) == 50


def test_without_lost_packs_an_error_is_as_before() -> None:
    message, details = explained_with()
    assert "cannot be imported (see ComfyUI's log)" in message
    assert "not_imported" not in details
