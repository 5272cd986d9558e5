"""Aligned training in other trainers: one module for each.

Import the module for your trainer: `labeltrace.plugins.timm`, `.torchvision`, `.lightning`,
`.transformers` or `.accelerate`. Each needs its trainer to be installed; this package does not.
"""
