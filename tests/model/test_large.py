"""A model of more than 2 GiB, whose weights have to lie beside it."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

GIB = 1 << 30
LAYERS, WIDTH = 36, 4096  # 64 MiB each
FACTS = """
import json, resource, sys, onnxprune
report = onnxprune.prune(sys.argv[1], sys.argv[2], ratio=0.5, compensate="none", method="l2", measure=False).report
peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps([report.proof_error, report.after.params / report.before.params, peak * 1024]))
"""


def write_chain(path: Path) -> int:
    """Layers of one width, one after the other; the bytes of their weights."""
    rng, offset, nodes, tensors = np.random.default_rng(0), 0, [], []
    with open(path.with_suffix(".data"), "wb") as data:
        for k in range(LAYERS):
            array = rng.standard_normal((WIDTH, WIDTH), np.float32) * np.float32(WIDTH**-0.5)
            tensor = TensorProto(name=f"w{k}", data_type=TensorProto.FLOAT, dims=array.shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", path.stem + ".data"), ("offset", offset), ("length", array.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            offset += data.write(array.data)
            tensors.append(tensor)
            nodes.append(helper.make_node("Gemm", [f"y{k - 1}" if k else "x", f"w{k}"], [f"z{k}"], transB=1))
            nodes.append(helper.make_node("Relu", [f"z{k}"], [f"y{k}"]))
    sides = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, WIDTH]) for n in ("x", f"y{LAYERS - 1}")]
    graph = helper.make_graph(nodes, "chain", sides[:1], sides[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return offset


def available_memory() -> int:
    """Bytes that programs can have, with what the system caches; 0 where it does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")), 0)


@pytest.mark.slow
def test_more_than_two_gigabytes(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 12 * GIB:
        pytest.skip("needs 12 GiB of disk")
    if available_memory() < 12 * GIB:
        pytest.skip("needs 12 GiB of memory")
    size = write_chain(tmp_path / "large.onnx")
    assert size > 2 * GIB
    command = [sys.executable, "-c", FACTS, str(tmp_path / "large.onnx"), str(tmp_path / "small.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    error, left, peak = json.loads(done.stdout.splitlines()[-1])
    assert error < 1e-2  # of single numbers, some of which are sums that all but cancel
    assert left == pytest.approx(0.25, abs=0.02)
    onnx.checker.check_model(str(tmp_path / "small.onnx"))
    assert peak < 3 * size
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    print(f"{size / GIB:.2f} GiB, peak {peak / GIB:.2f} GiB, {spent:.0f} CPU-s")
