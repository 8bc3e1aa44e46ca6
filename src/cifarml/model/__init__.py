"""Network architectures and hyperparameters of the presets."""
