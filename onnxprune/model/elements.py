"""Elements of a tensor, fetched when they are asked for: from a message, a file, an array, or made of another's."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import FileError
from onnxprune.model.tensors import BITS, read_tensor

BLOCK = 4 << 20  # bytes that are read or made at once


class Tensor:
    """Elements of one tensor."""

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def dtype(self) -> np.dtype:
        raise NotImplementedError

    def array(self) -> np.ndarray:
        """All elements."""
        raise NotImplementedError

    def pieces(self) -> Iterator[bytes | memoryview]:
        """All elements as `raw_data` has them, perhaps some megabytes at a time."""
        yield stored(self.array())

    def materialized(self) -> "Tensor":
        """The same elements, which need no others in memory."""
        return ArrayTensor(self.array())


def is_packed(dtype: np.dtype) -> bool:
    """Whether elements take less than a byte in a file; arrays of ml_dtypes keep each in a byte of its own."""
    return BITS.get(helper.np_dtype_to_tensor_dtype(dtype), 8) < 8


def raw_bytes(array: np.ndarray) -> np.ndarray:
    """The bytes of the elements of an array, row by row."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def stored(array: np.ndarray) -> bytes | memoryview:
    """The elements of an array as `raw_data` has them: row by row, those of less than a byte packed."""
    if is_packed(array.dtype):
        return numpy_helper.from_array(array).raw_data
    return raw_bytes(array).data


@dataclass(frozen=True, eq=False)
class ProtoTensor(Tensor):
    """The elements of a tensor of the file that is in memory."""

    proto: TensorProto

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.proto.dims)

    @property
    def dtype(self) -> np.dtype:
        return helper.tensor_dtype_to_np_dtype(self.proto.data_type)

    def array(self) -> np.ndarray:
        return read_tensor(self.proto)

    def pieces(self) -> Iterator[bytes | memoryview]:
        yield self.proto.raw_data or stored(self.array())

    def materialized(self) -> Tensor:
        copy = TensorProto()
        copy.CopyFrom(self.proto)
        return ProtoTensor(copy)


@dataclass(frozen=True, eq=False)
class ExternalTensor(ProtoTensor):
    """The elements of a tensor of the file that are left in a file, at `start`, `length` bytes of them."""

    path: Path
    start: int
    length: int

    def array(self) -> np.ndarray:
        if is_packed(self.dtype):
            data = b"".join(self.pieces())
            return read_tensor(TensorProto(dims=self.proto.dims, data_type=self.proto.data_type, raw_data=data))
        with open(self.path, "rb") as file:
            found = np.fromfile(file, self.dtype, math.prod(self.shape), offset=self.start)
        if found.size < math.prod(self.shape):
            raise FileError(f"{self.path} is cut off; get it again")
        return found.reshape(self.shape)

    def pieces(self) -> Iterator[bytes | memoryview]:
        with open(self.path, "rb") as file:
            file.seek(self.start)
            left = self.length
            while left:
                part = file.read(min(left, BLOCK))
                if not part:
                    raise FileError(f"{self.path} is cut off; get it again")
                left -= len(part)
                yield part

    def materialized(self) -> Tensor:
        return self


@dataclass(frozen=True, eq=False)
class ArrayTensor(Tensor):
    """The elements of an array."""

    elements: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.elements.shape

    @property
    def dtype(self) -> np.dtype:
        return self.elements.dtype

    def array(self) -> np.ndarray:
        return self.elements


@dataclass(frozen=True, eq=False)
class MadeInBlocks(Tensor):
    """A tensor of the shape and type of another one, made of it a few rows at a time.

    A subclass says what becomes of the rows.
    """

    base: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def dtype(self) -> np.dtype:
        return self.base.dtype

    def part(self, array: np.ndarray, rows: slice) -> np.ndarray:
        """Those rows, made of all elements of the base; of a tensor without axes all of it."""
        raise NotImplementedError

    def array(self) -> np.ndarray:
        array = self.base.array()
        made = np.empty(array.shape, array.dtype)
        for rows in _rows(array):
            made[rows if array.ndim else ...] = self.part(array, rows)
        return made

    def pieces(self) -> Iterator[bytes | memoryview]:
        if is_packed(self.dtype):  # a row need not end where a byte does
            yield stored(self.array())
            return
        array = self.base.array()
        yield from (stored(self.part(array, rows)) for rows in _rows(array))


def _rows(array: np.ndarray) -> Iterator[slice]:
    if not array.ndim:
        yield slice(None)
        return
    step = max(1, BLOCK // max(1, array[:1].nbytes))
    yield from (slice(start, start + step) for start in range(0, len(array), step))
