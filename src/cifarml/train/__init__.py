"""Training, from a dataset to a run folder."""
