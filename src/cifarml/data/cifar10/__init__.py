"""Download and reading of the official CIFAR-10 archives."""
