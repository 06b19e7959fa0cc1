# SPDX-License-Identifier: Apache-2.0
"""Small safetensors reader and writer, and the three element types a trace may be stored in.

The container: u64 header length, JSON header, raw little-endian data. The writer pads the header
with spaces so that data starts at a multiple of 4096, and writes beside the target and renames, so
a cut-off run leaves nothing under the final name. The reader trusts its files; the strict one is
in C.
"""

import hashlib
import json
import math
import os
import struct

import numpy as np

# bf16 has no numpy type: its bits travel as uint16.
NUMPY_TYPES = {
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "F64": "<f8",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "|u1",
}
STORED_TYPES = {"f16": "F16", "bf16": "BF16", "f32": "F32"}
DATA_ALIGNMENT = 4096


def encode(values, dtype):
    """f32 array -> the bits stored for `dtype` ("F16", "BF16", "F32"), rounded to nearest even."""
    values = np.ascontiguousarray(values, np.float32)
    if dtype == "F32":
        return values
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    bits = values.view(np.uint32)
    # 0x7fff plus the lowest kept bit carries exactly when the dropped half rounds up.
    return (
        (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    ).astype(np.uint16)


def decode(stored, dtype):
    """The inverse: stored bits -> f32, exact."""
    if dtype == "BF16":
        return (np.asarray(stored).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.asarray(stored, np.float32)


def bytes_of(array):
    return array.reshape(-1).view(np.uint8)


def write(path, tensors, metadata):
    """Write `tensors`, a list of (name, dtype, array) in file order.

    A `content.sha256` entry in `metadata` is replaced by the hash of the data section.
    """
    for name, dtype, array in tensors:
        if array.dtype != np.dtype(NUMPY_TYPES[dtype]) or not array.flags.c_contiguous:
            raise ValueError(f"{path}: {name}: not contiguous, or not {dtype} ({array.dtype})")
    write_blocks(path, [(n, dtype, a.shape, (a,)) for n, dtype, a in tensors], metadata)


def write_blocks(path, tensors, metadata):
    """Write `tensors`, a list of (name, dtype, shape, blocks); one block is held at a time.

    The blocks of a tensor are contiguous arrays that follow each other. The hash of the data is not
    known before the data was, so its 64 digits are put into the header at the end.
    """
    entries, offset = {}, 0
    for name, dtype, shape, _ in tensors:
        size = math.prod(shape) * np.dtype(NUMPY_TYPES[dtype]).itemsize
        if name in entries:
            raise ValueError(f"{path}: {name}: repeated")
        entries[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    digest = hashlib.sha256() if "content.sha256" in metadata else None

    def header():
        text = json.dumps(
            {"__metadata__": metadata, **entries}, separators=(",", ":"), ensure_ascii=False
        ).encode()
        return struct.pack("<Q", len(text) + -(8 + len(text)) % DATA_ALIGNMENT) + text

    metadata = dict(metadata)
    if digest:
        metadata["content.sha256"] = "0" * 64
    spool = f"{path}.tmp{os.getpid()}"
    try:
        with open(spool, "wb") as out:
            head = header()
            out.write(head + b" " * (-len(head) % DATA_ALIGNMENT))
            for name, dtype, _, blocks in tensors:
                begin = out.tell()
                for block in blocks:
                    out.write(bytes_of(block))
                    if digest:
                        digest.update(bytes_of(block))
                expected = np.diff(entries[name]["data_offsets"])[0]
                if out.tell() - begin != expected:
                    raise ValueError(
                        f"{path}: {name}: expected {expected} bytes, got {out.tell() - begin}"
                    )
            if digest:
                metadata["content.sha256"] = digest.hexdigest()
                out.seek(0)
                out.write(header())
            out.flush()
            os.fsync(out.fileno())
        os.replace(spool, path)
    except BaseException:
        if os.path.exists(spool):
            os.unlink(spool)
        raise


class Reader:
    """One open file: its `metadata` and, by name, the tensors."""

    def __init__(self, path):
        self.path = os.fspath(path)
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
            if 8 + length > size:
                raise ValueError(
                    f"{path}: not a safetensors file: header of {length} bytes in {size}"
                )
            self.entries = json.loads(file.read(length))
        self.metadata = self.entries.pop("__metadata__", {})
        self.data_start = 8 + length
        self.data = np.zeros(0, np.uint8)
        if size > self.data_start:
            self.data = np.memmap(path, np.uint8, "r", self.data_start)

    def names(self):
        return list(self.entries)

    def dtype(self, name):
        return self.entries[name]["dtype"]

    def shape(self, name):
        return tuple(self.entries[name]["shape"])

    def raw(self, name):
        """The stored bits, mapped, not copied."""
        if name not in self.entries:
            raise ValueError(f"{self.path}: {name}: missing")
        begin, end = self.entries[name]["data_offsets"]
        numpy_type = NUMPY_TYPES[self.dtype(name)]
        return np.asarray(self.data[begin:end]).view(numpy_type).reshape(self.shape(name))

    def f32(self, name):
        return decode(self.raw(name), self.dtype(name))

    def content_sha256(self):
        return hashlib.sha256(self.data).hexdigest()


def file_sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
