"""Two years of daily jobs, with what happens in two years."""
