"""Curves of cost against size: see `__main__`."""
