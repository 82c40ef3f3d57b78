"""The recorded list of classes is that of the ComfyUI it names: with COMFYUI_DIR, if that is one that was recorded."""

from __future__ import annotations

import pytest
import requests

from tests.contract.engines import REAL_COMFYUI, EngineProcess
from tests.patience import PATIENCE_S
from tools import templates


@pytest.mark.skipif(REAL_COMFYUI is None, reason="COMFYUI_DIR names no ComfyUI")
def test_the_classes_are_those_that_were_recorded(engine: EngineProcess) -> None:
    system = requests.get(f"{engine.url}/system_stats", timeout=PATIENCE_S).json()["system"]
    declared = requests.get(f"{engine.url}/object_info", timeout=PATIENCE_S).json()
    names = {name for name in declared if not declared[name]["python_module"].startswith("custom_nodes.")}
    same = [one for one in templates.recorded() if one.version == system["comfyui_version"]]
    if not same:
        pytest.skip(f"the classes of {system['comfyui_version']} were not recorded")
    assert any(one.names - {"SaveImageWebsocket"} == names for one in same)
