"""Reports to be shown, names that mean harm, and what is heard of a page."""

import math
from dataclasses import replace
from html.parser import HTMLParser

from onnxprune.report import DriftRow, Figures, FrozenRow, GroupRow, MetricRow, Report

EVIL = "<script>alert('x')</script>[red]\x1b[31m\r\n\u202e&amp;\"'"

REPORT = Report(
    source="/nets/net.onnx",
    output="/nets/small.onnx",
    options={"ratio": 0.5, "method": "ncc"},
    asked="remove 50% of the channels of each group; method ncc",
    got="25.2% of the parameters and 25.2% of the MACs left",
    before=Figures(23_456_789, 4_111_222_333, 97 << 20, 0.0123, 9_633_792),
    after=Figures(5_864_197, 1_027_805_583, 24 << 20, 0.0041, 4_816_896),
    groups=(
        GroupRow("conv1.weight", ("/conv1/Conv",), 64, 32, 0.5),
        GroupRow("conv2.weight", ("/conv2/Conv", "/skip/Conv"), 128, 128, None, "excluded by 'conv2*'"),
    ),
    frozen=(FrozenRow("/fc/Gemm", 10, "it is an output of the network"), FrozenRow("/odd", None, "is not known")),
    proof="equal up to rounding: largest relative difference 1.7e-07 at 'logits' (3e-05 allowed), 4 runs",
    proof_error=1.7e-7,
    drift=(DriftRow("logits", 0.5, 0.91, 7.5), DriftRow("aux", 0.25, 0.97, 12.0)),
    metrics=(MetricRow("top1", 0.761, 0.745, "share", 500), MetricRow("snr", math.inf, 12.5, "dB", 500)),
    latency_note="median of 50 alternating runs in onnxruntime, CPU, 2 threads",
    input_shapes={"image": (1, 3, 224, 224)},
    warnings=("one weight is not finite",),
    notes=("data: not used: spare",),
    seconds={"load": 0.1, "verify": 2.5},
    next_commands=("trtexec --onnx=small.onnx --fp16" + " --shapes=image:1x3x224x224" * 4,),
    sha256={"source": "a" * 64, "output": "b" * 64},
)
EVIL_REPORT = replace(
    REPORT,
    source=EVIL,
    asked=EVIL,
    got=EVIL,
    groups=(GroupRow(EVIL, (EVIL, EVIL), 8, 4, 0.5, EVIL),),
    frozen=(FrozenRow(EVIL, 3, EVIL),),
    proof=EVIL,
    drift=(DriftRow(EVIL, 1.0, 0.5, 1.0), DriftRow(EVIL, math.inf, math.nan, -math.inf, EVIL)),
    metrics=(MetricRow(EVIL, 0.5, 0.25, EVIL, 5),),
    latency_note=EVIL,
    warnings=(EVIL,),
    notes=(EVIL,),
    next_commands=(EVIL,),
    sha256={EVIL: EVIL},
)


class Heard(HTMLParser):
    """What a screen reader is told of pictures: titles and descriptions, and the ids that point at them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.pictures = 0
        self.titles = 0
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "svg" and given.get("role") == "img":
            self.pictures += 1
            self.labels += str(given.get("aria-labelledby") or "").split()
        self.titles += tag == "title"
