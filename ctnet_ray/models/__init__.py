"""Torch modules: towers, adapters, CTNet."""
