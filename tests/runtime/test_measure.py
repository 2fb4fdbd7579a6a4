"""Metrics, latency, activations and the doctor."""

import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import helper
from runtime_models import SHARED, build, conv_net, masked_and_pruned, needs_data, needs_models, network, weight

from onnxprune.errors import FileError, OnnxPruneError, UsageError
from onnxprune.model.network import Network
from onnxprune.runtime import doctor, engine, providers
from onnxprune.runtime.accuracy import METRICS, evaluate, find_metric, scores
from onnxprune.runtime.capture import BUDGET, THREADS, fitting, tapped, values
from onnxprune.runtime.data import open_data
from onnxprune.runtime.doctor import Cuda, cuda
from onnxprune.runtime.latency import Latency, gain, measure
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import Spec

RNG = np.random.default_rng(0)
X = RNG.standard_normal((30, 3, 8, 8)).astype(np.float32)
SPECS = [Spec("x", 1, ("N", 3, 8, 8))]


def identity(shape):
    """A model whose output `y` is its input `x`, so that scores can be fed."""
    return make_session(build([helper.make_node("Identity", ["x"], ["y"])], [("x", 1, shape)], [("y", 1, shape)]))


def scored(given, labels=None, metrics=("top1",), *, batch=4, **options):
    session = identity(["N", *given.shape[1:]])
    content = {"x": given} | ({} if labels is None else {"labels": labels})
    return evaluate({"m": session}, open_data(content, session.inputs, batch=batch), metrics, **options)["m"]


# Metrics


def test_top1_and_top5_by_hand():
    given = np.zeros((3, 8), np.float32)
    given[0, 2] = 1  # right
    given[1] = [8, 7, 6, 5, 4, 3, 2, 1]  # class 4 comes fifth
    given[2] = [8, 7, 6, 5, 4, 3, 2, 1]  # class 5 comes sixth
    found = scored(given, np.array([2, 4, 5]), ("top1", "top5"), batch=2)
    assert found == {"top1": pytest.approx(1 / 3), "top5": pytest.approx(2 / 3)}


def test_ties_count_as_argmax_counts_them():
    given = np.zeros((2, 4), np.float32)
    assert scored(given, np.array([0, 1])) == {"top1": 0.5}
    given = RNG.integers(0, 3, (200, 5)).astype(np.float32)
    labels = RNG.integers(0, 5, 200)
    assert scored(given, labels)["top1"] == pytest.approx((given.argmax(1) == labels).mean())


def test_scores_that_are_no_numbers_hit_nothing():
    assert scored(np.full((4, 3), np.nan, np.float32), np.zeros(4, int)) == {"top1": 0}


def test_scores_of_pixels_and_of_odd_shapes():
    given = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
    labels = given.argmax(axis=1)
    labels[0, 0, 0] = (labels[0, 0, 0] + 1) % 3
    assert scored(given, labels)["top1"] == pytest.approx(1 - 1 / 40)
    assert scores({"y": np.zeros((4, 9, 1, 1))}).shape == (4, 9)
    assert scores({"n": np.zeros((4,)), "one": np.zeros((4, 1)), "y": np.zeros((4, 9))}).shape == (4, 9)
    with pytest.raises(UsageError, match="no output looks like class scores"):
        scores({"n": np.zeros((4, 1))})


@pytest.mark.parametrize("labels", [np.zeros((4, 2), int), np.zeros(4)])
def test_labels_must_be_class_numbers(labels):
    with pytest.raises(UsageError, match=r"class numbers \[4\] are needed"):
        scored(np.zeros((4, 3), np.float32), labels)


def test_likeness_to_the_original_by_hand():
    before = np.array([[3, 4], [1, 0], [0, 0]], np.float32)
    after = np.array([[3, 4], [0, 1], [0, 0]], np.float32)
    sessions = {"before": identity(["N", 2]), "after": identity(["N", 2])}
    dataset = open_data({"x": before}, sessions["before"].inputs, batch=2)
    found = {}
    for metric in map(find_metric, ("agreement", "cosine", "snr")):
        batches = (metric.terms({"y": after[k : k + 2]}, {"y": before[k : k + 2]}, None) for k in (0, 2))
        found[metric.name] = metric.total(sum(batches))
    assert found["agreement"] == pytest.approx(2 / 3)
    assert found["cosine"] == pytest.approx(2 / 3)
    assert found["snr"] == pytest.approx(10 * math.log10(26 / 2))
    same = evaluate(sessions, dataset, ["agreement", "cosine", "snr"], reference="before")
    assert same["after"] == {"agreement": 1, "cosine": pytest.approx(1), "snr": math.inf}


