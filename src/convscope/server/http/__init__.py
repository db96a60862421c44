"""HTTP: access control, sockets and connections, the built page, and the base class of every message."""
