"""The same model trained with this project and with others: `python -m benchmarks.peers`."""