@pytest.mark.parametrize(("metric", "sound", "turned"), [("snr", math.inf, -20 * math.log10(2)), ("cosine", 1, -1)])
def test_likeness_is_that_of_the_output_furthest_off(metric, sound, turned):
    large, small = np.full((4, 9), 1e3, np.float32), np.ones((4, 1), np.float32)
    find = find_metric(metric)

    def figure(outputs):
        return find.total(sum(find.terms(outputs, {"large": large, "small": small}, None) for _ in range(3)))

    assert figure({"large": large, "small": small}) == pytest.approx(sound)
    assert figure({"large": large, "small": -small}) == pytest.approx(turned)
    assert math.isnan(figure({"large": large, "small": small[:3]}))  # as many rows as a threshold lets through


def test_nothing_is_heard_behind_infinity():
    snr = find_metric("snr")
    assert snr.total(snr.terms({"y": np.full((4, 9), np.inf)}, {"y": np.ones((4, 9))}, None)) == -math.inf


def test_a_pruned_network_agrees_with_its_masked_original():
    masked, pruned = masked_and_pruned(conv_net(), [1])
    sessions = {n: make_session(m) for n, m in (("masked", masked), ("pruned", pruned), ("original", conv_net()))}
    dataset = open_data({"x": X, "labels": np.arange(30) % 4}, SPECS, batch=7)
    found = evaluate(sessions, dataset, ["top1", "agreement", "snr"], reference="masked")
    assert found["pruned"]["agreement"] == 1
    assert found["pruned"]["top1"] == found["masked"]["top1"]
    assert found["pruned"]["snr"] > 100 > found["original"]["snr"]


def test_what_a_metric_needs():
    with pytest.raises(UsageError, match="top1 needs labels"):
        scored(np.zeros((4, 3), np.float32))
    with pytest.raises(UsageError, match="cosine compares with the original"):
        scored(np.zeros((4, 3), np.float32), None, ["cosine"])
    with pytest.raises(UsageError, match="no metric is called 'top3'; there are top1, top5"):
        find_metric("top3")
    assert all(m.name == n for n, m in METRICS.items())


class Fixed:
    """A session that gives the same outputs for every feed."""

    def __init__(self, **outputs):
        self.outputs = outputs

    def run(self, feed):
        return dict(self.outputs)


def test_a_mean_is_over_the_rows_that_outputs_have():
    """A batch of one sample may give the two layers of a state, and what is no tensor of numbers does not count."""
    rows, text = RNG.standard_normal((2, 1, 3)).astype(np.float32), np.array(["cat"], object)
    session = Fixed(state=rows, y=rows[0], text=text, maps=[{"cat": 1.0}])
    dataset = open_data({"x": X[:3]}, [Spec("x", 1, (1, 3, 8, 8))])
    found = evaluate({"m": session}, dataset, ["cosine", "snr"], reference="m")["m"]
    assert found == {"cosine": pytest.approx(1), "snr": math.inf}
    with pytest.raises(UsageError, match="no output is a tensor of numbers"):
        evaluate({"m": Fixed(text=text)}, dataset, ["cosine"], reference="m")


SCRIPT = """
import numpy as np
def metric(outputs, labels):
    return (outputs["y"].argmax(1) == labels).astype(float)
def error(outputs, labels, reference):
    return -float(np.abs(outputs["y"] - reference["y"]).max())
def fails(outputs, labels):
    return outputs["nothing"]
"""


