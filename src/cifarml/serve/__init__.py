"""The server process of a local endpoint."""
