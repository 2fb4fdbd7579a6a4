"""The stages in a row: load → analyse → score → allocate → plan → compensate → rewrite → verify → save → report."""
