"""Checking: compare a user's function with the reference, name its mistake, and show its first wrong cell as sums.

Every known mistake is a variant of the reference that is run on the same cases. A cause is named only if its variant
gives the numbers that the function gave.
"""
