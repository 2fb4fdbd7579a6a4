"""Calibration data in every form: the same samples come out, in batches, or an error says what does not fit."""

import base64
import io
import json
import tracemalloc

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from runtime_models import SHARED, needs_data

from onnxprune.errors import FileError, UsageError
from onnxprune.runtime.data import open_data
from onnxprune.runtime.specs import Spec

RNG = np.random.default_rng(0)
X = RNG.standard_normal((10, 3, 4, 5)).astype(np.float32)
Y = np.arange(10) % 4
IMAGE = [Spec("x", TensorProto.FLOAT, ("N", 3, 4, 5))]
PAIR = [Spec("a", TensorProto.FLOAT, ("N", 3)), Spec("b", TensorProto.INT64, ("N",))]
STATE = [
    Spec("audio", TensorProto.FLOAT, (None, 8)),
    Spec("state", TensorProto.FLOAT, (2, None, 6)),
    Spec("sr", TensorProto.INT64, ()),
]


def gathered(dataset, name=None):
    """All samples of one input (the only one without a name) and the labels, put together again."""
    batches = list(dataset)
    name = name or next(iter(batches[0].feeds))
    labels = [b.labels for b in batches if b.labels is not None]
    return np.concatenate([b.feeds[name] for b in batches]), np.concatenate(labels) if labels else None


def feeds(step=1, array=X, name="x"):
    return [{name: array[i : i + step]} for i in range(0, len(array), step)]


# Every form gives the same


def as_npz(folder):
    np.savez(folder / "d.npz", x=X, labels=Y)
    return folder / "d.npz"


def as_packed_npz(folder):
    np.savez_compressed(folder / "d.npz", x=X, labels=Y)
    return folder / "d.npz"


def as_fortran_npz(folder):
    np.savez(folder / "d.npz", x=np.asfortranarray(X), labels=Y)
    return folder / "d.npz"


def as_npy(folder):
    np.save(folder / "d.npy", X)
    return folder / "d.npy"


def as_npz_folder(folder):
    for i in range(0, 10, 3):
        np.savez(folder / f"part{i}.npz", x=X[i : i + 3], labels=Y[i : i + 3])
    return folder


def as_npy_folder(folder):
    for i in range(0, 10, 4):
        np.save(folder / f"part{i}.npy", X[i : i + 4])
    return folder


def as_protobuf(folder):
    for i in range(10):
        (folder / f"test_data_set_{i}").mkdir()
        tensor = numpy_helper.from_array(X[i : i + 1], "x" if i % 2 else "")
        (folder / f"test_data_set_{i}" / "input_0.pb").write_bytes(tensor.SerializeToString())
        (folder / f"test_data_set_{i}" / "output_0.pb").write_bytes(b"not looked at")
    return folder


