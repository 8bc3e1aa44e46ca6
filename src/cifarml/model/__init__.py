"""The networks, one file per preset."""
