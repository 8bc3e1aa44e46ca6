"""Server process of a local endpoint."""
