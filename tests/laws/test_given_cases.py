"""The law *pruned = masked at other sizes* on small files on which an earlier version was wrong or lost something."""

from pathlib import Path

import onnx
import pytest
from cli_runs import SHARED
from other_sizes import assert_same, data_inputs, opened, others, shapes
from test_other_sizes import HALF, cut

FOLDER = SHARED.parent / "cases"
FILES = sorted(FOLDER.glob("*.onnx"))
OTHERWISE = {  # no network that can run, or one that is not for this law
    *("bigopset", "escapes", "l_random", "log_frontend", "vae_mid_attention_dynamic_hw", "wide65536", "zerodim"),
    "topk_order_flip",  # near ties of a TopK, in whose order the two differ; the proof compares it part by part
    *("thaw_ln_of_constant_shared_weight", "overridable_plus_one_constant", "seq_out", "seq_output"),
}
LARGE = {"ll_unet_pad_to_skip", "noopt_resnet_d", "range_mask", "tunet"}  # halve their images several times
SIZES = {"gnn_simple_s": {"n": 6, "e": 8}}

pytestmark = pytest.mark.skipif(not FILES, reason="the cases are not beside the repository")


@pytest.mark.parametrize("path", [p for p in FILES if p.stem not in OTHERWISE], ids=lambda p: p.stem)
def test_pruned_is_masked_at_other_sizes(path: Path) -> None:
    model = onnx.load(path)
    dims = {v.name: v.type.tensor_type.shape.dim for v in data_inputs(model)}
    side = 32 if path.stem in LARGE else 8
    names = {d.dim_param: 1 if k == 0 else side for shape in dims.values() for k, d in enumerate(shape) if d.dim_param}
    at = names | SIZES.get(path.stem, {})
    if not at:
        model, at = opened(model, shapes(model, {}), [0])
    original, pruned = cut(model, at, **HALF)
    assert_same(original, pruned, [at, *others(model, at)], may_fail=True, chaotic=True)


def test_no_case_is_left_out_by_mistake() -> None:
    assert {p.stem for p in FILES} >= OTHERWISE
    assert len(FILES) - len(OTHERWISE) >= 40
