"""Traces: forward passes for the page, their arrays as small pictures, and the newest ones kept."""
