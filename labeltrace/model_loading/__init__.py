"""Load a model by its name: a timm name, or `package.module:factory`."""

from labeltrace.model_loading.load import load_model, load_or_random
from labeltrace.model_loading.loaded_model import LoadedModel

__all__ = ["LoadedModel", "load_model", "load_or_random"]
