"""The model, inputs and labels of the paper's official implementation (DeiT), in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

OFFICIAL = Path(__file__).parent / "vectors" / "tl_align_vit.safetensors"


def official() -> tuple[VisionTransformer, dict[str, Tensor]]:
    with safe_open(OFFICIAL, framework="pt") as file:
        settings: dict[str, Any] = {name: int(value) for name, value in file.metadata().items()}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = VisionTransformer(**settings)
    prefix = "model."
    model.load_state_dict(
        {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    )
    return model.eval(), tensors
