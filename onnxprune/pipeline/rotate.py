"""Before channels are chosen: widths that only linear maps touch are brought into the basis in which they cut best."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.channels.arithmetic import centred
from onnxprune.channels.dependencies import Dependencies
from onnxprune.channels.explain import nodes_by_name
from onnxprune.errors import ModelError
from onnxprune.model.network import Network
from onnxprune.operators.registry import Trait, has
from onnxprune.pipeline.calibration import Samples
from onnxprune.pipeline.repair import needs_samples, one_thread
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.study import Study
from onnxprune.pipeline.whole_groups import check_patterns, excluded
from onnxprune.report.words import listed
from onnxprune.runtime.prove import prove
from onnxprune.surgery.rotation.heads import attention_sites
from onnxprune.surgery.rotation.moments import bases
from onnxprune.surgery.rotation.shared import apart, join, shared, together
from onnxprune.surgery.rotation.sites import Graph, RotationSite
from onnxprune.surgery.rotation.streams import stream_sites
from onnxprune.surgery.rotation.turn import Rotation, levelled, name_of, rotated, rotation_of

NOT_EQUAL = "the rotated network is not the original"


@dataclass(frozen=True)
class Rotatable:
    """A network as it is before it is rotated, and the widths of it that can be.

    unrotated: the network as it came.
    means: those of the widths there that norms take the mean from.
    graph: the same network in which these are made without a mean, and norms take none away.
    heads: how attention is cut.
    copies: tensors that several nodes share are apart in all of these; what each copy is of.
    """

    unrotated: Graph
    means: tuple[RotationSite, ...]
    graph: Graph
    sites: tuple[RotationSite, ...] = ()
    heads: str = "auto"
    copies: Mapping[str, str] = field(default_factory=dict)

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the widths that could not be cut at all as they are, whatever the user says of them."""
        return frozenset(map(name_of, self.means))

    def rotated(self, rotation: Rotation) -> Network:
        """The network with some widths in other bases; of the others, norms are as they were."""
        means = [s for s in self.means if name_of(s) in rotation.bases]
        whole = len(means) == len(self.means)
        graph = self.graph if whole else replace(self.unrotated, network=levelled(self.unrotated, means))
        return together(rotated(graph, self.sites, rotation), self.copies)


def rotatable(run: Run) -> Rotatable:
    """The widths that can be rotated.

    Those of heads can where every head loses the same share.  That is chosen where the user leaves it open, unless
    layers can lose whole heads that cannot lose such a share, or not in a basis of their own.

    No matrix is to stand in the file twice: where nodes that share one would need other elements, they go on sharing.
    """
    found = _rotatable(run, vectors=False)
    one = join(found.unrotated, found.means, found.copies) and join(found.graph, found.sites, found.copies)
    return found if one else _rotatable(run, vectors=True)


def _rotatable(run: Run, vectors: bool) -> Rotatable:
    """The same, with copies of what nodes share, or of vectors alone."""
    own, copies = _apart(run.original, vectors)
    whole, (unrotated, means, own) = run.request.heads != "dims", _level(own)
    graph = Graph(own.network, own.deps)
    found = Rotatable(unrotated, means, graph, tuple(stream_sites(graph)), run.request.heads, copies)
    if whole and (run.request.heads != "auto" or not _attends(own.deps)):
        return found
    deps = own.reanalysed(own.network, replace(run.request, heads="dims")).deps if whole else own.deps
    graph = Graph(own.network, deps)
    heads = attention_sites(graph)
    if not heads or (whole and not _covered(own.deps, deps, {s.group for s in heads})):
        return found
    return replace(found, graph=graph, sites=(*heads, *stream_sites(graph)), heads="dims")


@dataclass(frozen=True)
class Outlook:
    """What a look at a network should take it for: as it is cut where the repair runs.

    deps: the analysis in which widths that are cut in another basis are groups like others.
    rotated: names of these groups.
    notes: what is to be said of them.
    """

    deps: Dependencies
    rotated: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def knowing(self, *names: str, otherwise: Dependencies) -> Dependencies:
        """The analysis, where it has nodes of these names; norms that take no mean away are written otherwise."""
        return self.deps if nodes_by_name(self.deps).keys() >= set(names) else otherwise


def outlook(run: Run) -> Outlook:
    """The groups that `prune` cuts by default, in the basis that the repair measures for some."""
    found = rotatable(run)
    if not found.sites:
        return Outlook(run.original.deps)
    names = listed([name_of(s) for s in found.means or found.sites], 3)
    norms = "; norms do not keep them whole then, and --thaw is for a cut without a repair" if found.means else ""
    note = f"where the repair runs, widths that only linear maps touch, {names}, are cut in another basis{norms}"
    return Outlook(found.graph.deps, frozenset(s.group for s in found.sites), (note,))


def _apart(own: Study, vectors: bool) -> tuple[Study, Mapping[str, str]]:
    """A network whose nodes have tensors of their own where they may need them, as far as the same channels couple."""
    graph = Graph(own.network, own.deps)
    for keys in dict.fromkeys(tuple(shared(graph, only)) for only in (vectors, True)):
        if keys:
            network, copies = apart(graph, keys)
            other = own.reanalysed(network)
            if _names(other.deps) == _names(own.deps):
                return other, copies
    return own, {}


