"""Calibration and test data from files, folders, scripts or Python, in batches that a model takes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import FileError, UsageError
from onnxprune.runtime import readers
from onnxprune.runtime.batches import (
    Batch,
    Dataset,
    Piece,
    Roles,
    Rows,
    assign,
    evenly,
    first_samples,
    fitted,
    fixed_batch,
    picked,
    pieces,
    regrouped,
    states_of,
)
from onnxprune.runtime.fit import Options, read_options
from onnxprune.runtime.images import SUFFIXES, find_images, read_images
from onnxprune.runtime.inputs import listing
from onnxprune.runtime.items import named, reader_of
from onnxprune.runtime.readers import Arrays, FileReader, Header
from onnxprune.runtime.script import blaming, load_function, split_script
from onnxprune.runtime.specs import Spec, nbytes

# A batch that is not asked for: this many bytes of input, since what a network computes on the way is many
# times that (VGG-16: 40 times), and no more samples than this.
COMFORT = 4 << 20
MOST = 64


def open_data(
    source: Any,
    specs: Sequence[Spec],
    *,
    batch: int | None = None,
    mean: str | float | Sequence[float] | None = None,
    std: str | float | Sequence[float] | None = None,
    resize: str | int | Sequence[int] | None = None,
    layout: str | None = None,
    limit: int | None = None,
) -> Dataset:
    """Open calibration data for a model with inputs `specs`.

    `source` is a path (npz, npy, a folder of them, a folder of images with a sub-folder per class,
    `input_*.pb` sets, polygraphy JSON, `script.py[:load_data]`), arrays or an iterable of them (see
    `items.reader_of`), an object with `get_next()`, or a function that returns an iterable. `labels` beside the
    inputs are labels. `mean`, `std`, `resize`, `layout`: see `Options`. `limit`: at most that many samples, evenly
    spread over the data where its length is known, else the first ones.

    Raises `UsageError` when names, shapes or types do not fit, saying what the model takes and what was
    found; `FileError` for files.
    """
    if not specs:
        raise UsageError("the model has no inputs, so there is nothing that data could be fed to")
    options = read_options(mean, std, resize, layout)
    reader = _reader(source, specs, options)
    headers = reader.headers or _peek(reader)
    roles = assign(specs, headers, reader.origin)
    fixed, rows = fixed_batch(roles), _spread(reader, limit)
    samples = None if reader.whole else reader.count if rows is None else len(rows)
    if samples is not None and samples < (fixed or 1):
        raise UsageError(f"the model takes batches of {fixed}, but {reader.origin} has {samples} samples")
    generate = _batches(reader, _pieces(reader, roles, headers, options), rows, fixed, limit)
    size, unit = fixed or batch or _comfortable(roles, headers), fixed or 1
    notes = _notes(reader, options, roles, headers, fixed)
    whole = None if samples is None else samples // unit * unit
    finite = reader.image or all(headers[name].dtype.kind in "iub" for name in roles.inputs.values())
    return Dataset(whole, roles.labels is not None, size, notes, unit, reader.folders, finite, generate)


def _batches(
    reader: FileReader, to_pieces: Callable[[Arrays], Iterable[Piece]], rows: Rows, fixed: int | None, limit: int | None
) -> Callable[[int, Rows], Iterator[Batch]]:
    """What gives batches of a size, of all samples that are read or of some of them."""

    def generate(size: int, some: Rows) -> Iterator[Batch]:
        if reader.whole:  # where a sample stands in a feed is known when the feed is there
            found = picked(first_samples(chain.from_iterable(map(to_pieces, reader.chunks(rows, size))), limit), some)
        else:
            places = rows if some is None else some if rows is None else rows[some]
            found = first_samples(chain.from_iterable(map(to_pieces, reader.chunks(places, fixed or size))), limit)
        return regrouped(found, fixed or size, exact=fixed is not None)

    return generate


def _pieces(
    reader: FileReader, roles: Roles, headers: Mapping[str, Header], options: Options
) -> Callable[[Arrays], Iterable[Piece]]:
    """The function that makes what the reader gives fit; what cannot fit is refused now, not at the first batch."""
    steps = fitted(roles, headers, options, image=reader.image)

    def own(chunk: Arrays) -> Iterable[Piece]:
        found = {n: Header(a.shape, a.dtype) for n, a in chunk.items()}
        parts = assign(roles.specs, found, reader.origin)
        return pieces(chunk, parts, fitted(parts, found, options, image=False))

    # Feeds of their own may differ in shape from one to the next.
    return own if reader.whole else partial(pieces, roles=roles, steps=steps)


def _spread(reader: FileReader, limit: int | None) -> np.ndarray | None:
    """`limit` positions evenly over all samples, since data is often sorted by class; None for all of them."""
    if limit is None or reader.count is None or limit >= reader.count:
        return None
    if limit < 1:
        raise UsageError(f"a limit of {limit} leaves no data")
    return evenly(reader.count, limit)


def _comfortable(roles: Roles, headers: Mapping[str, Header]) -> int:
    """A batch for `COMFORT` bytes of input."""
    shapes = {s: headers[roles.inputs[s.name]].shape for s in roles.specs}
    if any(s.name in roles.constant and shape for s, shape in shapes.items()):
        return 1
    needed = sum(nbytes(shape[1:], s.dtype) for s, shape in shapes.items())
    return max(1, min(MOST, COMFORT // max(1, needed)))


def _notes(
    reader: FileReader, options: Options, roles: Roles, headers: Mapping[str, Header], fixed: int | None
) -> tuple[str, ...]:
    """What the user should know about how the data is used."""
    extra = sorted(headers.keys() - set(roles.inputs.values()) - {roles.labels})
    left = (reader.count or 0) % fixed if fixed and not reader.whole else 0
    notes = (
        (reader.image and not options.normalises, "images are scaled to 0 to 1; --mean and --std change that"),
        (bool(extra), f"not used: {', '.join(extra)}"),
        (bool(left), f"the last {left} samples are left out, as the model takes batches of {fixed}"),
    )
    return tuple(text for applies, text in notes if applies)


def _reader(source: Any, specs: Sequence[Spec], options: Options) -> FileReader:
    """The reader for what `source` is."""
    if isinstance(source, (str, Path)):
        try:
            return _path_reader(str(source), specs, options)
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            raise FileError(f"cannot read {source}: {error.strerror or error}") from error
    if (reader := reader_of(source, specs)) is None:
        raise UsageError(f"data of type {type(source).__name__} is not understood; give a path, arrays or an iterable")
    return reader


def _path_reader(text: str, specs: Sequence[Spec], options: Options) -> FileReader:
    path = Path(text)
    if path.is_dir():
        return _folder_reader(path, specs, options)
    if split_script(text, "load_data")[0].suffix == ".py":
        return readers.read_feeds(
            named(partial(_from_script, text, load_function(text, default="load_data")), specs), text
        )
    if not path.is_file():
        raise FileError(f"{path} is neither a file nor a folder")
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return read_images([path], None, _image_input(specs), options)
    if suffix == ".pb":
        return readers.read_protobufs([path.parent], [s.name for s in specs])
    known: dict[str, Callable[[Path], FileReader]] = {
        ".npz": partial(readers.read_npz, states=_states(specs)),
        ".npy": readers.read_npy,
        ".json": readers.read_json,
    }
    if suffix not in known:
        raise UsageError(f"{path} is no kind of data that is known ({FORMS})")
    return known[suffix](path)


def _from_script(name: str, function: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """What the user's function gives; an error of theirs is told apart from one of whoever takes it."""
    with blaming(name):
        items = iter(function())
    end = object()
    while True:
        with blaming(name):
            item = next(items, end)
        if item is end:
            return
        yield item


