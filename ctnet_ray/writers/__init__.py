"""From raw logs, or a made-up world, to sample days in a store. Nothing here knows torch."""
