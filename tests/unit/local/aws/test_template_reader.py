"""The local AWS reads templates as SAM does, but sooner."""

from __future__ import annotations

import pytest
from samcli.yamlhelper import yaml_parse

from local.aws.template import ROOT, template


@pytest.mark.parametrize("name", ["template.yaml", "budget.yaml"])
def test_a_template_is_read_as_sam_reads_it(name: str) -> None:
    read = template(name)
    assert read["Resources"]
    assert read == yaml_parse((ROOT / name).read_text(encoding="utf-8"))
