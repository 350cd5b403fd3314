"""The commands: `dscheduler`, `dworker`, `dcluster`. Lines for people go to stdout, complaints in one line to stderr."""
