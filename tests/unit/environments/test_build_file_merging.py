"""Several sources become one build, and a file that is there keeps what only it has."""

from __future__ import annotations

from comfy_serverless.environments.build_file import BuildFile, Model, Pack
from comfy_serverless.environments.found import Found, FoundPack
from comfy_serverless.environments.installed_libraries import pip_text
from comfy_serverless.environments.merging import Change, changes, merged, onto

ONE, TWO = "1" * 64, "2" * 64


def registry(name: str, version: str) -> Pack:
    return Pack(name=name, id=name, registry_version=version)


def install(*packs: FoundPack, models: tuple[Model, ...] = (), version: str = "v0.33.0") -> Found:
    return Found("~/ComfyUI", version=version, packs=list(packs), models=list(models))


def workflow(*packs: Pack, models: tuple[Model, ...] = (), version: str = "") -> Found:
    found = [FoundPack(pack, frozenset({pack.name.lower()})) for pack in packs]
    return Found("w.json", version=version, is_of_install=False, packs=found, models=list(models))


def test_the_first_source_says_which_version_of_a_pack_and_the_other_is_told() -> None:
    build, remarks = merged(
        [install(FoundPack(registry("kit", "1.0.0"))), workflow(registry("kit", "1.1.0"), registry("more", "2.0.0"))],
        ref=None,
        name="x",
    )

    assert [(pack.name, pack.registry_version) for pack in build.packs] == [("kit", "1.0.0"), ("more", "2.0.0")]
    assert remarks == ["kit: w.json has kit 1.1.0 of the registry; kit 1.0.0 of the registry is taken"]


def test_a_pack_of_git_is_the_one_that_a_workflow_names_by_its_id_or_repository() -> None:
    of_git = Pack(name="ComfyUI-KJNodes", repository="https://github.com/kijai/ComfyUI-KJNodes", git_ref="a" * 40)

    for named in (registry("comfyui-kjnodes", "latest"), Pack(name="kj", repository=f"{of_git.repository}.git")):
        build, _ = merged([install(FoundPack(of_git)), workflow(named)], ref=None, name="x")
        assert build.packs == (of_git,)


def test_packs_of_two_owners_with_one_name_are_both_kept() -> None:
    packs = [
        FoundPack(Pack(name=owner, repository=f"https://github.com/{owner}/Kit", git_ref="a" * 40))
        for owner in ("one", "two")
    ]

    build, _ = merged([install(*packs)], ref=None, name="x")

    assert [pack.name for pack in build.packs] == ["one", "two"]


def test_a_model_of_both_has_the_address_of_the_workflow_and_the_hash_of_the_file() -> None:
    mine = Model(filename="a.pt", type="vae", sha256=ONE, size_bytes=3, local_path="vae/a.pt")
    named = Model(filename="a.pt", type="vae", source_uri="https://h/a.pt")

    build, _ = merged([install(models=(mine,)), workflow(models=(named,))], ref=None, name="x")

    assert build.models == (Model(filename="a.pt", type="vae", sha256=ONE, size_bytes=3, source_uri="https://h/a.pt"),)


def test_a_file_keeps_its_own_address_of_a_model() -> None:
    mirrored = Model(filename="a.pt", type="vae", sha256=ONE, source_uri="s3://ours/a.pt")
    named = Model(filename="a.pt", type="vae", source_uri="https://h/a.pt")

    build, _ = onto(BuildFile(models=(mirrored,)), BuildFile(models=(named,)), ref=None, is_of_install=False)

    assert build.models == (mirrored,)


def test_two_contents_of_one_name_are_told() -> None:
    mine = Model(filename="a.pt", type="vae", sha256=ONE, local_path="vae/a.pt")
    named = Model(filename="a.pt", type="vae", sha256=TWO, source_uri="https://h/a.pt")

    build, remarks = merged([install(models=(mine,)), workflow(models=(named,))], ref=None, name="x")

    assert build.models == (named,)
    assert "two contents have this name" in remarks[0]


