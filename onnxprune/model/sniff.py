"""What a file is that turned out not to be an ONNX model, told from its first bytes."""

import re
from collections.abc import Callable
from dataclasses import dataclass

HEAD = 4096  # bytes that are looked at; LFS pointers and magic numbers need far fewer, names inside a zip more

EXPORT = "export it to ONNX first (torch.onnx.export for PyTorch, tf2onnx for TensorFlow, Keras and TFLite)"
INSTEAD = "give the .onnx file that it was made from"
DATA = "give the model, not its data"
CONVERT = 'convert it: onnx.save(onnx.load(file, format="{}"), "model.onnx")'
AGAIN = "download or copy the model again"
UNPACK = "unpack it and give the .onnx file inside"


@dataclass(frozen=True)
class Format:
    """A file format and what its owner can do."""

    what: str
    advice: str
    matches: Callable[[bytes], object]


def _at(offset: int, *magic: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[offset:].startswith(magic)


def _text(pattern: bytes) -> Callable[[bytes], object]:
    """A pattern at the start of a text, behind white space and a byte order mark."""
    compiled = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:" + pattern + rb")", re.IGNORECASE | re.DOTALL)
    return compiled.match


def _zip_with(*names: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(b"PK\x03\x04") and any(name in head for name in names)


def _is_safetensors(head: bytes) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length < 1 << 30


def _is_printable(head: bytes) -> bool:
    text = head.decode("utf-8", "ignore")
    whole = len(text.encode()) > len(head) - 4  # the last character may have been cut
    return whole and all(character.isprintable() or character in "\t\n\r" for character in text)


# The first row that matches names the file, so what is more precise stands above.
KINDS: tuple[Format, ...] = (
    Format(
        "a Git LFS pointer, not the model itself",
        "fetch the model with `git lfs pull`",
        _at(0, b"version https://git-lfs"),
    ),
    Format(
        "a git-annex pointer, not the model itself",
        "fetch the model with `git annex get`",
        _at(0, b"/annex/objects/", b"../.git/annex/"),
    ),
    Format("a Keras model", EXPORT, _zip_with(b"model.weights.h5", b"config.json", b"keras_metadata")),
    Format("a NumPy archive (.npz)", DATA, _zip_with(b".npy")),
    Format("a TorchScript archive", EXPORT, _zip_with(b"constants.pkl", b"/code/", b"/debug_pkl")),
    Format("a PyTorch checkpoint", EXPORT, _zip_with(b"data.pkl", b"/data/", b"/version", b"archive/", b"/byteorder")),
    Format(
        "a zip archive",
        f"{UNPACK}; a PyTorch file must be exported to ONNX first",
        _at(0, b"PK\x03\x04", b"PK\x05\x06"),
    ),
    Format(
        "a Python pickle (an old PyTorch checkpoint, or scikit-learn)",
        EXPORT,
        _at(0, *(bytes([0x80, protocol]) for protocol in range(2, 6))),
    ),
    Format("a TensorFlow Lite model", EXPORT, _at(4, b"TFL3")),
    Format("a model in onnxruntime's .ort format", INSTEAD, _at(4, b"ORTM")),
    Format("an HDF5 file (a Keras model)", EXPORT, _at(0, b"\x89HDF\r\n\x1a\n")),
    Format("a GGUF or GGML file", f"it is made for llama.cpp; {EXPORT}", _at(0, b"GGUF", b"ggml", b"lmgg", b"tjgg")),
    Format("a safetensors file", f"it holds weights without a graph; {EXPORT}", _is_safetensors),
    Format("a TensorRT engine", INSTEAD, _at(0, b"ftrt", b"ptrt")),
    Format("a NumPy array (.npy)", DATA, _at(0, b"\x93NUMPY")),
    Format("compressed with gzip", UNPACK, _at(0, b"\x1f\x8b")),
    Format("compressed with xz", UNPACK, _at(0, b"\xfd7zXZ\x00")),
    Format("compressed with bzip2", UNPACK, _at(0, b"BZh")),
    Format("compressed with zstd", UNPACK, _at(0, b"\x28\xb5\x2f\xfd")),
    Format("a 7z archive", UNPACK, _at(0, b"7z\xbc\xaf\x27\x1c")),
    Format("a rar archive", UNPACK, _at(0, b"Rar!\x1a\x07")),
    Format("a tar archive", UNPACK, _at(257, b"ustar")),
    Format(
        "an OpenVINO or other XML file",
        f"give the .onnx file; if this is a server's error page, {AGAIN}",
        _text(rb"<\?xml|<net\b"),
    ),
    Format("an HTML page", f"{AGAIN}, from the link to the raw file", _text(rb"<!doctype|<html|<head|<body|<!--")),
    Format(
        "an ONNX model as JSON",
        CONVERT.format("json"),
        _text(rb'\{.{0,200}"(irVersion|opsetImport|graph|producerName)"'),
    ),
    Format("a JSON file", f"give the .onnx file; if this is a server's answer, {AGAIN}", _text(rb"[\[{]\s*[\"\[{\]}]")),
    Format("an ONNX model in textual syntax", CONVERT.format("onnxtxt"), _text(rb"<\s*(ir_version|opset_import)\s*:")),
    Format(
        "an ONNX model as protobuf text",
        CONVERT.format("textproto"),
        _text(rb"(ir_version|opset_import|producer_name|graph)\s*[:{]"),
    ),
    Format("made of zero bytes (a download or copy that did not finish)", AGAIN, lambda head: not any(head)),
    Format("a text file", "give a binary .onnx file", _is_printable),
)


def sniff(head: bytes) -> Format | None:
    """The format that the first bytes of a file tell; None if they tell nothing."""
    return next((kind for kind in KINDS if kind.matches(head)), None)
