"""Shoal beside dockerd: the same client calls, in turn, in one run on one machine.

`python -m bench` prints a table of both with the ratio and writes it to bench/results/.
"""
