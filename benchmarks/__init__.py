"""Measurements of hubpin beside its peers; `python -m benchmarks` runs them."""
