"""Aligned training in the trainers that people use; each file needs its trainer, nothing here does.

`labeltrace.plugins.timm`, `.torchvision`, `.lightning`, `.transformers`, `.accelerate`: import the
one that you train with.
"""
