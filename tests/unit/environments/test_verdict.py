"""Whether an image is as it should be: what ends the build, what is only told, and what may be wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from comfy_serverless.connector.import_check import READ_ONLY, WRITABLE, Start
from comfy_serverless.environments.image.import_story import Kind, Known
from comfy_serverless.environments.image.verdict import Allowed, Verdict, judge

LOST = "Cannot import /tmp/comfyui/custom_nodes/{} module for custom nodes: {}\n"
MISSING = LOST.format("pack", "No module named 'cv2'")


def declared(**classes: str) -> dict[str, Any]:
    """Declarations of classes, each with its pack; `ComfyUI` for its own."""
    return {
        name: {"python_module": "nodes" if pack == "ComfyUI" else f"custom_nodes.{pack}"}
        for name, pack in classes.items()
    }


INFO = declared(KSampler="ComfyUI", Brighten="pack")


def judged(
    *outputs: str,
    infos: tuple[Mapping[str, Any] | None, ...] = (INFO, INFO),
    codes: tuple[int | None, ...] = (None, None),
    allowed: Allowed | None = None,
    before: Mapping[str, str] | None = None,
    culprits: Mapping[str, str] | None = None,
    named: Mapping[str, Collection[str]] | None = None,
    known: Known | None = None,
) -> Verdict:
    starts = [
        Start(mode, output, code=code, object_info=info)
        for mode, output, code, info in zip((READ_ONLY, WRITABLE), outputs or ("", ""), codes, infos, strict=True)
    ]
    return judge(
        starts,
        known or Known(),
        allowed=allowed or Allowed(),
        before=before or {},
        culprits=culprits or {},
        named=named or {},
    )


def test_an_image_that_is_as_it_should_be_has_no_problems_and_its_classes_have_packs() -> None:
    verdict = judged()
    assert (verdict.problems, verdict.notes) == ((), ())
    assert verdict.classes == {"Brighten": "pack", "KSampler": "ComfyUI"}


def test_a_pack_that_does_not_import_in_both_ways_is_said_once() -> None:
    (problem,) = judged(MISSING, MISSING).problems
    assert (problem.pack, problem.cause.kind, problem.modes) == ("pack", Kind.MISSING_MODULE, (READ_ONLY, WRITABLE))
    lines = "\n".join(problem.lines(all_modes=2))
    assert lines.startswith("  pack: the module cv2 is missing\n      ComfyUI says: No module named 'cv2'")
    assert "only" not in lines.partition("\n")[0]
    assert "      do: add the line `opencv-python-headless`" in lines


def test_one_that_fails_only_where_it_cannot_write_is_said_with_the_way() -> None:
    (problem,) = judged(LOST.format("pack", "[Errno 13] Permission denied: '/opt/x'"), "").problems
    assert problem.cause.kind is Kind.WRITES
    assert problem.lines(all_modes=2)[0].endswith("[only read-only, as on Lambda]")


def test_packs_that_are_named_may_fail_and_that_is_told() -> None:
    for names in ({"pack"}, {"*"}):
        verdict = judged(MISSING, MISSING, allowed=Allowed(packs=names))
        assert verdict.problems == ()
        assert "pack did not import, and may" in verdict.notes[0]
    assert judged(MISSING, MISSING, allowed=Allowed(packs={"pac"})).problems


def test_a_comfyui_that_does_not_start_is_a_problem_whatever_is_allowed() -> None:
    problems = judged("", "", infos=(None, None), codes=(3, -11), allowed=Allowed(packs={"*"}, classes={"*"})).problems
    assert [problem.pack for problem in problems] == ["ComfyUI", "ComfyUI"]
    assert "exit code 3" in problems[0].cause.what
    assert "signal 11" in problems[1].cause.what


def test_a_pack_that_ends_comfyui_is_named() -> None:
    (problem,) = judged("", "", infos=(None, None), codes=(1, 1), culprits={"pack": "exit code 1"}).problems
    assert (problem.pack, problem.cause.kind) == ("pack", Kind.DIED)
    assert "exit code 1" in problem.cause.what


def test_a_pack_whose_import_never_ends_is_found_in_the_stack() -> None:
    stack = 'Fatal Python error: Aborted\n  File "/tmp/comfyui/custom_nodes/slow/__init__.py", line 2 in <module>\n'
    problems = judged(stack, stack, infos=(None, None)).problems
    assert {problem.pack for problem in problems} == {"slow"}
    assert "does not come to an end" in problems[0].cause.what


def test_classes_that_have_vanished_since_the_last_list_are_a_problem_by_pack() -> None:
    before = {"KSampler": "ComfyUI", "Darken": "pack", "Blur": "pack", "Brighten": "pack"}
    (problem,) = judged(before=before).problems
    assert problem.pack == "pack"
    assert "the classes Blur, Darken of comfyui/comfy-build.classes.json are gone" in problem.cause.what
    assert "ALLOW_VANISHED=Blur,Darken" in problem.cause.do
    assert judged(before=before, allowed=Allowed(classes={"Blur", "Darken"})).problems == ()
    assert judged(before=before, allowed=Allowed(classes={"*"})).problems == ()
    (one,) = judged(before=before, allowed=Allowed(classes={"Blur"})).problems
    assert "the class Darken of comfyui/comfy-build.classes.json is gone" in one.cause.what


def test_classes_of_a_pack_that_did_not_import_are_not_said_twice() -> None:
    (problem,) = judged(MISSING, MISSING, before={"Other": "pack"}).problems
    assert problem.cause.kind is Kind.MISSING_MODULE


def test_a_class_that_is_there_in_one_way_only_is_a_problem() -> None:
    """A pack that catches what goes wrong, and leaves its classes out."""
    (problem,) = judged(infos=(declared(KSampler="ComfyUI"), INFO)).problems
    assert (problem.pack, problem.modes) == ("pack", (READ_ONLY,))
    assert "leaves out the class Brighten" in problem.cause.what


def test_a_class_that_cannot_be_described_is_a_problem_of_its_pack() -> None:
    line = "[ERROR] An error occurred while retrieving information for the 'Broken' node.\n"
    (problem,) = judged(line, line, named={"pack": {"Broken"}}).problems
    assert problem.pack == "pack"
    assert "cannot describe the class Broken" in problem.cause.what


def test_two_packs_with_the_same_class_are_told_with_the_one_that_is_used() -> None:
    notes = judged(named={"other": {"Brighten", "KSampler", "settings"}, "pack": {"Brighten"}}).notes
    assert notes == (
        "other seems to declare the class Brighten, too: the one of pack is used",
        "other seems to declare the class KSampler, too: the one of ComfyUI is used",
    )


def test_a_pack_of_one_file_is_its_own_other_name() -> None:
    info = declared(Brighten="single")
    assert (
        judged(infos=(info, info), named={"single.py": {"Brighten"}}, known=Known(declared={"single.py": []})).notes
        == ()
    )


def test_a_pack_without_any_class_is_told() -> None:
    assert judged(known=Known(declared={"web": [], "pack": []})).notes == ("web imports, and declares no class",)
