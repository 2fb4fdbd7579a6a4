"""The methods by name: what each does, what it needs, where it comes from and what can be set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from onnxprune.criteria import rules, score
from onnxprune.criteria.filters import Filters, Floats, Indices
from onnxprune.criteria.hyperparameters import Hyperparameter, options_of, with_options
from onnxprune.criteria.msvfp import Msvfp
from onnxprune.criteria.ranking import Ranking, dead_first
from onnxprune.errors import UsageError

Need = Literal["weights", "scales", "images", "labels"]


@dataclass(frozen=True)
class Method:
    """A way to choose the channels of a group that stay.

    rule: a frozen dataclass of hyper-parameters that maps filters (and evidence) to a `Ranking`.
    needs: "weights"; "scales", unfused BatchNormalizations; "images", calibration data whose feature maps give the
        evidence; "labels", for a loss over the whole network (`criteria.msvfp.search`).
    alone: whether a filter is ranked by itself; else n filters are compared in pairs, which takes n² numbers.
    """

    name: str
    rule: Callable[[Filters, Floats | None], Ranking]
    needs: tuple[Need, ...]
    summary: str
    source: str
    alone: bool = False

    @property
    def options(self) -> tuple[Hyperparameter, ...]:
        """The hyper-parameters with their defaults; those not `published` are readings of our own."""
        return options_of(self.rule)

    def with_options(self, values: Mapping[str, Any]) -> "Method":
        """This method with other hyper-parameters. Raises `UsageError` for unknown names and unfit values."""
        return replace(self, rule=with_options(self.rule, self.name, values))

    def lacks(self, filters: Filters, evidence: Floats | None = None) -> str | None:
        """Why this group cannot be ranked, in one line; None where it can."""
        if "scales" in self.needs and not filters.scales:
            return (
                f"'{self.name}' needs an unfused BatchNormalization behind the layer; 'l2' and 'ncc' need weights only"
            )
        if "images" in self.needs and evidence is None:
            return f"'{self.name}' needs calibration images (--data); 'ncc' and 'l2' need weights only"
        if evidence is not None and (np.shape(evidence) != (filters.channels,) or not np.isfinite(evidence).all()):
            return f"evidence wants {filters.channels} finite numbers, one per channel, not shape {np.shape(evidence)}"
        return None

    def rank(self, filters: Filters, evidence: Floats | None = None) -> Ranking:
        """Compare the channels of a group, once for all counts; filters that are all zero leave before any other.

        evidence: `(channels,)` importances, for the methods that need images. Raises `UsageError` where the method
        `lacks` something and `ModelError` for NaN or infinite weights.
        """
        if reason := self.lacks(filters, evidence):
            raise UsageError(reason)
        floor = float(getattr(self.rule, "floor", 0.0))
        return dead_first(
            filters, lambda some, which: self.rule(some, None if evidence is None else evidence[which]), floor
        )

    def select(self, filters: Filters, count: int, evidence: Floats | None = None) -> Indices:
        """The `count` channels that stay, sorted; all of them without a look where all stay."""
        if count == filters.channels:
            return np.arange(count)
        return self.rank(filters, evidence).keep(count)

    def select_by_threshold(self, filters: Filters, threshold: float) -> Indices:
        """The channels that stay when each one removed is at least this similar to one that stays, sorted.

        Raises `UsageError` for a method without a similarity from −1 to 1 and for a threshold outside it.
        """
        if not -1 <= threshold <= 1:
            raise UsageError(f"a similarity threshold is from -1 to 1, not {threshold}")
        find = self.rank(filters).duplicates if "images" not in self.needs else None
        if find is None:
            raise UsageError(f"'{self.name}' has no similarity that a threshold could be set on: use --method ncc")
        return find(threshold)


METHODS: dict[str, Method] = {
    row.name: row
    for row in (
        Method(
            "ncc",
            rules.Ncc(),
            ("weights",),
            "clusters of filters by normalised cross-correlation; of each the largest stays",
            "Khan and Rafat, J. Information and Telecommunication 9(2), 2025, doi 10.1080/24751839.2024.2415008",
        ),
        Method(
            "cshe",
            rules.Cshe(),
            ("weights", "images"),
            "k-means clusters of filters; in each those whose feature maps have the largest eigenvalues stay",
            "Shao et al., Int. J. Machine Learning and Cybernetics 13, 2022, doi 10.1007/s13042-021-01411-8",
        ),
        Method(
            "apssf",
            rules.Apssf(),
            ("weights",),
            "clusters by spatial superposition and channel profile, the threshold set by the ratio; each is thinned",
            "Geng and Niu, Int. J. Computational Intelligence Systems 17, 2024, doi 10.1007/s44196-024-00518-4",
        ),
        Method(
            "spectral",
            rules.Spectral(),
            ("weights",),
            "spectral clusters of a Gaussian similarity graph; of each the filter nearest the mean stays",
            "Li, Zhu and Sun, IEICE Trans. Inf. & Syst. E102-D(12), 2019, doi 10.1587/transinf.2019EDL8118",
        ),
        Method(
            "msvfp",
            Msvfp(),
            ("weights", "labels"),
            "magnitude, then similarity; each step thins the layer whose trial loses least",
            "Ghimire and Kim, Applied Sciences 13(1):316, 2023, doi 10.3390/app13010316",
        ),
        Method(
            "l1",
            rules.Scored(score.l1),
            ("weights",),
            "largest sum of absolute weights",
            "Li et al., Pruning filters for efficient ConvNets, ICLR 2017, arXiv 1608.08710",
            alone=True,
        ),
        Method(
            "l2",
            rules.Scored(score.l2),
            ("weights",),
            "largest Euclidean norm over all weights that write a channel",
            "He et al., Soft filter pruning, IJCAI 2018, arXiv 1808.06866",
            alone=True,
        ),
        Method(
            "fpgm",
            rules.Scored(score.fpgm),
            ("weights",),
            "largest sum of distances to the other filters (away from the geometric median)",
            "He et al., CVPR 2019, arXiv 1811.00250",
        ),
        Method(
            "bn",
            rules.Scored(score.bn),
            ("scales",),
            "largest scale |γ| of an unfused BatchNormalization",
            "Liu et al., Network slimming, ICCV 2017, arXiv 1708.06519",
            alone=True,
        ),
        Method(
            "obs",
            rules.Obs(),
            ("weights", "images"),
            "those stay without which the layers that read them can least be solved again; draws samples if given none",
            "after Hassibi and Stork, Optimal brain surgeon, NeurIPS 1992, block-wise",
            alone=True,
        ),
        Method("random", rules.Random(), ("weights",), "channels drawn by seed, to compare with", "none", alone=True),
    )
}


def method(name: str, **options: Any) -> Method:
    """The method of this name with these options.

    Raises `UsageError` for a name that is not in `METHODS`, for unknown options and for values that do not fit.
    """
    if name not in METHODS:
        raise UsageError(f"there is no method '{name}'; there are {', '.join(METHODS)}")
    return METHODS[name].with_options(options)
