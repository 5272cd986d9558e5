"""All Python state that a model's forward depends on or changes: a key, snapshots, differences."""
