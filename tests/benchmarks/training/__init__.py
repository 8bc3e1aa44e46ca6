"""Speed and accuracy of the presets, against the article's network and PyTorch; see docs/benchmarks.md.

Environment variables limit them: CIFARML_BENCHMARK_SEEDS (0,1,2), to run them in parts, and, to try them out,
CIFARML_BENCHMARK_EPOCHS (30), the number of epochs of the article's network, whose duration is the budget.
"""
