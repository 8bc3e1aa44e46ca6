"""Command line interface: parse flags, call one library function, print the result."""
