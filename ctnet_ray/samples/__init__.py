"""Sample days: store, encoding, writers, stream."""
