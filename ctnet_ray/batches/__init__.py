"""From folded samples to the tensors that models read."""
