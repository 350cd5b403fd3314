"""Modules that a planted run preloads into its scheduler or its workers; see `tests.chaos.plants`."""
