"""Put the bundled network into the wheel as jaxviz/_data/..., so that git and the sdist hold the file once.

An editable install reads it where it is, like a checkout, and gets no copy.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "resnet18-imagenette.safetensors"


class WeightsHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":  # not "editable"; a missing file ends the build with an error that names it
            build_data["force_include"][f"weights/{NAME}"] = f"jaxviz/_data/{NAME}"
