"""What is going to be done: a configuration becomes a plan, a comparison the plans of its runs."""
