"""`comfy-serverless env lock`: what is wrong with the build file is told before what is missing around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_serverless.cli.main import main
from tests.unit.build_samples import build_text, pack_text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (build_text(base="null"), "names no ComfyUI: set definition.baseComfyVersion to a tag"),
        (
            build_text().replace("baseComfyVersion", "baseComfyVersoin"),
            "a commit (is it meant by 'baseComfyVersoin'?).",
        ),
        (pack_text("name: a", "id: a", "registryVrsion: 1.0.0"), "(is it meant by 'registryVrsion'?)"),
        (build_text(), "torch.in cannot be read"),
    ],
)
def test_outside_a_checkout_the_file_itself_is_judged_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "comfy-build.yaml").write_text(text)
    assert main(["env", "lock", "--file", "comfy-build.yaml"]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert words in told
    assert ("torch.in" in told) == ("torch.in" in words)
