"""Pictures as `data:` addresses, so that a page holds them itself."""

from __future__ import annotations

import base64
import io

from PIL import Image
from torch import Tensor

from labeltrace.photographs import Photograph
from labeltrace.report.schema import Picture

QUALITY = 88
LONGEST_SIDE = 512  # pixels: what a page shows of an image


def picture(photograph: Photograph) -> Picture:
    """A photograph for the page."""
    return Picture(photograph.name, address(photograph.pixels))


def address(pixels: Tensor) -> str:
    """Pixels (3, H, W) in [0, 1] as a JPEG file."""
    image = Image.fromarray(pixels.mul(255).round().byte().permute(1, 2, 0).cpu().numpy())
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