def test_an_installs_version_counts_more_than_what_a_workflow_was_made_with() -> None:
    sources = [workflow(version="v0.34.0"), install(version="v0.33.0")]

    build, remarks = merged(sources, ref=None, name="x")

    assert build.base_comfy_version == "v0.33.0"
    assert remarks == ["w.json was made with ComfyUI v0.34.0, and ~/ComfyUI has v0.33.0"]
    assert merged(sources, ref="v0.35.0", name="x")[0].base_comfy_version == "v0.35.0"


def test_a_file_keeps_what_only_it_has() -> None:
    existing = BuildFile(
        name="ours",
        base_comfy_version="v0.32.0",
        packs=(registry("own", "1.0"), Pack(name="KJ", id="kit", registry_version="0.9")),
        models=(Model(filename="own.pt", type="vae", source_uri="https://h/o"),),
        pip_dependencies="# ours\nnumpy==2\n",
    )
    new = BuildFile(
        name="theirs", base_comfy_version="v0.33.0", packs=(registry("kit", "1.0"),), pip_dependencies="x\n"
    )

    build, remarks = onto(existing, new, ref=None, is_of_install=True)

    assert build.name == "ours"
    assert build.base_comfy_version == "v0.33.0"
    assert build.packs == (registry("own", "1.0"), Pack(name="KJ", id="kit", registry_version="1.0"))
    assert build.models == existing.models
    assert build.pip_dependencies == existing.pip_dependencies
    assert remarks == [
        "kept as they are, and not in what was read now: own",
        "pipDependencies is kept as it is: it has lines of your own",
    ]


def test_evidence_is_written_anew() -> None:
    old = BuildFile(pip_dependencies=pip_text({"a": "a==1"}, (), []))
    new = BuildFile(pip_dependencies=pip_text({"a": "a==2"}, (), []))

    assert onto(old, new, ref=None, is_of_install=True)[0].pip_dependencies == new.pip_dependencies


def test_a_workflow_never_takes_a_file_back_to_an_older_comfyui() -> None:
    existing = BuildFile(base_comfy_version="v0.33.0")

    for wanted, version in (("v0.32.0", "v0.33.0"), ("v0.34.0", "v0.34.0"), (None, "v0.33.0")):
        build, _ = onto(existing, BuildFile(base_comfy_version=wanted), ref=None, is_of_install=False)
        assert build.base_comfy_version == version


def test_a_workflow_changes_no_pack_that_the_file_has() -> None:
    existing = BuildFile(
        packs=(
            Pack(name="KJ", repository="https://github.com/kijai/ComfyUI-KJNodes", git_ref="a" * 40),
            registry("kit", "2.0.0"),
        )
    )
    wanted = BuildFile(
        packs=(registry("comfyui-kjnodes", "1.0.0"), registry("kit", "latest"), registry("new", "1.0.0"))
    )

    build, remarks = onto(existing, wanted, ref=None, is_of_install=False, wished={"comfyui-kjnodes", "kit", "new"})

    assert build.packs == (*existing.packs, registry("new", "1.0.0"))
    assert remarks[0] == (
        "KJ: a workflow has comfyui-kjnodes 1.0.0 of the registry; "
        f"https://github.com/kijai/ComfyUI-KJNodes at {'a' * 40} is kept"
    )


def test_changes_are_told_one_by_one() -> None:
    old = BuildFile(base_comfy_version="v1", packs=(registry("a", "1"), registry("b", "1")))
    new = BuildFile(base_comfy_version="v2", packs=(registry("b", "2"), registry("c", "1")))

    assert changes(old, new) == [
        Change("key", "baseComfyVersion", "changed", "v2"),
        Change("pack", "a", "removed", ""),
        Change("pack", "b", "changed", "b 2 of the registry"),
        Change("pack", "c", "added", "c 1 of the registry"),
    ]
