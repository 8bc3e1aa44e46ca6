"""Benchmarks that print tables; see docs/benchmarks.md."""
