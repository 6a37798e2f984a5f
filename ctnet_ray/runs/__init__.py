"""A continual run as plain data: its plan, before anything runs, and what it writes down of itself."""