def _names(deps: Dependencies) -> set[tuple[str, int]]:
    return {(g.name, len(g)) for g in deps.groups}


def _level(own: Study) -> tuple[Graph, tuple[RotationSite, ...], Study]:
    """A network, its streams that norms take the mean from, and the network with these made without one.

    Such a stream is frozen as long as its norms take a mean; whether it is one shows where statistics are thawed.
    """
    unrotated = Graph(own.network, own.deps)
    if not any(has(node.proto, Trait.CENTRES) for node in own.deps.nodes) and not any(centred(own.graph.graph)):
        return unrotated, (), own
    thawed = own if own.request.thaw else own.reanalysed(own.network, replace(own.request, thaw=True))
    sites = tuple(s for s in stream_sites(Graph(own.network, thawed.deps)) if s.level)
    while sites:
        other = own.reanalysed(levelled(unrotated, sites))
        names = {name_of(s) for s in stream_sites(Graph(other.network, other.deps))}
        if all(name_of(s) in names for s in sites):
            return unrotated, sites, other
        sites = tuple(s for s in sites if name_of(s) in names)
    return unrotated, (), own


def _attends(deps: Dependencies) -> bool:
    """Whether there is an attention: in one node, or a product without weights, as all that are written out have."""
    if any(has(node.proto, Trait.ATTENDS) for node in deps.nodes):
        return True
    products = (node for node in deps.nodes if has(node.proto, Trait.LINEAR))
    return any(not any(key in deps.sources for key in node.inputs) for node in products)


def _covered(whole: Dependencies, dims: Dependencies, turned: Collection[str]) -> bool:
    """Whether all that whole heads can be cut of can lose a share of every head, in a basis of its own."""
    before = {(g.name, len(g)) for g in whole.groups}
    one, two = ({(s.source, s.axis) for g in deps.groups for s in g.slots} for deps in (whole, dims))
    new = [g for g in dims.groups if (g.name, len(g)) not in before]
    return one <= two and all(g.name in turned and len(g) > 1 for g in new)


@dataclass(frozen=True)
class Rotated:
    """How a network was rotated for the cut; nothing where it was not.

    found: the network before that, with the widths that were rotated.
    energy: of the channels of each group that was, (channels,).
    """

    found: Rotatable | None = None
    energy: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def ranked(self) -> Mapping[str, np.ndarray]:
        """The energy where not only layers with weights read the channels, so that nothing else tells their worth."""
        sites = self.found.sites if self.found else ()
        return {s.group: self.energy[s.group] for s in sites if s.read is not None or s.norms}


def rotate(run: Run, samples: Samples) -> tuple[Run, Rotated]:
    """The run with the network in the bases in which it cuts best, and how it came there.

    That is done where a repair on samples is to follow.  The rotated network is proven to be the original.
    """
    request = run.request
    if request.method != "obs" or not needs_samples(request.compensate) or request.steps:
        return run, Rotated()
    return in_best_bases(run, samples)


def in_best_bases(run: Run, samples: Samples) -> tuple[Run, Rotated]:
    """The same, whatever is to follow."""
    found = rotatable(run)
    if found.sites:
        check_patterns(found.graph.deps, run.request)  # before the work
    left = excluded(found.graph.deps, run.request)
    sites = tuple(s for s in found.sites if s.group not in left or name_of(s) in found.frozen)
    if not sites:
        return run, Rotated()
    try:
        with run.log.stage("choose channels"), one_thread():
            made = bases(found.graph, sites, samples().feeds, run.log.progress)
    except ModelError:
        if run.split.fit is not None:
            raise
        return run, Rotated()  # nothing to be measured on, which the choice will tell
    found = replace(found, sites=sites)
    turned = turn(run, found, rotation_of(sites, made))
    if turned is None:
        return run, Rotated()
    deps = turned.original.deps
    energy = {s.group: np.zeros(len(deps.group(s.group))) for s in sites}
    for site, basis in zip(sites, made, strict=True):
        energy[site.group][site.channels] += basis.energy.sum(axis=0)
    return turned, Rotated(found, energy)


def turn(run: Run, found: Rotatable, rotation: Rotation) -> Run | None:
    """The run with the rotated network; None where that does not give what the original gives."""
    model = found.rotated(rotation)
    if run.request.verify and not prove(run.original.network, model, run.stimuli()).passed:
        run.log.warnings.append(f"nothing was rotated: {NOT_EQUAL} up to rounding")
        return None
    request = replace(run.request, heads=found.heads)
    original = run.original.reanalysed(model, request)
    return replace(run, request=request, original=original, rotation=rotation, unrotated=run.original)


def undo_unused(run: Run, turned: Rotated, kept: Collection[str]) -> Run:
    """The run with what has lost nothing turned back."""
    found = turned.found
    if found is None:
        return run
    stay = {name_of(s) for s in found.sites if s.group in kept}
    rotation = Rotation({name: a for name, a in run.rotation.bases.items() if name in stay})
    model, same = found.rotated(rotation), found.frozen <= stay and not found.copies
    if stay:
        run.log.notes.append(f"{len(stay)} widths that only linear maps touch were rotated before they were cut")
    original = run.original.with_network(model) if same else run.original.reanalysed(model)
    return replace(run, original=original, rotation=rotation)
