"""Fuzzing: random and damaged models through the whole command.  `python tests/fuzz/run.py --help` for long runs."""
