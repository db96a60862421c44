"""The explorer's server: a FastAPI application over convscope's own functions, loopback only, closed by default."""
