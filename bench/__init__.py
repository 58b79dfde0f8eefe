"""Timings against the peers, all in one run on one machine: `make bench`."""
