#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write files that a trace reader must survive into a folder: make_corpus.py FOLDER.

One file (or folder, pipe, link) per way of being wrong; what each must lead to is in EXPECTED.tsv. Some
are odd but right: a reader that is strict beyond the format would fail on those.
"""

import json
import os
import re
import struct
import sys

from tiny_trace import D, HKV, HQ, N, P, T, W, Trace, container

OUT = sys.argv[1] if len(sys.argv) == 2 else sys.exit("usage: make_corpus.py FOLDER")
MIB = 1 << 20
BASE = Trace()


def write(name, content):
    with open(os.path.join(OUT, name), "wb") as file:
        file.write(content)


def one(name, entry, data=b"\0" * 8, key='"a"'):
    """A container with one tensor, given as JSON text."""
    write(name, container('{%s:%s}' % (key, entry), data))


def entry(dtype="U8", shape="[8]", offsets="[0,8]"):
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


def lengths():
    write("empty", b"")
    write("seven-bytes", b"\0" * 7)
    write("length-0", container(b"", length=0))
    write("length-1", container(b"{", length=1))
    write("length-beyond-file", container(b"{}", length=3))
    write("length-beyond-cap", container(b"{}", length=16 * MIB + 1))
    write("length-2-63", container(b"{}", length=1 << 63))
    write("length-2-64-minus-1", container(b"{}", length=(1 << 64) - 1))
    write("length-2-64-minus-8", container(b"{}", length=(1 << 64) - 8))
    write("blanks-100-mb", container(b"{}", length=100_000_000))
    os.truncate(os.path.join(OUT, "blanks-100-mb"), 100_000_008)
    write("blanks-16-mib", container(b"{}" + b" " * (16 * MIB - 2)))
    write("no-tensors", container(b"{}"))
    whole = BASE.bytes()
    write("cut-by-one", whole[:-1])
    write("cut-in-header", whole[:100])
    write("one-byte-more", whole + b"\0")


def texts():
    write("starts-with-blank", container(b" {}"))
    write("starts-with-bom", container(b"\xef\xbb\xbf{}"))
    write("starts-with-array", container(b"[]"))
    write("garbage-after", container(b"{}x"))
    write("newline-after", container(b"{}\n"))
    write("second-object", container(b"{}{}"))
    write("nul-after", container(b"{}\0"))
    write("trailing-comma", container('{"a":%s,}' % entry(), b"\0" * 8))
    write("no-comma", container('{"a":%s "b":%s}' % (entry(), entry()), b"\0" * 8))
    write("no-colon", container('{"a" %s}' % entry(), b"\0" * 8))
    write("key-not-string", container("{a:%s}" % entry(), b"\0" * 8))
    write("invalid-utf8-name", container(b'{"a\xff":' + entry().encode() + b"}", b"\0" * 8))
    write("overlong-utf8-name", container(b'{"a\xc0\xaf":' + entry().encode() + b"}", b"\0" * 8))
    write("invalid-utf8-dtype", container(b'{"a":{"dtype":"U\xff8","shape":[8],"data_offsets":[0,8]}}', b"\0" * 8))
    write("invalid-utf8-metadata", container(b'{"__metadata__":{"a":"\xed\xa0\x80"}}'))
    one("lone-surrogate-name", entry(), key='"\\ud800"')
    one("nul-in-name", entry(), key='"a\\u0000b"')
    write("nul-in-metadata", container('{"__metadata__":{"a":"x\\u0000y"}}'))
    write("raw-control-in-name", container(b'{"a\x1b[2J":' + entry().encode() + b"}", b"\0" * 8))
    one("empty-name", entry(), key='""')
    write("nested-8", container('{"a":' + "[" * 7 + "]" * 7 + "}"))
    write("nested-9", container('{"a":' + "[" * 8 + "]" * 8 + "}"))
    write("nested-a-million", container('{"a":' + "[" * 1_000_000))
    write("nested-objects", container('{"a":' + '{"a":' * 200_000))
    write("unterminated-name", container('{"a'))
    write("unterminated-escape", container('{"a\\'))
    write("unterminated-string", container('{"a":{"dtype":"U8'))
    write("unterminated-number", container('{"a":{"dtype":"U8","shape":[12'))
    write("unterminated-object", container('{"a":%s' % entry(), b"\0" * 8))
    write("brackets-crossed", container('{"a":{"dtype":"U8","shape":[8},"data_offsets":[0,8]]}', b"\0" * 8))
    write("json-bomb-values", container('{"a":{"shape":[' + "0," * 4_000_000 + "0]}}"))
    write("json-bomb-members", container("{" + ",".join('"%x":0' % i for i in range(1_000_000)) + "}"))
    write("json-bomb-metadata", container('{"__metadata__":{' + ",".join('"%x":""' % i for i in range(100_001)) + "}}"))


def numbers():
    for name, number in (
        ("minus-1", "-1"), ("minus-0", "-0"), ("real-1.0", "1.0"), ("real-1e3", "1e3"), ("leading-zero", "01"),
        ("plus-1", "+1"), ("2-53-plus-1", str(2**53 + 1)), ("2-63", str(2**63)), ("2-64", str(2**64)),
        ("40-digits", "1" * 40), ("hexadecimal", "0x8"), ("quoted", '"8"'), ("null", "null"), ("nested", "[8]"),
        ("minus", "-"), ("infinity", "Infinity"),
    ):  # fmt: skip
        one("number-" + name, entry(shape=f"[{number}]"))
    one("offset-real", entry(offsets="[0,8.0]"))
    one("offset-minus", entry(offsets="[-8,0]"))
    one("offset-2-53-plus-1", entry(offsets=f"[0,{2**53 + 1}]"))
    one("offset-2-64", entry(offsets=f"[0,{2**64}]"))


def entries():
    one("begin-after-end", entry(offsets="[8,0]"))
    one("begin-beyond-data", entry(offsets="[16,24]"))
    one("end-beyond-data", entry(shape="[16]", offsets="[0,16]"))
    one("end-before-file-end", entry(shape="[4]", offsets="[0,4]"))
    one("hole-at-start", entry(shape="[4]", offsets="[4,8]"))
    two = lambda a, b: '{"a":%s,"b":%s}' % (a, b)
    four = lambda begin: entry(shape="[4]", offsets=f"[{begin},{begin + 4}]")
    write("overlap", container(two(four(0), entry(shape="[6]", offsets="[2,8]")), b"\0" * 8))
    write("hole", container(two(four(0), four(8)), b"\0" * 12))
    write("same-range-twice", container(two(four(0), four(0)), b"\0" * 4))
    one("shape-overflow", entry(shape=f"[{2**62},{2**62}]"))
    one("shape-overflow-with-zero-2-63", entry(shape=f"[0,{2**63},4]", offsets="[0,0]"), b"")
    one("shape-overflow-with-zero-2-62", entry(shape=f"[0,{2**62},4]", offsets="[0,0]"), b"")
    one("bytes-overflow", entry("F64", shape=f"[{2**62}]"))
    one("size-mismatch", entry("F32"))
    one("shape-missing", '{"dtype":"U8","data_offsets":[0,8]}')
    one("dtype-missing", '{"shape":[8],"data_offsets":[0,8]}')
    one("offsets-missing", '{"dtype":"U8","shape":[8]}')
    one("field-extra", '{"dtype":"U8","shape":[8],"data_offsets":[0,8],"x":1}')
    one("field-twice", '{"dtype":"U8","dtype":"U8","shape":[8],"data_offsets":[0,8]}')
    one("field-twice-by-escape", '{"dtype":"U8","\\u0064type":"U8","shape":[8],"data_offsets":[0,8]}')
    one("offsets-of-1", entry(offsets="[0]"))
    one("offsets-of-3", entry(offsets="[0,8,8]"))
    one("offsets-object", entry(offsets="{}"))
    one("shape-number", entry(shape="8"))
    one("shape-object", entry(shape="{}"))
    one("rank-9", entry(shape="[1,1,1,1,1,1,1,1,8]"))
    one("dtype-number", '{"dtype":8,"shape":[8],"data_offsets":[0,8]}')
    one("entry-array", "[0,8]")
    one("entry-string", '"U8"')
    one("entry-null", "null")
    write("name-twice", container('{"a":%s,"a":%s}' % (four(0), four(4)), b"\0" * 8))
    write("name-twice-by-escape", container('{"a":%s,"\\u0061":%s}' % (four(0), four(4)), b"\0" * 8))
    write("metadata-twice", container('{"__metadata__":{},"__metadata__":{}}'))
    write("metadata-key-twice", container('{"__metadata__":{"a":"1","\\u0061":"2"}}'))
    write("metadata-array", container('{"__metadata__":[]}'))
    write("metadata-number", container('{"__metadata__":{"a":1}}'))
    write("metadata-null", container('{"__metadata__":{"a":null}}'))
    write("metadata-nested", container('{"__metadata__":{"a":{"b":"c"}}}'))
    write("metadata-value-of-1-mib-and-1", container('{"__metadata__":{"a":"%s"}}' % ("x" * (MIB + 1))))
    zero = entry(shape="[0]", offsets="[0,0]")
    write("tensors-100001", container("{" + ",".join(f'"{i}":{zero}' for i in range(100_001)) + "}"))
    write("tensors-100000", container("{" + ",".join(f'"{i}":{zero}' for i in range(100_000)) + "}"))


def special_files():
    os.mkfifo(os.path.join(OUT, "pipe"))
    os.symlink("/dev/zero", os.path.join(OUT, "device"))
    os.symlink("loop-b", os.path.join(OUT, "loop-a"))
    os.symlink("loop-a", os.path.join(OUT, "loop-b"))
    os.mkdir(os.path.join(OUT, "folder-without-index"))


def odd_but_right():
    write("valid", BASE.copy().with_checksum().bytes())
    trace = BASE.copy()
    for name in list(trace.tensors):
        if name.split(".")[-1] not in ("k", "v", "q"):
            del trace.tensors[name]
    write("valid-minimal", trace.bytes())
    trace = BASE.copy()
    trace.put("empty at the end", "F32", [0, 7], [])
    trace.put("scalar", "F64", [], [1.0])
    trace.put("rank 8", "I8", [1] * 8, [1])
    trace.tensors["sub-byte"] = ["F4", [2], b"\0"]
    trace.tensors["from the future"] = ["F128", [1], b"\0" * 16]
    trace.put("../../etc/passwd", "U8", [1], [0])
    trace.put("\x1b[2J\x07 control", "U8", [1], [0])
    trace.metadata["unknown.key"] = "\x1b[31m ignored"
    trace.metadata["largest value"] = "x" * MIB
    trace.metadata["version"] = "1.7"
    write("valid-odd", trace.bytes())
    text = json.dumps(BASE.header())
    write("valid-escaped", container(text.replace('"s0.l0.k"', '"\\u0073\\u0030.l0.k"'), BASE.data()))
    write("valid-unaligned", container(text + " " * (8 - len(text) % 8 + 3), BASE.data()))
    blanks = json.dumps(BASE.header(), separators=(" \r\n,\t", " :\n\n"))
    write("valid-blanks", container(blanks, BASE.data()))
    trace = BASE.copy()  # rows 0..1 of the window layer are seen by no stored query
    for part in "kv":
        dtype, shape, raw = trace.tensors[f"s0.l1.{part}"]
        trace.tensors[f"s0.l1.{part}"] = [dtype, [HKV, T - 1, D], raw[2 * D :]]
    trace.metadata.update({"kv_first.l1": "1", "sliding_window": "2", "s0.q_tail": "2"})
    for name in ("s0.l1.o", "s0.l1.lse"):
        del trace.tensors[name]
    del trace.tensors["s0.check_steps"], trace.tensors["s0.l0.o"], trace.tensors["s0.l0.lse"]
    write("valid-window-cut", trace.bytes())


def metadata(name, remove=(), **changes):
    """The tiny trace with other metadata; `_` in a key stands for itself, `__` for a dot."""
    trace = BASE.copy()
    for key in remove:
        del trace.metadata[key]
    trace.metadata.update({key.replace("__", "."): value for key, value in changes.items()})
    write(name, trace.bytes())


def meanings():
    for key in ("format", "version", "n_layers", "layers", "n_q_heads", "n_kv_heads", "head_dim", "attn_scale",
                "n_seq", "s0.prompt_len", "s0.decode_len", "s0.q_tail", "sliding_window", "layer_types"):  # fmt: skip
        metadata("missing-" + key, remove=(key,))
    metadata("other-format", format="other")
    metadata("version-2", version="2.0")
    metadata("version-0", version="0.9")
    metadata("version-without-minor", version="1")
    for i, text in enumerate(("", " 2", "2 ", "+2", "02", "2.0", "0x2", "two", "-2", "99999999999", "0")):
        metadata(f"n_q_heads-{i}", n_q_heads=text)
    for i, text in enumerate(("0", "-0.125", "nan", "inf", "0x1p-3", "1e999", "", "0.125 ", "1,5")):
        metadata(f"attn_scale-{i}", attn_scale=text)
    for i, text in enumerate(("", "0,", ",0", "1,0", "0,0", "0,2", "0, 1", "a")):
        metadata(f"layers-{i}", layers=text)
    metadata("heads-not-divisible", n_q_heads="3", n_kv_heads="2")
    metadata("head_dim-12", head_dim="12")
    metadata("head_dim-512", head_dim="512")
    metadata("n_layers-huge", n_layers="1000000000")
    metadata("n_seq-huge", n_seq="99999")
    metadata("n_seq-0", n_seq="0")
    metadata("prompt-huge", s0__prompt_len="1073741823")
    metadata("prompt-0", s0__prompt_len="0")
    metadata("decode-0", s0__decode_len="0")
    metadata("q_tail-beyond-prompt", s0__q_tail=str(P + 1))
    metadata("first_pos-7", s0__first_pos="7")
    metadata("shared-prefix", s0__prefix="s1")
    metadata("learned-sinks", attn_sinks="learned")
    metadata("softcap", attn_softcap="50")
    metadata("rope-interleaved", rope__layout="interleaved")
    metadata("k-before-rope", k__stage="pre_rope")
    metadata("rope-without-theta", rope__type="default")
    metadata("rope-linear-without-factor", rope__type="linear", rope__theta="10000")
    metadata("rope-llama3-factors", rope__type="llama3", rope__theta="5e5", rope__factor="8", rope__low_freq_factor="4",
             rope__high_freq_factor="1", rope__original_max_position="8192")  # fmt: skip
    metadata("rope-yarn", rope__type="yarn")
    metadata("layer_types-mamba", layer_types="full,mamba")
    metadata("layer_types-short", layer_types="full")
    metadata("layer_types-long", layer_types="full,sliding,full")
    metadata("layer_types-window-only", layer_types="sliding,sliding")
    metadata("window-0", sliding_window="0")
    metadata("kv_first-of-full-layer", kv_first__l0="1")
    metadata("kv_first-too-late", kv_first__l1="2")
    metadata("capture-rounded-2", capture__rounded="2")
    metadata("token_types-empty-name", token_types="text,,image")
    metadata("token_types-missing", remove=("token_types",))
    metadata("token_types-too-few", token_types="text")
    metadata("wrong-checksum", content__sha256="0" * 64)
    metadata("short-checksum", content__sha256="abc")
    metadata("window-lies", sliding_window="4")
    metadata("scale-lies", attn_scale="0.5")


def tensor(name, victim, dtype=None, shape=None, values=None, at=None, remove=False):
    """The tiny trace with one tensor changed; `values` fill it whole, `at` = (index, value) changes one."""
    trace = BASE.copy()
    old = trace.tensors.get(victim, ["U8", [1], b"\0"])
    if remove:
        del trace.tensors[victim]
    elif values is not None:
        trace.put(victim, dtype or old[0], shape or old[1], values)
    elif at is not None:
        raw, size = bytearray(old[2]), {"F16": 2, "F32": 4, "I32": 4, "U8": 1}[old[0]]
        raw[at[0] * size : (at[0] + 1) * size] = struct.pack("<" + {2: "e", 4: "f", 1: "B"}[size] if old[0] != "I32" else "<i", at[1])
        trace.tensors[victim] = [old[0], old[1], bytes(raw)]
    else:
        trace.tensors[victim] = [dtype or old[0], shape or old[1], old[2]]
    write(name, trace.bytes())


def tensors():
    nan, inf = float("nan"), float("inf")
    for part in "kvq":
        tensor(f"missing-{part}", f"s0.l1.{part}", remove=True)
        tensor(f"unknown-dtype-{part}", f"s0.l0.{part}", dtype="F128")
        tensor(f"dtype-of-{part}-differs", f"s0.l1.{part}", dtype="BF16")
        tensor(f"rank-of-{part}", f"s0.l0.{part}", shape=[len(BASE.tensors[f"s0.l0.{part}"][2]) // 2])
        tensor(f"nan-in-{part}", f"s0.l0.{part}", at=(3 * D + 5, nan))
    tensor("rows-of-k", "s0.l0.k", shape=[HKV, T - 1, D], values=[0] * (HKV * (T - 1) * D))
    tensor("heads-of-v", "s0.l0.v", shape=[HKV + 1, T, D], values=[0] * ((HKV + 1) * T * D))
    tensor("transposed-q", "s0.l0.q", shape=[W + N, HQ, D])
    tensor("stored-as-f64", "s0.l0.k", dtype="F64", values=[0] * (HKV * T * D))
    tensor("stray-layer", "s0.l40.k", values=[1])
    tensor("stray-sequence", "s1.l0.k", values=[1])
    tensor("tokens-short", "s0.tokens", shape=[T], values=[1] * T)
    tensor("tokens-f64", "s0.tokens", dtype="F64", values=[1] * (T + 1))
    tensor("token-negative", "s0.tokens", at=(2, -1))
    tensor("logprob-short", "s0.logprob", shape=[N - 1], values=[0] * (N - 1))
    tensor("logprob-positive", "s0.logprob", at=(1, 1.0))
    tensor("logprob-inf", "s0.logprob", at=(1, -inf))
    tensor("acc-shape", "s0.l0.acc", shape=[P, HQ])
    tensor("acc-negative", "s0.l0.acc", at=(5, -1.0))
    tensor("acc-does-not-sum", "s0.l0.acc", at=(5, 2.25))
    tensor("o-missing", "s0.l0.o", remove=True)
    tensor("o-nan", "s0.l0.o", at=(9, nan))
    tensor("o-lies", "s0.l0.o", at=(9, 0.5))
    tensor("o-swapped-heads", "s0.l0.o", values=swapped_heads(BASE.tensors["s0.l0.o"]))
    tensor("lse-nan", "s0.l0.lse", values=[nan] * 4)
    tensor("lse-lies", "s0.l0.lse", at=(1, 9.0))
    tensor("check_steps-missing", "s0.check_steps", remove=True)
    tensor("check_steps-empty", "s0.check_steps", shape=[0], values=[])
    tensor("check_steps-many", "s0.check_steps", shape=[N + 1], values=range(N + 1))
    tensor("check_steps-beyond", "s0.check_steps", at=(1, N))
    tensor("check_steps-descending", "s0.check_steps", values=(2, 0))
    tensor("token_type-shape", "s0.token_type", shape=[T - 1], values=[0] * (T - 1))
    tensor("token_type-value", "s0.token_type", at=(3, 2))


def swapped_heads(tensor_):
    values = struct.unpack(f"<{len(tensor_[2]) // 4}f", tensor_[2])
    half = len(values) // 2
    return values[half:] + values[:half]


def folder(name, weight_map, traces, index=None):
    """NAME/ with an index and shards; traces maps a file name to a Trace."""
    os.mkdir(os.path.join(OUT, name))
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}) if index is None else index
    write(name + "/trace.index.json", text.encode())
    for file_name, trace in traces.items():
        write(f"{name}/{file_name}", trace.bytes())


def two_sequences():
    first, second = BASE.copy(), BASE.copy()
    for trace in (first, second):
        trace.metadata["n_seq"] = "2"
        trace.metadata.update({k.replace("s0.", "s1."): v for k, v in BASE.metadata.items() if k.startswith("s0.")})
    second.tensors = {name.replace("s0.", "s1."): value for name, value in BASE.tensors.items()}
    return first.with_checksum(), second.with_checksum()


def folders():
    a, b = two_sequences()
    where = {name: "a.safetensors" for name in a.tensors} | {name: "b.safetensors" for name in b.tensors}
    shards = {"a.safetensors": a, "b.safetensors": b}
    folder("folder-valid", where, shards)
    for name, target in (("parent", "../valid"), ("absolute", "/dev/zero"), ("sub", "x/a.safetensors"), ("dots", ".."), ("empty", "")):
        folder("folder-name-" + name, where | {"s0.l0.k": target}, shards)
    for name, target in (("pipe", "pipe"), ("loop", "loop"), ("absent", "absent"), ("self", "trace.index.json")):
        folder("folder-file-" + name, where | {"s0.l0.k": target}, shards)
    os.mkfifo(os.path.join(OUT, "folder-file-pipe/pipe"))
    os.symlink("loop", os.path.join(OUT, "folder-file-loop/loop"))
    both = b.copy()
    both.tensors["s0.tokens"] = a.tensors["s0.tokens"]
    folder("folder-tensor-twice", where, {"a.safetensors": a, "b.safetensors": both})
    folder("folder-wrong-place", where | {"s0.tokens": "b.safetensors"}, shards)
    folder("folder-not-listed", {k: v for k, v in where.items() if k != "s1.tokens"}, shards)
    differs = b.copy()
    differs.metadata["attn_scale"] = "0.5"
    folder("folder-metadata-differs", where, {"a.safetensors": a, "b.safetensors": differs})
    wrong = b.copy()
    wrong.metadata["content.sha256"] = "1" * 64
    folder("folder-wrong-checksum", where, {"a.safetensors": a, "b.safetensors": wrong})
    folder("folder-index-twice", {}, {}, '{"weight_map":{"a":"x","a":"y"}}')
    folder("folder-index-no-map", {}, {}, '{"metadata":{}}')
    folder("folder-index-empty-map", {}, {}, '{"weight_map":{}}')
    folder("folder-index-number", {}, {}, '{"weight_map":{"a":1}}')
    folder("folder-index-garbage", {}, {}, '{"weight_map":{"a":"x"}} {')
    folder("folder-index-nested", {}, {}, '{"metadata":' + "[" * 100_000)
    folder("folder-many-files", {str(i): f"{i}.safetensors" for i in range(257)}, {})
    os.mkdir(os.path.join(OUT, "folder-index-pipe"))
    os.mkfifo(os.path.join(OUT, "folder-index-pipe/trace.index.json"))


def from_the_manual():
    """What traces/FORMAT.md prints: its writer must run, and its dump must be of the file it writes."""
    with open(os.path.join(os.path.dirname(__file__), "../../traces/FORMAT.md"), encoding="utf-8") as file:
        text = file.read()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    name = os.path.join(OUT, "valid-from-manual")
    exec(code.replace("example.safetensors", name), {})
    with open(name, "rb") as file:
        content = file.read()
    lines = re.findall(r"^([0-9a-f]{6})  ((?:[0-9a-f]{2} )*[0-9a-f]{2})\b", text, re.M)
    wrong = [at for at, dump in lines if not content[int(at, 16) :].startswith(bytes.fromhex(dump))]
    if wrong or len(lines) < 8:
        sys.exit(f"FORMAT.md: {len(lines)} lines of dump, other bytes at {wrong}")


for part in (lengths, texts, numbers, entries, special_files, odd_but_right, meanings, tensors, folders, from_the_manual):
    part()
