"""Plain torch: the step, the loop, optimisers, sharding, metrics, checkpoints."""
