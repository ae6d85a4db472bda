"""Trainings on disk: the folder of a run, its network, and what fits to what."""
