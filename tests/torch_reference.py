"""The peers that the tests compare with, imported so that they work beside any build of torch."""

from __future__ import annotations

import pytest


def import_torchvision():
    """Import torchvision; beside a CPU build of torch its PyPI wheel lacks two operators, so declare them first."""
    pytest.importorskip("torch")
    try:
        import torchvision
    except RuntimeError:
        from torch import library

        for name in ("nms", "qnms"):
            library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision
