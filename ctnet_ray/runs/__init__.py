"""What a continual run is, as plain data: its plan, before anything runs, and what it writes down of itself."""
