"""Latency of served models at rising load, beside the same models behind a plain FastAPI server."""