def encoded(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return {"array": base64.b64encode(stream.getvalue()).decode(), "polygraphy_class": "ndarray"}


def as_json(folder):
    (folder / "inputs.json").write_text(json.dumps([{"x": encoded(f["x"])} for f in feeds(2)]))
    return folder / "inputs.json"


SCRIPT = """
import numpy as np
from pathlib import Path
x = np.load(Path(__file__).parent / "x.npy")
def load_data():
    for i in range(0, 10, 2):
        yield {"x": x[i:i + 2], "labels": np.arange(i, i + 2) % 4}
def other():
    return [{"x": x}]
nothing = 3
def fails():
    raise RuntimeError("user's own")
"""


def as_script(folder):
    np.save(folder / "x.npy", X)
    (folder / "my data.py").write_text(SCRIPT)
    return folder / "my data.py"


def as_named_function(folder):
    return f"{as_script(folder)}:other"


class Reader:
    """What onnxruntime's calibration takes."""

    def __init__(self, items):
        self.items = iter(items)

    def get_next(self):
        return next(self.items, None)


def as_get_next(folder):
    return Reader(feeds(3))


def as_list(folder):
    return feeds(1)


def as_generator(folder):
    return (f for f in feeds(4))


def as_function(folder):
    return lambda: iter(feeds(5))


def as_dict(folder):
    return {"x": X, "labels": Y}


FORMS = [as_npz, as_packed_npz, as_fortran_npz, as_npy, as_npz_folder, as_npy_folder, as_protobuf, as_json]
FORMS += [as_script, as_named_function, as_get_next, as_list, as_generator, as_function, as_dict]
LABELLED = {as_npz, as_packed_npz, as_fortran_npz, as_npz_folder, as_script, as_dict}


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_every_form_gives_the_same_samples_twice(form, tmp_path):
    dataset = open_data(form(tmp_path), IMAGE, batch=4)
    for _ in range(2):
        found, labels = gathered(dataset)
        np.testing.assert_array_equal(found, X)
        assert dataset.has_labels == (form in LABELLED)
        if form in LABELLED:
            np.testing.assert_array_equal(labels, Y)
    assert [b.size for b in dataset] == [4, 4, 2]
    assert [b.size for b in dataset.batched(6)] == [6, 4]
    assert dataset.samples in (10, None)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_a_limit_is_held_in_every_form(form, tmp_path):
    for limit in (1, 3, 10, 99):
        found, labels = gathered(open_data(form(tmp_path / str(limit)), IMAGE, batch=2, limit=limit))
        assert len(found) == min(limit, 10)
        assert labels is None or len(labels) == len(found)


@pytest.fixture(autouse=True)
def folders(tmp_path):
    for limit in (1, 3, 10, 99):
        (tmp_path / str(limit)).mkdir() if "limit" in tmp_path.name else None


@pytest.mark.parametrize(
    "form", [as_npz, as_packed_npz, as_fortran_npz, as_npy, as_npz_folder], ids=lambda f: f.__name__
)
def test_a_limit_spreads_over_sorted_data(form, tmp_path):
    found, _ = gathered(open_data(form(tmp_path), IMAGE, batch=3, limit=5))
    np.testing.assert_array_equal(found, X[[1, 3, 5, 7, 9]])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_streamed(save, tmp_path):
    rows = 3000
    save(tmp_path / "big.npz", x=np.zeros((rows, 3, 32, 32), np.float32), labels=np.zeros(rows, np.int64))
    dataset = open_data(tmp_path / "big.npz", [Spec("x", 1, ("N", 3, 32, 32))], batch=16)
    tracemalloc.start()
    assert sum(b.size for b in dataset) == rows
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20  # of 37 MB


# What the model fixes


def test_a_model_of_a_fixed_batch_is_fed_in_its_pieces(tmp_path):
    for size, count in ((1, 10), (4, 2)):
        dataset = open_data(as_npz(tmp_path), [Spec("x", 1, (size, 3, 4, 5))], batch=7)
        assert [b.feeds["x"].shape[0] for b in dataset.batched(3)] == [size] * count
    assert "the last 2 samples" in dataset.notes[0]
    with pytest.raises(UsageError, match=r"batches of 16.*10 samples"):
        open_data(as_npz(tmp_path), [Spec("x", 1, (16, 3, 4, 5))])


def test_chosen_samples_fill_the_batches_of_the_model(tmp_path):
    dataset = open_data(as_npz(tmp_path), [Spec("x", 1, (2, 3, 4, 5))])
    some = dataset.chosen(np.array([1, 4, 5, 8, 9]))
    assert some.samples == 4
    np.testing.assert_array_equal(gathered(some)[0], X[[1, 4, 5, 8]])
    np.testing.assert_array_equal(gathered(some.chosen(np.array([0, 3])))[0], X[[1, 8]])


def test_a_batch_that_is_not_asked_for_suits_the_size_of_samples(tmp_path):
    np.save(tmp_path / "d.npy", np.zeros((100, 3, 224, 224), np.float32))
    assert open_data(tmp_path / "d.npy", [Spec("x", 1, ("N", 3, 224, 224))]).batch == 6
    assert open_data(as_npz(tmp_path), IMAGE).batch == 64


def test_several_inputs_go_by_name(tmp_path):
    a, b = RNG.standard_normal((9, 3)), RNG.integers(0, 5, 9)
    np.savez(tmp_path / "d.npz", a=a, b=b, extra=b)
    dataset = open_data(tmp_path / "d.npz", PAIR, batch=4)
    np.testing.assert_array_equal(gathered(dataset, "a")[0], a.astype(np.float32))
    np.testing.assert_array_equal(gathered(dataset, "b")[0], b)
    assert dataset.notes == ("not used: extra",)


def test_states_and_scalars_go_with_every_batch(tmp_path):
    audio, state = RNG.standard_normal((5, 8)).astype(np.float32), np.ones((2, 1, 6), np.float32)
    np.savez(tmp_path / "d.npz", audio=audio, state=state, sr=np.int64(16000))
    for source in (tmp_path / "d.npz", {"audio": audio, "state": state, "sr": np.int64(16000)}):
        dataset = open_data(source, STATE)
        batches = list(dataset)
        assert [b.feeds["audio"].shape for b in batches] == [(1, 8)] * 5
        assert all(b.feeds["state"].shape == (2, 1, 6) and b.feeds["sr"].shape == () for b in batches)
        assert [b.size for b in batches] == [1] * 5


@pytest.mark.parametrize("samples", [1, 2, 5])
@pytest.mark.parametrize("batch", [None, 32])
def test_a_state_is_no_row_of_samples(samples, batch, tmp_path):
    """Neither where there are as many samples as layers, nor where there are fewer, nor in larger batches."""
    audio, state = RNG.standard_normal((samples, 8)).astype(np.float32), np.ones((2, 1, 6), np.float32)
    own = np.arange(samples, dtype=np.float32).reshape(-1, 1, 1, 1) * state
    for given, expected in ((state, [1] * samples), (own, range(samples))):
        np.savez(tmp_path / "d.npz", audio=audio, state=given, sr=np.int64(16000), labels=np.arange(samples))
        for source in (tmp_path / "d.npz", {**np.load(tmp_path / "d.npz")}):
            dataset = open_data(source, STATE)
            batches = list(dataset.batched(batch) if batch else dataset)
            assert [b.feeds["audio"].shape for b in batches] == [(1, 8)] * samples
            assert [b.feeds["state"].shape for b in batches] == [(2, 1, 6)] * samples
            assert [b.feeds["state"].max() for b in batches] == list(expected)
            assert [b.labels.tolist() for b in batches] == [[i] for i in range(samples)]
            assert dataset.counted().samples == samples
            (last,) = dataset.counted().chosen(np.array([samples - 1]))
            np.testing.assert_array_equal(last.feeds["audio"], audio[-1:])


def test_a_state_of_one_layer_may_come_for_each_sample(tmp_path):
    specs = [Spec("x", TensorProto.FLOAT, (1, 8)), Spec("h", TensorProto.FLOAT, (1, 1, 6))]
    x, state = RNG.standard_normal((5, 8)).astype(np.float32), np.arange(30, dtype=np.float32).reshape(5, 1, 1, 6)
    for given in (state, state[:, 0]):
        np.savez(tmp_path / "d.npz", x=x, h=given)
        batches = list(open_data(tmp_path / "d.npz", specs))
        np.testing.assert_array_equal(np.stack([b.feeds["h"] for b in batches]), state)


def test_what_is_no_state_is_refused(tmp_path):
    np.savez(tmp_path / "d.npz", audio=np.zeros((5, 8), np.float32), state=np.zeros((5, 1, 6), np.float32), sr=1)
    with pytest.raises(UsageError, match=r"'state' \[2, \?, 6\] float32 is a state.*and not \[5, 1, 6\]"):
        open_data(tmp_path / "d.npz", STATE)


def test_feeds_with_states_of_their_own_are_not_mixed():
    items = [
        {"audio": np.full((1, 8), i, np.float32), "state": np.full((2, 1, 6), i, np.float32), "sr": np.int64(1)}
        for i in range(4)
    ]
    for batch in open_data(items, STATE, batch=3):
        assert batch.feeds["audio"].max() == batch.feeds["state"].max() == batch.feeds["state"].min()


def test_feeds_of_several_sizes_come_apart():
    spec = [Spec("x", 1, ("N", "T"))]
    items = [{"x": np.ones((2, n), np.float32)} for n in (4, 4, 7)]
    assert [b.feeds["x"].shape for b in open_data(items, spec, batch=3)] == [(3, 4), (1, 4), (2, 7)]


# Pixels

PIXELS = RNG.integers(0, 256, (6, 4, 5, 3)).astype(np.uint8)
SCALED = PIXELS.transpose(0, 3, 1, 2).astype(np.float32) / 255


@pytest.fixture
def pixels(tmp_path):
    np.savez(tmp_path / "p.npz", x=PIXELS, y=np.arange(6).astype(np.uint8))
    return tmp_path / "p.npz"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mean": 0, "std": 1}, SCALED),
        ({"mean": "0.5", "std": "0.25"}, (SCALED - 0.5) / 0.25),
        ({"mean": "0.1,0.2,0.3"}, SCALED - np.array([0.1, 0.2, 0.3]).reshape(3, 1, 1)),
        ({"mean": (127.5,), "std": (127.5,)}, SCALED * 2 - 1),
        ({"mean": "123.675,116.28,103.53", "std": "58.395,57.12,57.375"}, None),
        ({"layout": "raw"}, SCALED * 255),
        (
            {"mean": [104, 117, 123], "layout": "nchw,bgr"},
            (SCALED * 255)[:, ::-1] - np.array([104, 117, 123]).reshape(3, 1, 1),
        ),
    ],
)
def test_pixels_are_normalised_as_said(pixels, options, expected):
    found, labels = gathered(open_data(pixels, [Spec("input", 1, ("N", 3, 4, 5))], **options))
    if expected is None:  # torchvision's numbers in both of their scales
        unit = {"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}
        expected = gathered(open_data(pixels, [Spec("input", 1, ("N", 3, 4, 5))], **unit))[0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(labels, np.arange(6))


def test_pixels_for_channels_last_halves_integers_and_grey(pixels, tmp_path):
    last = Spec("x", TensorProto.FLOAT16, ("N", 4, 5, 3))
    found, _ = gathered(open_data(pixels, [last], mean=0.5, std=0.5))
    np.testing.assert_allclose(found, PIXELS / 127.5 - 1, atol=2e-3)
    assert found.dtype == np.float16
    eight = Spec("x", TensorProto.INT8, ("N", 4, 5, 3))
    np.testing.assert_array_equal(gathered(open_data(pixels, [eight], mean=128))[0], PIXELS.astype(int) - 128)
    same = Spec("x", TensorProto.UINT8, ("N", 4, 5, 3))
    np.testing.assert_array_equal(gathered(open_data(pixels, [same]))[0], PIXELS)
    np.save(tmp_path / "g.npy", PIXELS[..., 0])
    for shape, axis in ((("N", 1, 4, 5), 1), (("N", 4, 5, 1), 3)):
        found, _ = gathered(open_data(tmp_path / "g.npy", [Spec("x", 1, shape)], mean=0, std=1))
        np.testing.assert_allclose(found, np.expand_dims(PIXELS[..., 0], axis) / 255, atol=1e-6)


def test_an_int8_input_holds_no_raw_pixels(pixels):
    with pytest.raises(UsageError, match=r"int8, which holds no pixels from 0 to 255.*--mean 128 --std 1"):
        open_data(pixels, [Spec("x", TensorProto.INT8, ("N", 4, 5, 3))], layout="nhwc,raw")


def test_floats_are_normalised_without_dividing_by_255(tmp_path):
    found, _ = gathered(open_data(as_npz(tmp_path), IMAGE, mean=0.5, std=2))
    np.testing.assert_allclose(found, (X - 0.5) / 2, atol=1e-6)


def test_layout_settles_what_shapes_leave_open(tmp_path):
    square = RNG.integers(0, 256, (2, 3, 3, 3)).astype(np.uint8)
    np.save(tmp_path / "s.npy", square)
    with pytest.raises(UsageError, match="--layout nchw or --layout nhwc"):
        open_data(tmp_path / "s.npy", [Spec("x", 1, ("N", 3, 3, 3))], mean=0)
    wide = RNG.standard_normal((2, 4, 5, 3)).astype(np.float32)
    np.save(tmp_path / "w.npy", wide)
    with pytest.raises(UsageError, match="--layout transposes"):
        open_data(tmp_path / "w.npy", IMAGE)
    found, _ = gathered(open_data(tmp_path / "w.npy", IMAGE, layout="nchw"))
    np.testing.assert_array_equal(found, wide.transpose(0, 3, 1, 2))
    free = [Spec("x", 1, ("N", "C", "H", "W"))]
    np.testing.assert_array_equal(gathered(open_data(tmp_path / "w.npy", free, layout="nchw"))[0], found)


# Images


@pytest.fixture
def photos(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name, tone in (("cat", 10), ("dog", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            array = np.full((12, 16, 3), tone + i, np.uint8)
            array[:, :4] = 255  # the left edge, which a cut around the centre takes off
            image.fromarray(array).save(tmp_path / "photos" / name / f"{i}.png")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def test_images_have_their_folder_as_class(photos):
    dataset = open_data(photos, [Spec("x", 1, ("N", 3, 6, 4))], resize="12x16", batch=4, mean=0, std=1)
    found, labels = gathered(dataset)
    assert (dataset.samples, dataset.has_labels, dataset.notes) == (6, True, ())
    np.testing.assert_array_equal(labels, [0, 0, 0, 1, 1, 1])
    tones = np.array([10, 11, 12, 200, 201, 202]) / 255
    np.testing.assert_allclose(found, np.broadcast_to(tones.reshape(6, 1, 1, 1), (6, 3, 6, 4)), atol=1e-6)
    _, few = gathered(open_data(photos, [Spec("x", 1, ("N", 3, 6, 4))], limit=2))
    np.testing.assert_array_equal(few, [0, 1])


def test_images_without_normalisation_are_scaled_and_it_is_said(photos):
    dataset = open_data(photos / "cat", [Spec("x", 1, ("N", 6, 6, 1))])
    found, labels = gathered(dataset)
    assert labels is None
    assert found.shape == (3, 6, 6, 1)
    assert found.max() <= 1
    assert "scaled to 0 to 1" in dataset.notes[0]


def test_a_single_image_and_a_free_size(photos):
    free = [Spec("x", 1, ("N", 3, "H", "W"))]
    with pytest.raises(UsageError, match="--resize 224x224"):
        open_data(photos, free)
    assert gathered(open_data(photos / "cat" / "0.png", free, resize=8))[0].shape == (1, 3, 8, 8)
    assert gathered(open_data(photos, free, resize=(6, 10)))[0].shape == (6, 3, 6, 10)
    shorter = gathered(open_data(photos / "cat", [Spec("x", 1, ("N", 3, 6, 6))], resize=9))[0]
    assert shorter.shape == (3, 3, 6, 6)


def test_images_that_cannot_be_used(photos, tmp_path):
    with pytest.raises(UsageError, match="gives 4x4, but the model takes 6x6"):
        gathered(open_data(photos, [Spec("x", 1, ("N", 3, 6, 6))], resize="4x4"))
    with pytest.raises(UsageError, match="one input"):
        open_data(photos, PAIR)
    with pytest.raises(UsageError, match="7 channels"):
        open_data(photos, [Spec("x", 1, ("N", 7, 6, 6))], layout="nchw")
    (photos / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(FileError, match=r"0\.png is no image"):
        gathered(open_data(photos, [Spec("x", 1, ("N", 3, 6, 6))]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no data that is known"):
        open_data(tmp_path / "empty", IMAGE)


# What does not fit


def written(folder, **arrays):
    np.savez(folder / "d.npz", **arrays)
    return folder / "d.npz"


@pytest.mark.parametrize(
    ("arrays", "specs", "says"),
    [
        ({"a": X}, PAIR, "lacks 'b' [N] int64; it has 'a' [10, 3, 4, 5] float32"),
        ({"x": X[:, :2]}, IMAGE, "input 'x' [N, 3, 4, 5] float32 cannot take 'x', which is [n, 2, 4, 5] float32"),
        ({"x": X[0]}, IMAGE, "cannot take 'x', which is [n, 4, 5]"),
        ({"x": X, "labels": Y[:4]}, IMAGE, "10 samples, but 'labels' is [4]"),
        ({"x": X.astype(np.int64)}, IMAGE, "convert the data"),
        ({"x": PIXELS.transpose(0, 3, 1, 2)}, IMAGE, "--mean 0.485,0.456,0.406"),
        ({"x": PIXELS}, [Spec("x", TensorProto.INT8, ("N", 4, 5, 3))], "--mean 128"),
        ({"a": np.ones((4, 3)), "b": np.ones(5, int)}, PAIR, "'b' has 5 samples, but 'a' has 4"),
        ({"x": np.float32(3)}, IMAGE, "no samples"),
        ({"x": X, "z": X}, [Spec("w", 1, ("N", 3))], "cannot take 'x'"),
    ],
)
def test_what_does_not_fit_is_said_at_once(arrays, specs, says, tmp_path):
    with pytest.raises(UsageError) as caught:
        open_data(written(tmp_path, **arrays), specs)
    assert says in str(caught.value)


def test_integers_that_do_not_fit_are_refused(tmp_path):
    path = written(tmp_path, x=np.array([[1, 300]]))
    with pytest.raises(UsageError, match="cannot hold 1 to 300"):
        gathered(open_data(path, [Spec("x", TensorProto.INT8, ("N", 2))]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mean": "a,b"}, "--mean a,b"),
        ({"std": "0"}, "above zero"),
        ({"resize": "1x2x3"}, "--resize 1x2x3"),
        ({"layout": "chwn"}, "--layout chwn"),
        ({"mean": "0.5,0.5"}, "--mean has 2 numbers"),
        ({"limit": 0}, "limit of 0"),
    ],
)
def test_options_that_make_no_sense(options, says, tmp_path):
    with pytest.raises(UsageError, match=says):
        open_data(as_npz(tmp_path), IMAGE, **options)


def test_pickles_are_never_loaded(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.array([{"a": 1}], object))
    np.save(tmp_path / "d.npy", np.array([{"a": 1}], object))
    for name in ("d.npz", "d.npy"):
        with pytest.raises(UsageError, match="Python objects"):
            open_data(tmp_path / name, IMAGE)
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], object))
    (tmp_path / "d.json").write_text(json.dumps([{"x": {"array": base64.b64encode(stream.getvalue()).decode()}}]))
    with pytest.raises(UsageError, match="cannot be decoded"):
        open_data(tmp_path / "d.json", IMAGE)


def test_broken_files_are_told(tmp_path):
    whole = as_npz(tmp_path).read_bytes()
    cases = {"d.npz": (whole[: len(whole) // 2], UsageError), "e.npy": (b"\x93NUMPY\x01", UsageError)}
    cases |= {"f.json": (b"{", UsageError), "g.json": (b"[3]", UsageError), "h.txt": (b"", UsageError)}
    cases |= {"i.json": (b'[{"x": {"b": 1}}]', UsageError), "input_0.pb": (b"\xff\xff", UsageError)}
    for name, (content, error) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(error, match=name[:5]):
            open_data(tmp_path / name, IMAGE)
    with pytest.raises(FileError, match="neither a file nor a folder"):
        open_data(tmp_path / "nowhere.npz", IMAGE)


def test_an_array_that_ends_early_is_told(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (10, 3, 4, 5)})
    import zipfile

    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", stream.getvalue() + X[:4].tobytes())
    with pytest.raises(FileError, match="cut off inside 'x'"):
        gathered(open_data(tmp_path / "d.npz", IMAGE))


def test_scripts_that_do_not_work(tmp_path):
    path = as_script(tmp_path)
    with pytest.raises(UsageError, match="no function 'nothing'"):
        open_data(f"{path}:nothing", IMAGE)
    with pytest.raises(FileError, match="is not a file"):
        open_data(tmp_path / "other.py", IMAGE)
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(UsageError, match="failed with ZeroDivisionError"):
        open_data(tmp_path / "bad.py", IMAGE)
    (tmp_path / "lists.py").write_text("def load_data():\n    return [[1, 2]]")
    with pytest.raises(UsageError, match="gives list; arrays"):
        open_data(tmp_path / "lists.py", IMAGE)
    with pytest.raises(UsageError, match="user's own"):
        open_data(f"{path}:fails", IMAGE)


def test_odd_sources_are_refused():
    with pytest.raises(UsageError, match="int is not understood"):
        open_data(3, IMAGE)
    with pytest.raises(UsageError, match="gives no data"):
        open_data([], IMAGE)
    with pytest.raises(UsageError, match="no inputs"):
        open_data([], [])


def test_protobuf_numbers_beyond_the_inputs(tmp_path):
    (tmp_path / "input_7.pb").write_bytes(numpy_helper.from_array(X).SerializeToString())
    with pytest.raises(UsageError, match="input 7, but the model has 1"):
        open_data(tmp_path, IMAGE)


def test_bfloat16_saved_by_numpy_comes_back(tmp_path):
    import ml_dtypes

    half = X.astype(ml_dtypes.bfloat16)
    found, _ = gathered(open_data(written(tmp_path, x=half), [Spec("x", TensorProto.BFLOAT16, ("N", 3, 4, 5))]))
    np.testing.assert_array_equal(found.astype(np.float32), half.astype(np.float32))


@needs_data
def test_real_images_come_with_their_labels():
    dataset = open_data(
        SHARED / "data" / "cifar10_test.npz", [Spec("input", 1, ("N", 3, 32, 32))], mean=0, std=1, limit=100
    )
    found, labels = gathered(dataset)
    assert found.shape == (100, 3, 32, 32)
    assert found.max() == 1
    assert len(set(labels.tolist())) == 10
