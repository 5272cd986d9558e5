"""Pictures as `data:` URLs, which are part of the page."""

from __future__ import annotations

import base64
import io

from PIL import Image
from torch import Tensor

from labeltrace.photographs import Photograph
from labeltrace.report.schema import Picture

QUALITY = 88
MAX_SIDE = 512  # pixels of an image on the page


def encode_photograph(photograph: Photograph) -> Picture:
    """A photograph as a picture of the page."""
    return Picture(photograph.name, data_url(photograph.pixels))


def data_url(pixels: Tensor) -> str:
    """Pixels (3, H, W) in [0, 1] as the `data:` URL of a JPEG file."""
    image = Image.fromarray(pixels.mul(255).round().byte().permute(1, 2, 0).cpu().numpy())
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
