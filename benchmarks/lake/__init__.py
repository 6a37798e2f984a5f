"""Preparing a log of a lake's size, beside scripts in pandas and Polars: see `__main__`."""
