"""The other side of `onnxprune.model.inference`: what runs in the process that infers shapes.

Run as a file, given the path of onnx's native module, which is loaded alone: without the package around it, and without
numpy and protobuf, the process is ready in 30 ms.
"""

import contextlib
import faulthandler
import importlib.util
import os
import struct
import sys
from typing import Any

FAILED = (1 << 64) - 1  # in place of a length: the inference raised an exception
ROOM = 4 << 30  # bytes of address space
SECONDS = 20.0  # per model; the largest language models take two


def serve(native: Any, seconds: float) -> None:
    """Infer the shapes of one encoded model after the other, until the other end of the pipe is closed.

    Args:
        native: onnx's native module.
        seconds: for each model, after which this process ends itself.
    """
    inward, outward = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints must not get between the answers
    while len(head := inward.read(9)) == 9:
        data_prop, length = struct.unpack("<?Q", head)
        encoded = inward.read(length)
        faulthandler.dump_traceback_later(seconds, exit=True)  # native code cannot keep it from doing so
        try:
            answer = native.shape_inference.infer_shapes(encoded, False, False, data_prop)
        except Exception:  # its classes are many, and all mean that there are no shapes
            outward.write(struct.pack("<Q", FAILED))
        else:
            outward.write(struct.pack("<Q", len(answer)))
            outward.write(answer)
        outward.flush()
        faulthandler.cancel_dump_traceback_later()


def _confine() -> None:
    """No core files, no files at all, and some memory."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for limit, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_AS, ROOM)):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (most, most))


def main() -> None:
    """Load onnx's native module from the path in the first argument, and serve with the seconds in the second one."""
    _confine()
    spec = importlib.util.spec_from_file_location("onnx.onnx_cpp2py_export", sys.argv[1])
    if spec is None or spec.loader is None:
        raise SystemExit(1)
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        serve(native, float(sys.argv[2]))


if __name__ == "__main__":
    main()
