"""Measurements of the engine, alone or beside its peers; see `python -m tests.benchmarks --help`."""
