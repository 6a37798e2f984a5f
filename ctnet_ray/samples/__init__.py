"""Sample days: the store, what is read of them in which order, the stream that brings it. No torch here."""
