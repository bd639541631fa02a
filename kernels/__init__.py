"""Operators of the network and its training; knows nothing of alexnet."""
