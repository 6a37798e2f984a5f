"""Continual transfer learning of click-through-rate models on Ray."""

__version__ = "0.1.0"
