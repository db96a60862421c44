"""Probes: which questions can be asked, asking them, and the answers that are kept."""