FORMS = "npz, npy, json, script.py, a folder of npz, of images or of input_*.pb"


def _folder_reader(path: Path, specs: Sequence[Spec], options: Options) -> FileReader:
    """The reader for a folder, by what is in it."""
    try:
        content = sorted(path.iterdir())
        sets = [path] if list(path.glob("input_*.pb")) else [p for p in content if list(p.glob("input_*.pb"))]
        arrays = [p for suffix in (".npz", ".npy") for p in content if p.suffix == suffix]
        images, classes = find_images(path) if not sets and not arrays else ([], None)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    if sets:
        return readers.read_protobufs(sets, [s.name for s in specs])
    if arrays:
        return readers.read_folder([p for p in arrays if p.suffix == arrays[0].suffix], _states(specs))
    if images:
        return read_images(images, classes, _image_input(specs), options)
    raise UsageError(f"{path} holds no data that is known ({FORMS})")


def _states(specs: Sequence[Spec]) -> list[Spec]:
    names = states_of(specs)
    return [s for s in specs if s.name in names]


def _image_input(specs: Sequence[Spec]) -> Spec:
    if len(specs) != 1:
        raise UsageError(f"images go with a model of one input; this one has {listing(specs)}")
    return specs[0]


def _peek(reader: FileReader) -> dict[str, Header]:
    """Shapes and types of the first feed."""
    first = next(reader.chunks(None, 1), None)
    if first is None:
        raise UsageError(f"{reader.origin} gives no data")
    return {name: Header(array.shape, array.dtype) for name, array in first.items()}
