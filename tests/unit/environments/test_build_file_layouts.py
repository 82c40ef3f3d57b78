"""Odd layouts of a build file: each is changed in every way, and says afterwards what it should.

`updated` itself reads what it has written and compares; here is what people would miss: remarks, and a second change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from comfy_serverless.environments.build_file import BuildFile, Model, Pack, parse, updated

LAYOUTS = {
    "dash alone": (
        "schema: comfy-build/1\n"
        "definition:\n"
        "  schema: distribution-definition/0\n"
        "  customNodes: # c\n"
        "    # d\n"
        "    - # e\n"
        "      name: a\n"
        "      id: a\n"
        "      registryVersion: 1.0.0\n"
        "    -\n"
        "      name: b # n\n"
        "      repository: https://h/b # r\n"
        "      # inner\n"
        "      gitRef: main\n"
        "    # end\n"
        "  # tail\n"
        "# tail2"
    ),
    "quoted": (
        "schema: comfy-build/1\n"
        '"definition":\n'
        '        "schema": "distribution-definition/0"\n'
        '        "customNodes":\n'
        '        - "name": "a"\n'
        "          'id': 'a'\n"
        '          "registryVersion": "1.0.0"\n'
        '        "pipDependencies": >-\n'
        "          numpy==1\n"
    ),
    "null lists": (
        "schema: comfy-build/1\n"
        "definition:\n"
        "  schema: distribution-definition/0\n"
        "  customNodes:\n"
        "  models: ~\n"
        "  pipDependencies:\n"
        "  environment:\n"
    ),
    "empty flow multi": (
        "schema: comfy-build/1\n"
        "definition:\n"
        "  schema: distribution-definition/0\n"
        "  customNodes: [\n"
        "    # none\n"
        "  ]\n"
        "  models: [ {filename: x, type: vae, sourceUri: 'https://h/x'}, # first\n"
        "            {filename: y, type: vae, sourceUri: 'https://h/y'} ] # both\n"
    ),
    "docend": (
        "%YAML 1.1\n---\nschema: comfy-build/1\ndefinition:\n  schema: distribution-definition/0\n...\n# after\n"
    ),
    "def first": (
        "definition:\n  schema: distribution-definition/0\n  baseComfyVersion: |-\n    v1\nschema: comfy-build/1\n"
    ),
    "flow def": (
        "schema: comfy-build/1\n"
        "definition: {schema: distribution-definition/0,\n"
        "  customNodes: [{name: a, id: a, registryVersion: '1'}],}\n"
    ),
    "indented root": (
        "  schema: comfy-build/1\n"
        "  definition:\n"
        "     schema: distribution-definition/0\n"
        "     models:\n"
        "       -   filename: x\n"
        "           type: vae\n"
        "           sourceUri: https://h/x\n"
    ),
    "explicit": (
        "schema: comfy-build/1\n"
        "? definition\n"
        ": schema: distribution-definition/0\n"
        "  customNodes:\n"
        "  - name: a\n"
        "    id: a\n"
        "    registryVersion: 1.0.0\n"
    ),
    "trailing blanks": (
        "schema: comfy-build/1\n"
        "definition:   \n"
        "  schema: distribution-definition/0   \n"
        "\n"
        "  customNodes:   \n"
        "\n"
        "  - name: a   \n"
        "\n"
        "    id: a\n"
        "\n"
        "    registryVersion: 1.0.0\n"
        "\n"
        "\n"
    ),
    "nel": (
        "schema: comfy-build/1\ndefinition:\n  schema: distribution-definition/0 # a\u2028  baseComfyVersion: v1\n"
    ),
    "cr": (
        "schema: comfy-build/1\r"
        "definition:\r"
        "  schema: distribution-definition/0\r"
        "  customNodes:\r"
        "  - name: a\r"
        "    id: a\r"
        "    registryVersion: 1.0.0\r"
    ),
    "multi quoted": (
        "schema: comfy-build/1\n"
        "definition:\n"
        "  schema: distribution-definition/0\n"
        '  pipDependencies: "numpy==1\n'
        "\n"
        '    scipy==2" # c\n'
        "  baseComfyVersion:\n"
        "    # why\n"
        "    v1\n"
    ),
}
CHANGES: dict[str, Callable[[BuildFile], BuildFile]] = {
    "packs come": lambda b: replace(b, packs=(*b.packs, *(Pack(name=name, local_path=name) for name in ("zz", "0")))),
    "packs go": lambda b: replace(b, packs=()),
    "models go": lambda b: replace(b, models=()),
    "models come": lambda b: replace(
        b, models=(*b.models, Model(filename="n", type="loras", source_uri="https://h/n", size_bytes=3))
    ),
    "packs are from elsewhere": lambda b: replace(
        b, packs=tuple(Pack(name=pack.name, repository=f"https://h/z{pack.name}", git_ref="12") for pack in b.packs)
    ),
    "keys come": lambda b: replace(
        b,
        base_comfy_version="v9",
        pip_dependencies="a==1\nb==2\n",
        environment={"os": "x"},
        name="n",
        description="d: e",
    ),
    "keys go": lambda b: replace(b, base_comfy_version=None, pip_dependencies="", environment={}),
    "a text with blank lines behind it comes": lambda b: replace(b, pip_dependencies="a==1\n\n\n"),
    "a text that begins with a blank comes": lambda b: replace(b, pip_dependencies="  # a\nb==2\n"),
}
#: What stands by itself, and concerns no value that goes.
REMARKS = ("# c\n", "# d", "# end", "# tail", "# tail2", "# after", "# both")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("change", CHANGES)
def test_every_layout_takes_every_change(layout: str, change: str) -> None:
    text = LAYOUTS[layout]
    build = parse(text)
    wanted = CHANGES[change](build)

    after = updated(text, wanted)

    assert updated(text, build) == text
    assert parse(after).name == wanted.name
    assert updated(after, wanted) == after
    assert parse(updated(after, build)) == build
    gone = [remark for remark in REMARKS if remark in text and remark not in after]
    assert gone == [] or (layout == "multi quoted" and change == "keys go"), after
