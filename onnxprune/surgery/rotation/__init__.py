"""Rotate, then cut: where only linear maps touch a width, any basis may be cut, not just the given one."""
