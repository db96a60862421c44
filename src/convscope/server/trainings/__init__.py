"""Trainings: child processes that train, their events, and the commands they take."""
