"""The commands: `dscheduler`, `dworker`, `dcluster`. Lines for people go to stdout, complaints to stderr."""
