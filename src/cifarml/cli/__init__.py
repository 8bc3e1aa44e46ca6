"""The command line: parses flags, calls one library function, prints."""
