"""Comparisons that print a table; see docs/benchmarks.md."""
