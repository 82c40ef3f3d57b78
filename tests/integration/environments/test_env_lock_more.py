"""`env lock` with more-requirements.txt, and with hashes that packs declare."""

from __future__ import annotations

import hashlib

import pytest

from tests.environments import packs
from tests.environments.repositories import Repository
from tests.integration.environments.env_world import Project, of_git, registered


def more(made: Project, text: str) -> None:
    (made.folder / "comfyui" / "more-requirements.txt").write_text(text)


def asking(made: Project, name: str, requirements: str) -> str:
    """The entry of a pack of a repository that asks for this."""
    repository = Repository(made.world.folder / "git", name)
    repository.commit({**packs.files("kit_good"), "requirements.txt": requirements})
    return of_git(name, repository.url, "master")


def test_a_line_is_locked_with_the_rest_and_says_who_asks(made: Project) -> None:
    made.write(registered("kit_hidden_requirements"))
    assert "more-requirements.txt: kit-extra>=1." in made.lock(), "where it belongs is told"
    assert "kit-extra" not in made.versions
    more(made, "# of kit_hidden_requirements\nkit-extra>=1\nkit-geometry==1.0\n")
    assert "the lines in more-requirements.txt have changed" in made.run("lock", "--check")[2]
    made.lock()
    found = {each.name: each for each in made.locked.requirements}
    assert found["kit-extra"].declared_by == ("more-requirements.txt: kit-extra>=1",)
    assert made.versions["kit-geometry"] == "1.0"
    assert made.locked.more_requirements == ("kit-extra>=1", "kit-geometry==1.0")
    assert made.run("lock", "--check")[0] == 0
    first = made.lock_path.read_bytes()
    more(made, "kit-geometry==1.0\nkit-extra>=1 # in another order\n")
    made.lock_path.unlink()
    made.lock()
    assert made.lock_path.read_bytes() == first


def test_an_override_that_adds_nothing_names_the_file_that_does(made: Project) -> None:
    made.write(registered("kit_good", "1.1.0"), overrides=["kit-extra==1.0"])
    assert "nothing asks for kit-extra, and an override adds no library. One that a pack needs" in made.lock()
    more(made, "kit-extra\n")
    made.lock()
    assert not [told for told in made.locked.warnings if "nothing asks for" in told]
    assert made.versions["kit-extra"] == "1.0"


def test_a_conflict_names_the_line_as_it_names_a_packs(made: Project) -> None:
    made.write(registered("kit_conflict_a"))
    more(made, "# mine\nkit-math>=2\n")
    error = made.fail()
    assert error["code"] == "environment_conflict"
    assert "kit_conflict_a (requirements.txt, line 1) asks for kit-math<2" in error["message"]
    assert "more-requirements.txt, line 2 asks for kit-math>=2" in error["message"]
    (override,) = error["details"]["override"]
    made.write(registered("kit_conflict_a"), overrides=[override])
    made.lock()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kit-nowhere\n", "more-requirements.txt, line 1 asks for kit-nowhere: the index has no library of the name"),
        ("kit-math==7\n", "more-requirements.txt, line 1 asks for kit-math==7"),
    ],
)
def test_a_line_of_ones_own_that_cannot_be_had_is_to_be_changed_and_not_overridden(
    made: Project, text: str, said: str
) -> None:
    made.write(registered("kit_source"))
    more(made, text)
    error = made.fail()
    assert said in error["message"]
    assert "Change that line, or take it out: more-requirements.txt is yours." in error["message"]
    assert error["details"]["override"] == []
    assert "pipDependencies" not in error["message"]


def test_a_line_that_is_no_requirement_is_told_with_its_number(made: Project) -> None:
    made.write(registered("kit_good", "1.1.0"))
    more(made, "\nkit-extra=1\n")
    message = made.fail()["message"]
    assert "more-requirements.txt, line 2: `kit-extra=1` is no requirement: a version is written with two" in message
    assert message.endswith("\nPut that right.")


def test_torch_and_its_kin_are_the_bases_there_too(made: Project) -> None:
    made.write(registered("kit_good", "1.1.0"))
    more(made, "torch==2.1.0\nxformers\nkit-extra\n")
    said = made.lock()
    assert "more-requirements.txt, line 1 asks for torch==2.1.0, and gets 2.14.1" in said
    assert "more-requirements.txt, line 2 asks for xformers: it is not installed" in said
    assert not {"torch", "xformers"} & made.versions.keys()
    assert made.versions["kit-extra"] == "1.0"


def test_a_repository_in_it_is_pinned_to_its_commit(made: Project) -> None:
    library = made.world.library("kit-lib-of-more")
    made.write(registered("kit_good", "1.1.0"))
    more(made, f"kit-lib-of-more @ git+{library.url}@master\n")
    made.lock()
    found = next(each for each in made.locked.requirements if each.name == "kit-lib-of-more")
    assert (found.kind, (found.url or "").rpartition("@")[0]) == ("git", f"git+{library.url}")


def test_hashes_that_a_pack_declares_are_compared(made: Project) -> None:
    content = (made.world.wheelhouse.folder / "kit_math-1.0-py3-none-any.whl").read_bytes()
    right = f"--hash=sha256:{hashlib.sha256(content).hexdigest()}"
    wrong = f"--hash=sha256:{'0' * 64}"
    made.write(asking(made, "with_hashes", f"kit-math==1.0 {wrong} \\\n    {right}\n"))
    made.lock()
    assert made.versions["kit-math"] == "1.0"
    made.write(asking(made, "with_wrong_hash", f"kit-math==1.0 {wrong}\n"))
    error = made.fail()
    assert error["code"] == "library_unavailable"
    assert "with_wrong_hash (requirements.txt, line 1) asks for kit-math==1.0 with hashes" in error["message"]
    assert "none of them is of the files that the index has" in error["message"]
