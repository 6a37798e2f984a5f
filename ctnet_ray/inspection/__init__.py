"""A look at a sample store before anything is trained on it: `jobs.inspect`."""
