"""How fast and how well the presets train, beside the article's network and PyTorch; see docs/benchmarks.md.

What they take is set in the environment, so that they can be run in parts: CIFARML_BENCHMARK_SEEDS (0,1,2),
and, to try them out, CIFARML_BENCHMARK_EPOCHS (30): the article's epochs whose time is the budget.
"""
