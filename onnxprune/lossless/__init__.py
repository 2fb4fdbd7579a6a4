"""Removing what cannot change the output: channels that are constant, that nobody reads, or that others copy.

`facts` say what is known of every channel of a value whatever the input: its bounds, and which channels are multiples
of each other.  `propagate` carries them through the network, an operator at a time; `inside` through the bodies of
If, Loop and Scan, whose nodes `nested` puts beside those of the main graph.
`conditions` asks every reader which channels it can do without, `change` lets it do without them, and `fixpoint`
repeats that until nothing more can go.
"""

from onnxprune.lossless.fixpoint import KINDS, Redundancy, redundancy

__all__ = ["KINDS", "Redundancy", "redundancy"]