def test_metrics_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SCRIPT)
    given = RNG.standard_normal((9, 3)).astype(np.float32)
    labels = given.argmax(1)
    labels[0] += 1
    assert scored(given, labels, [str(path)]) == {str(path): pytest.approx(8 / 9)}
    assert find_metric(f"{path}:error").needs_reference
    assert scored(given, None, [f"{path}:error"], reference="m") == {f"{path}:error": 0}
    with pytest.raises(UsageError, match=r"mine\.py:fails failed with KeyError"):
        scored(given, None, [f"{path}:fails"])
    with pytest.raises(UsageError, match="no function 'other'"):
        find_metric(f"{path}:other")
    with pytest.raises(FileError):
        find_metric(str(tmp_path / "nowhere.py"))


@needs_models
@needs_data
@pytest.mark.parametrize(
    ("name", "data", "options", "expected"),
    [
        ("resnet20_cifar10_torchscript", "cifar10", {"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}, 0.917),
        ("mlperf_resnet8_cifar10_float", "cifar10", {"layout": "raw"}, 0.860),
        ("mlperf_resnet8_cifar10_int8", "cifar10", {"mean": 128}, 0.865),
        ("mnist_cntk", "mnist", {"layout": "raw"}, 0.989),
        ("fashion_mnist_cnn_edwin19", "fashion_mnist", {"mean": 0, "std": 1}, 0.920),
        ("winml_cifar_imageclassifier", "cifar10", {"mean": 0.5, "std": 0.5}, 0.653),
    ],
)
def test_accuracy_of_real_networks_is_what_is_known(name, data, options, expected):
    session = make_session(network(name), providers="cpu")
    dataset = open_data(SHARED / "data" / f"{data}_test.npz", session.inputs, limit=500, **options)
    found = evaluate({"m": session}, dataset, ["top1"])["m"]["top1"]
    assert abs(found - expected) < 3 * math.sqrt(expected * (1 - expected) / 500)


# Activations


def activations(model, names, dataset, budget=BUDGET):
    """Each batch with the values of these names."""
    session = tapped(model, names, providers="cpu")
    for batch in dataset.batched(fitting(session, names, dataset, budget)):
        yield batch, values(session, names, batch.feeds)


def test_captured_values_are_those_of_the_network():
    model = conv_net()
    names = ["r1", "x", "logits"]
    batches = [given for _, given in activations(model, names, open_data({"x": X}, SPECS, batch=8))]
    found = {name: [given[name] for given in batches] for name in names}
    session = make_session(model, providers="cpu", taps=["r1"])
    whole = session.run({"x": X})
    np.testing.assert_array_equal(np.concatenate(found["x"]), X)
    for name in ("r1", "logits"):
        np.testing.assert_allclose(np.concatenate(found[name]), whole[name], rtol=1e-4, atol=1e-4)


def test_a_masked_variant_can_be_captured():
    model = conv_net()
    masked, _ = masked_and_pruned(model, [0])
    dataset = open_data({"x": X, "labels": np.arange(30)}, SPECS)
    variant = Network.of(model).with_values({"w2": weight(masked, "w2")})
    for (batch, one), (_, two) in zip(
        activations(variant, ["c2"], dataset), activations(masked, ["c2"], dataset), strict=True
    ):
        np.testing.assert_array_equal(one["c2"], two["c2"])
        assert batch.labels is not None


def test_batches_follow_the_bytes_that_are_captured():
    dataset = open_data({"x": X}, SPECS, batch=30)
    session = tapped(conv_net(), ["r1", "f"], providers="cpu")
    one = 6 * 8 * 8 * 4
    assert fitting(session, ["r1"], dataset, budget=5 * one) == 5
    assert fitting(session, ["r1"], dataset, budget=1) == 1
    assert fitting(session, ["f"], dataset, budget=1 << 30) == 30
    sizes = [b.size for b, _ in activations(conv_net(), ["r1"], dataset, budget=7 * one)]
    assert sizes == [7, 7, 7, 7, 2]


def test_capture_keeps_no_activations():
    """200 MB of activations pass through, and no more than a few batches of them are there at once."""
    model = conv_net(channels=16, size=64)
    specs = [Spec("x", 1, ("N", 3, 64, 64))]
    images = np.zeros((1, 3, 64, 64), np.float32)
    dataset = open_data(lambda: ({"x": images} for _ in range(800)), specs)
    moments, seen = np.zeros(16), 0
    tracemalloc.start()
    for batch, given in activations(model, ["r1"], dataset, budget=4 << 20):
        moments += given["r1"].sum(axis=(0, 2, 3))
        seen += batch.size
    assert seen == 800
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    expected = 800 * 64 * 64 * np.maximum(weight(model, "b1"), 0)
    np.testing.assert_allclose(moments, expected, rtol=1e-4)
    assert peak < 16 << 20


def test_the_machine_does_not_show_in_what_is_captured(monkeypatch):
    """Sums are split among threads: their number is part of the result, so it is not that of the cores here."""
    found = []
    for cores in (1, 16):
        monkeypatch.setattr("onnxprune.runtime.session.usable_cpus", lambda cores=cores: cores)
        assert tapped(conv_net(), ["r1"]).threads == THREADS
        dataset = open_data({"x": X}, SPECS)
        found.append(np.concatenate([v["c2"] for _, v in activations(conv_net(), ["c2"], dataset)]))
    np.testing.assert_array_equal(*found)


def test_capturing_what_is_not_there():
    dataset = open_data({"x": X}, SPECS)
    with pytest.raises(UsageError, match="'nowhere'"):
        list(activations(conv_net(), ["nowhere"], dataset))


# Latency


def test_latencies_are_taken_in_turns():
    turns = []

    class Fake:
        provider, threads = "CPU", 2

        def __init__(self, name):
            self.name = name

        def run(self, feed):
            turns.append(self.name)

    found = measure({"a": Fake("a"), "b": Fake("b")}, {}, seconds=0.01)
    assert turns[:6] == ["a", "b"] * 3
    assert turns.count("a") == turns.count("b") == found["a"].runs + 2
    assert found["a"].low <= found["a"].median <= found["a"].high


def test_latencies_of_real_sessions_are_plausible():
    small, large = (
        make_session(conv_net(channels=c, size=48), providers="cpu", threads=1, optimize=True) for c in (2, 256)
    )
    feed = {"x": np.zeros((1, 3, 48, 48), np.float32)}
    found = measure({"small": small, "large": large}, feed, seconds=0.3)
    assert found["small"].median < found["large"].median
    assert measure({"small": small}, feed, seconds=0)["small"].runs >= 1


# The doctor


def lasting(*seconds: float) -> Latency:
    return Latency(seconds[0], min(seconds), max(seconds), len(seconds), 1, "CPU", seconds)


def test_a_gain_is_an_interval_of_paired_runs():
    drifting = [1.0 + 0.1 * k for k in range(20)]  # a machine that slows down slows both
    low, high = gain(lasting(*drifting), lasting(*(t / 2 for t in drifting)))
    assert low == pytest.approx(2)
    assert high == pytest.approx(2)
    swaying = [1.0, 1.2] * 10
    low, high = gain(lasting(*swaying), lasting(*reversed(swaying)))
    assert low < 1 < high
    assert gain(lasting(1, 1, 1), lasting(2, 2, 2)) is None


def test_the_doctor_lists_versions_and_tries_every_provider():
    found = {f.subject: f for f in doctor.diagnose()}
    for subject in (
        "python",
        "onnxprune",
        "onnx",
        "numpy",
        "protobuf",
        "onnxruntime",
        "onnxruntime wheels",
        "opsets",
        "cpu",
    ):
        assert subject in found
    assert found["provider cpu"].text == "loads"
    listed = {f"provider {providers.short(p).lower()}" for p in providers.listed()}
    assert listed <= found.keys()
    assert all(f.level in ("ok", "note", "problem") for f in found.values())
    assert all(f.advice for f in found.values() if f.level == "problem")


def test_the_doctor_names_two_wheels(monkeypatch):
    both = {"onnxruntime": "1.0", "onnxruntime-gpu": "1.1"}
    for module in ("doctor", "engine"):
        monkeypatch.setattr(f"onnxprune.runtime.{module}.wheels", lambda: both)
    found = next(f for f in doctor.diagnose() if f.subject == "onnxruntime wheels")
    assert found.level == "problem"
    assert "onnxruntime 1.0, onnxruntime-gpu 1.1" in found.text
    assert found.advice.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && ")


NEEDED = ("cudart", "cublas", "cudnn", "TensorRT 10")


@pytest.mark.parametrize(
    ("built", "driver", "missing", "says", "advice"),
    [
        ("13.0", None, NEEDED, "no driver of NVIDIA's is here", ""),
        ("13.0", (12, 8), NEEDED, "driver runs CUDA 12.8", "580 or newer, or pip install 'onnxruntime-gpu<1.27'"),
        ("12.8", (11, 4), NEEDED, "driver runs CUDA 11.4", "it takes driver 525 or newer"),
        ("13.0", (13, 1), NEEDED[2:], "here cudart, cublas; missing cudnn", "onnxruntime-gpu[cuda,cudnn]=="),
        ("12.8", (13, 1), NEEDED[3:], "missing TensorRT 10", "onnxprune does without TensorRT"),
        ("12.8", (13, 1), (), "built for CUDA 12.8, and runs on no other major version", ""),
    ],
)  # fmt: skip
def test_the_doctor_names_the_cuda_of_the_wheel_and_what_mends_it(monkeypatch, built, driver, missing, says, advice):
    loads = [name for name in NEEDED if name not in missing]
    monkeypatch.setattr(doctor, "cuda", lambda: Cuda(built, driver, loads, missing))
    found = {f.subject: f for f in doctor.diagnose()}["cuda"]
    assert says in found.text
    assert advice in found.advice
    assert bool(advice) == bool(found.advice)
    assert found.level == ("note" if missing else "ok")


def test_cuda_is_looked_for_by_the_names_of_its_libraries(monkeypatch):
    """A machine with an old driver and a part of CUDA 13, both played by a loader."""
    engine.engine()  # whose own libraries the loader is not asked for
    asked = []

    def load(name):
        asked.append(name)
        if "nvinfer" in name or "cudnn" in name:
            raise OSError(f"{name}: cannot open shared object file")
        return SimpleNamespace(cuDriverGetVersion=version)

    def version(pointer):
        pointer._obj.value = 12080
        return 0

    monkeypatch.setattr("onnxprune.runtime.doctor.cuda_of_the_wheel", lambda: "13.0")
    monkeypatch.setattr("onnxprune.runtime.doctor.ctypes.CDLL", load)
    for system, names in (
        ("linux", ["libcudart.so.13", "libcublas.so.13", "libcudnn.so.9", "libnvinfer.so.10", "libcuda.so.1"]),
        ("win32", ["cudart64_13.dll", "cublas64_13.dll", "cudnn64_9.dll", "nvinfer_10.dll", "nvcuda.dll"]),
    ):
        asked.clear()
        monkeypatch.setattr("onnxprune.runtime.doctor.sys.platform", system)
        found = cuda()
        assert asked == names
        assert found.driver == (12, 8)
        assert found.too_old
        assert (found.loads, found.missing) == (["cudart", "cublas"], ["cudnn", "TensorRT 10"])
    monkeypatch.setattr("onnxprune.runtime.doctor.cuda_of_the_wheel", lambda: None)
    assert cuda() is None


@pytest.mark.parametrize("listed", [["CUDAExecutionProvider"], ["CPUExecutionProvider"]])
def test_libraries_of_cuda_are_loaded_where_the_wheel_has_it(listed):
    loaded = []
    module = SimpleNamespace(get_available_providers=lambda: listed, preload_dlls=lambda: loaded.append("cuda"))
    engine._preload(module)
    assert loaded == ["cuda"] * (listed[0] == "CUDAExecutionProvider")
    engine._preload(SimpleNamespace(get_available_providers=lambda: listed))  # an older one, which cannot


def test_the_doctor_reports_an_import_that_fails(monkeypatch):
    def broken():
        raise OnnxPruneError("onnxruntime cannot be imported (half of it)")

    monkeypatch.setattr(doctor, "engine", broken)
    found = next(f for f in doctor.diagnose() if f.subject == "onnxruntime")
    assert (found.level, found.text) == ("problem", "onnxruntime cannot be imported (half of it)")
    monkeypatch.setattr(doctor, "wheels", dict)
    found = next(f for f in doctor.diagnose() if f.subject == "onnxruntime wheels")
    assert (found.level, found.text) == ("problem", "none installed")
