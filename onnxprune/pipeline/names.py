"""What a request can choose from, by name: told without loading what does it, which takes seconds."""

ALLOCATIONS = ("uniform", "global", "sensitivity")  # `onnxprune.budget.ALLOCATORS`
COMPENSATIONS = ("none", "merge", "mean", "ridge", "fold", "lstsq")  # `onnxprune.surgery.compensate`
# `onnxprune.criteria.METHODS`
METHODS = ("ncc", "cshe", "apssf", "spectral", "msvfp", "l1", "l2", "fpgm", "bn", "obs", "random")
SHARES = ("top1", "top5", "agreement")  # metrics from 0 to 1, of which a drop is a share
