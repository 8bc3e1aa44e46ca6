"""Endpoints under load: ours, the article's, and peers that serve the same model with the same code."""
