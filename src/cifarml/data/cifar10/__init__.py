"""The official CIFAR-10 archives."""
