"""Traces: forward passes for the page, a cache of the newest, and their arrays as small pictures."""
