"""HTTP: who may ask, where the server listens, the built page, and the base of every message."""
