"""What a dataclass holds is read by somebody: a field of a lock, an item or a file that nobody reads is not written."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path("lambda/comfy_serverless")
#: Fields that no code here reads by their names, and who does.
READ_ELSEWHERE = {
    "api/tools/protocol.py: _Exchange.message_metadata": "the library of agents' protocol",
    "api/tools/protocol.py: _Exchange.cancel_requested": "the library of agents' protocol",
    "api/tools/protocol.py: _Exchange.can_send_request": "the library of agents' protocol",
    "batches/batch.py: Batch.wakes": "batches/store.py, as a column",
    "batches/batch.py: Batch.is_failed": "Batch.from_item, as a column",
    "connector/outputs.py: Output.cached": "callers of ComfyConnector",
    "connector/progress.py: Progress.nodes_done": "callers of ComfyConnector",
    "connector/progress.py: Progress.nodes_total": "callers of ComfyConnector",
    "connector/progress.py: Progress.current_node_class": "callers of ComfyConnector",
    "connector/run.py: Execution.attempts": "callers of ComfyConnector",
    "environments/lock_file.py: LockedPack.install_scripts": "people: docs/environments.md",
    "settings.py: Settings.job_queue_url": "handlers/wiring.py, by `require`",
    "settings.py: Settings.release_file": "Settings.from_environment, by its variable",
    "table/job_item.py: JobItem.open_owner": "table/reader.py, in a condition",
    "table/target.py: EndpointTarget.job_queue_url": "table/dispatch.py, in a pattern by its place",
    "table/target.py: QueueTarget.job_queue_url": "table/dispatch.py, in a pattern by its place",
    "worker/worker.py: _Limits.execution_s": "ComfyConnector.run, as a keyword",
}


def fields_of(path: Path) -> Iterator[tuple[str, str]]:
    """The fields of a module's classes that are values: `(class, field)`. Models of pydantic are for callers."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and (
            any("dataclass" in ast.unparse(each) for each in node.decorator_list)
            or {"NamedTuple", "TypedDict"} & {ast.unparse(base) for base in node.bases}
        ):
            for each in node.body:
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and each.target.id != "_":
                    yield node.name, each.target.id


def read_in(path: Path) -> set[str]:
    """The attributes that a module reads, of whatever, and those that its patterns name."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    return read | {name for node in nodes if isinstance(node, ast.MatchClass) for name in node.kwd_attrs}


def test_every_field_of_a_value_is_read_somewhere() -> None:
    """By name alone: a field that is called like one that is read is not found, and nothing is found that is read."""
    modules = sorted(PACKAGE.rglob("*.py"))
    read = {
        name for folder in (PACKAGE, Path("infra"), Path("tools")) for path in sources(folder) for name in read_in(path)
    }
    unread = {
        f"{path.relative_to(PACKAGE).as_posix()}: {owner}.{field}"
        for path in modules
        for owner, field in fields_of(path)
        if field not in read
    }
    assert unread == set(READ_ELSEWHERE)


def sources(folder: Path) -> Iterator[Path]:
    """The modules below a folder, without those of installed libraries."""
    return (path for path in folder.rglob("*.py") if ".venv" not in path.parts)
