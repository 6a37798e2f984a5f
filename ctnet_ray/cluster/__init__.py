"""Ray: worker groups that walk plans, the board that says who walks what, and what the driver shows of it."""
