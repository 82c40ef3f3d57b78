"""The input files that the engine of a connector is given: nothing here runs a workflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from comfy_serverless.connector.engine_asked import EngineAsked
from comfy_serverless.connector.folders import place_file


class EngineGiven(EngineAsked):
    """The part of `ComfyConnector` that brings files to its engine, once that answers."""

    def upload_image(
        self,
        filepath: str | Path,
        subfolder: str | None = None,
        folder_type: str | None = None,
        overwrite: bool = False,
    ) -> dict[str, Any]:
        """Give ComfyUI an image. Returns `{"name": …, "subfolder": …, "type": …}`; use that name.

        Raises:
            OSError: the file cannot be read, for instance because it is not there (FileNotFoundError).
            MissingAsset: ComfyUI does not take it, for instance because it is too large.
        """
        self.wait_ready()
        path = Path(filepath)
        with path.open("rb") as file:
            return self._engine.uploads.send(
                file, path.name, subfolder=subfolder, folder_type=folder_type, overwrite=overwrite
            )

    def upload_file(self, file: BinaryIO | Path, name: str, *, subfolder: str = "", overwrite: bool = False) -> str:
        """Give ComfyUI any input file. Returns the value for the input of a LoadImage (or similar) node.

        A file on this machine is copied into a local engine's input folder, unless the name is taken there.

        Raises:
            OSError: the file cannot be read.
            MissingAsset: ComfyUI does not take it, for instance because it is too large.
        """
        self.wait_ready()
        folder = self.input_directory
        if isinstance(file, Path):
            if folder is not None and place_file(file, name, subfolder=subfolder, folder=folder):
                return f"{subfolder}/{name}" if subfolder else name
            with file.open("rb") as stream:
                return self.upload_file(stream, name, subfolder=subfolder, overwrite=overwrite)
        answer = self._engine.uploads.send(file, name, subfolder=subfolder, overwrite=overwrite)
        return f"{answer['subfolder']}/{answer['name']}" if answer.get("subfolder") else str(answer["name"])
