"""Rules for reading labels and splits from file and folder names."""
