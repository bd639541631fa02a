"""Measurements, side by side with peers, one script for each thing measured: `python -m benchmarks.NAME --help`."""
