"""Figures, measured: ``python -m benchmarks`` lists them."""
