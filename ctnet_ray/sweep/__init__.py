"""Sweeps with Ray Tune: where adapters sit, how they gate, and whatever else a configuration can say."""
