"""Measurements against peers, side by side in one run: one script per operator, named as its module in `kernels`. README.md says how."""
