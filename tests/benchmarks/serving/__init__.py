"""Load tests of endpoints: cifarml's, the article's, and peers that serve the same model."""
