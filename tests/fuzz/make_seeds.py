#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the first inputs of each fuzz target: make_seeds.py FOLDER.

FOLDER/TARGET/NAME. Traces come from tests/corpus, stores from tests/golden, results from the frozen ones;
the rest is spelled here. Inputs stay small: what a fuzzer does not need to see is size.
"""

import json
import math
import os
import sqlite3
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../corpus"))
from tiny_trace import D, HKV, HQ, N, T, W, Trace  # noqa: E402

OUT = sys.argv[1] if len(sys.argv) == 2 else sys.exit("usage: make_seeds.py FOLDER")
LARGEST = 16 << 10


def write(target, name, content):
    folder = os.path.join(OUT, target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def read(path):
    with open(path, "rb") as file:
        return file.read()


def shards(folder):
    """A folder as one input: index, NUL, size of the first shard, both shards."""
    first, second = (read(os.path.join(folder, name + ".safetensors")) for name in "ab")
    return read(os.path.join(folder, "trace.index.json")) + b"\0" + struct.pack("<H", len(first)) + first + second


def traces():
    with tempfile.TemporaryDirectory() as corpus:
        script = os.path.join(HERE, "../corpus/make_corpus.py")
        subprocess.run(["/usr/bin/python3", "-B", script, corpus], check=True)
        for name in sorted(os.listdir(corpus)):
            path = os.path.join(corpus, name)
            if os.path.islink(path):
                continue
            if os.path.isfile(path) and os.path.getsize(path) <= LARGEST:
                write("trace", name, read(path))
            elif os.path.isfile(os.path.join(path, "b.safetensors")):
                write("trace", name, shards(path))


def extremes():
    """f32 traces whose products leave f32, and whose logits all but vanish."""
    for name, scale in (("huge", 3e38), ("large", 1e19), ("tiny", 1e-38), ("zero", 0.0)):
        trace = Trace()
        for key in [key for key in trace.tensors if key.split(".")[-1] in ("o", "lse", "check_steps", "acc")]:
            del trace.tensors[key]
        for layer in range(2):
            for part, heads, rows in (("k", HKV, T), ("v", HKV, T), ("q", HQ, W + N)):
                values = [scale * ((7 * i + i // D) % 17 - 8) / 8 for i in range(heads * rows * D)]
                trace.put(f"s0.l{layer}.{part}", "F32", [heads, rows, D], values)
        write("trace", "f32-" + name, trace.bytes())


POLICIES = [
    "full", "recycled:k=256,stride=16", "recycled:k=1/8,stride=8,sim=0.85,scope=model-prev",
    "recycled:k=4,k@0-3=1/2,k@5=7,stride=2,stride@1=9,pool=3,agg=mean,current=drop,evict=raw",
    "recycled:k=4,stride=4,attend=after,query=post,share=0/5/9,stagger=1", "streaming:k=256", "oracle:k=256",
    "oracle:k=1/3", "recycled:k=3,stride=3,pool=1", "recycled:k=2147483647,stride=2147483647,sim=-1e-300",
]  # fmt: skip


def spellings():
    for i, policy in enumerate(POLICIES):
        write("spelling", f"policy-{i}", "p" + policy)
        write("spelling", f"explain-{i}", f"e{i % 8}{policy}\0{i % 3}..3\0a b c \x1b[1m \"d\" \xe9\xff e f g")
    lines = [
        (0, "-p\nfull\n--text\na b c d e f\n--steps=0..3\n--layer=-1"), (1, "x\n--verify\n--format=json"),
        (2, "t\n-pfull\n-p\nstreaming:k=4\n--steps=1..7\n--repeat\n5\n-j8\n--export=x\n-q\n-vv"),
        (2, "t\n--policy=full\n--layers=0,9,20-29\n--keep-sets=14.0/29.2\n--check=1\n--db=d\n--dry-run"),
        (3, "d\n--run=1\n--run\nabcd"), (4, "d\n-o\nf\n--run=1\n--format=csv"), (5, "d\n-o.\n--figure=cost\n--output=png"),
        (6, "runs\nd"), (7, "--format=json"), (2, "t\n--granularity=2"), (0, "--seed=9007199254740992\n--version"),
    ]  # fmt: skip
    for i, (command, words) in enumerate(lines):
        write("spelling", f"options-{i}", b"o" + bytes([command]) + words.encode())
    values = ["0,2", "0.0/2.1", "1..2", "5", "8", "recompute", "gather", "null", "off", "streaming:k=2"]
    for i, value in enumerate(values):
        write("spelling", f"replay-{i}", b"r" + bytes([i]) + value.encode())
    for i, name in enumerate([
        "case=needle,P=1024", "case=drift,P=9,N=4,W=3,layers=5,Hq=8,Hkv=8,D=16,Dv=8,dtype=bf16,seed=7,window=3",
        "case=sink,P=16777216", "case=integer,dtype=f32", "case=flat,layers=4096,Hq=4096,Hkv=4096,D=256", "like=x,L=5",
        "like=x,Hq=32,Hkv=8,D=128,dtype=bf16",
    ]):  # fmt: skip
        write("spelling", f"synth-{i}", "s" + name)


HOSTILE_SQL = [
    "UPDATE run SET state='running'", "UPDATE run SET result_json=zeroblob(100000000)",
    "ALTER TABLE run RENAME TO r; CREATE VIEW run AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c)"
    " SELECT r.* FROM r, c",
    "ALTER TABLE layer_step RENAME TO l; CREATE VIEW layer_step AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL"
    " SELECT x+1 FROM c) SELECT l.* FROM l, c WHERE x<0",
    "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql='CREATE TABLE run(id, uuid, state, kind, policy_id)'"
    " WHERE name='run'",
    "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql=replace(sql,' NOT NULL','') WHERE name='run'",
    "UPDATE run SET state='running'; CREATE TRIGGER t AFTER UPDATE ON run BEGIN DELETE FROM layer_step; END",
    "UPDATE run SET state='running'; CREATE TRIGGER t AFTER UPDATE ON run BEGIN INSERT INTO meta WITH RECURSIVE"
    " c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x, x FROM c; END",
    "UPDATE run SET state='running'; DELETE FROM run WHERE id=2;"
    " CREATE INDEX i ON run(length(printf('%.*c', iif(state='running',1,900000000), 'x')))",
    "CREATE TABLE old AS SELECT * FROM run; DROP TABLE run; ALTER TABLE old DROP COLUMN result_json;"
    "ALTER TABLE old ADD COLUMN result_json TEXT AS (printf('%.*c', 900000000, 'x')); ALTER TABLE old RENAME TO run",
    "UPDATE run SET trace_path=char(27)||'[2J', device=char(10), model_id=CAST(x'fffe' AS TEXT), uuid=uuid||char(7)",
    "UPDATE policy SET canonical='recycled:k='||char(27)||',a''b`c\"\\'||char(10)||',x'",
    "PRAGMA user_version=0", "PRAGMA user_version=-1", "PRAGMA user_version=1", "PRAGMA user_version=2", "PRAGMA user_version=3", "PRAGMA user_version=5", "PRAGMA application_id=1196444487",
    "UPDATE layer_step SET keys_read=-9223372036854775808, mass_recovered_mean=9e999, topk_recall=NULL",
    "INSERT INTO layer_step SELECT run_id, step+1000, layer, is_full, keys_read, kv_read_bytes, kv_write_bytes,"
    " refresh_entries, refresh_bytes, selection_bytes, 1,1,1,1,1,0.5,1 FROM layer_step",
    "INSERT INTO retained VALUES(1,0,0,0,-1,2),(1,0,0,5,0,0)",
    "UPDATE run SET started_unix_ns=9223372036854775807, ended_unix_ns=-1, seq=-5",
    "UPDATE run SET uuid=substr('63b2'||uuid,1,200)||id", "DROP TABLE layer_step", "DELETE FROM run",
    "UPDATE run SET state='complete', invocation_uuid=NULL, policy_id=99",
    # runs of eval and record among them
    "UPDATE run SET state='complete', kind='eval', seq=NULL, result_json='{\"task\":\"p\u001bl\",\"spelling\":\"ppl:file=x\",\"model\":\"m\",\"policy\":\"streaming:k=8\",'"
    "||'\"texts\":2,\"nll\":2.5,\"delta_nll\":{\"mean\":0.5,\"low\":0.25,\"high\":1e300},\"accuracy\":0.5,\"baseline_accuracy\":0.9,\"keys_share\":0.5,'"
    "||'\"by_since\":[{\"from\":1,\"to\":1,\"n\":3,\"delta_nll\":0.5},{\"from\":2,\"to\":null,\"n\":\"x\",\"delta_nll\":null}],\"documents\":[{\"prompt_len\":7,\"steps\":1e300},4]}';"
    "INSERT INTO eval_result SELECT id,'ppl','delta_nll','nat',0.5,NULL,1,2 FROM run; INSERT INTO eval_result SELECT id,'ppl','keys_share','1',0.5,NULL,NULL,2 FROM run",
    "UPDATE run SET kind='record', result_json='{\"trace\":\"a\u001b\",\"layers\":2,\"perplexity\":1e308}', seq=NULL",
    "UPDATE run SET kind='eval', result_json='[]' WHERE id=1", "UPDATE run SET kind='eval', result_json='{' WHERE id=1",
    "UPDATE run SET kind='eval', result_json='{\"by_since\":7,\"documents\":{},\"policy\":4}'",
]  # fmt: skip


def logs(path):
    """What a writer that died leaves beside the store: a log of an ended write, a journal of an open one."""
    for mode, letter, suffix in (("WAL", b"w", "-wal"), ("DELETE", b"j", "-journal")):
        db = sqlite3.connect(path, isolation_level=None)
        db.executescript(f"PRAGMA journal_mode={mode}; PRAGMA cache_size=1; BEGIN")
        db.execute("UPDATE run SET state='running', result_json=printf('%.*c', 3000, ?)", [letter.decode()])
        if letter == b"w":
            db.execute("COMMIT")
        for how in range(5):
            write("store", f"log-{mode}-{how}", letter + bytes([how]) + read(path + suffix))
        if letter == b"j":
            db.execute("ROLLBACK")
        db.close()


def stores():
    golden = read(os.path.join(HERE, "../golden/store_v4.sql")).decode()
    results = json.loads(read(os.path.join(HERE, "../golden/sample.json")))
    full = "UPDATE run SET result_json='%s'" % json.dumps(results[0], separators=(",", ":")).replace("'", "''")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "store.db")
        db = sqlite3.connect(path, isolation_level=None)
        # Small pages: a fuzzer sees the whole file.
        db.executescript("PRAGMA page_size=512;" + golden + full)
        db.execute("VACUUM")
        db.close()
        for how in range(8):
            write("store", f"file-{how}", b"d" + bytes([how]) + read(path))
        db = sqlite3.connect(path, isolation_level=None)
        db.executescript("UPDATE run SET state='running' WHERE id=2; PRAGMA journal_mode=WAL")
        db.close()
        write("store", "running", b"d\4" + read(path))
        logs(path)
    for i, sql in enumerate([*HOSTILE_SQL, full, "SELECT 1"]):
        for how in range(8):
            write("store", f"sql-{i}-{how}", b"q" + bytes([how]) + sql.encode())


def results():
    frozen = json.loads(read(os.path.join(HERE, "../golden/sample.json")))
    for i, result in enumerate(frozen):
        write("results", f"one-{i}", json.dumps(result, separators=(",", ":")))
    typed = frozen[0] | {"by_type": {"text": {"mass": 0.5, "kept_share": 1}, "im\u001bage": None}, "trace": 'a,"b\n'}
    write("results", "typed", json.dumps([typed, typed | {"policy": "full", "steps": None}]))
    write("results", "small", '[{"a":{"b":1,"b.c":[1,2]},"policy":"full","trace":"\\u001b[2J"},{"a":null,"d":[{"e":1}]}]')
    write("results", "empty", "[]")


def exports():
    rows = [
        ("x.safetensors", "a", "tiny", "text,image", "full", "full", 0), ("sub/x", "b", "m\x1b[1m", "te\"xt,b", "a\nb", "oracle:k=2", 1),
        ("/x", "c d", "", "t", "recycled", "recycled:k=2,stride=2", 2), (".", "%s", "m", "a", "", "streaming:k=3,sinks=1", 4),
        ("a" * 260, "x", "m", "a,b,c", "teacher_forced", "recycled:k=1/2,stride=2,sim=0.5,query=post", 6),
        ("x y:z=,@", "n" * 100, "m" * 300, "a", "greedy", "recycled:k=2,stride=3\nfull", 8), ("x", "x", "é\xff", "a", "a", "full", 0),
        ("x", "é\t", "m,\"n\"", "a", "=cmd|' /C calc'!A0", "oracle:k=1\nstreaming:k=2,sinks=1\nfull", 13), ("", "", "", "", "", "", 31),
    ]  # fmt: skip
    for i, (*texts, how) in enumerate(rows):
        write("export", f"row-{i}", bytes([how]) + "\0".join(texts).encode("utf-8" if i % 2 else "latin-1"))


SIZES = {
    "hidden_size": 2, "intermediate_size": 1, "num_hidden_layers": 1, "vocab_size": 3, "num_attention_heads": 1,
    "head_dim": 8, "max_position_embeddings": 64, "tie_word_embeddings": True,
}  # fmt: skip
SCALED = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}
FAMILIES = {
    "llama": {"rope_theta": 1e5, "rope_scaling": SCALED, "eos_token_id": [0, 2], "bos_token_id": 1},
    "mistral": {"sliding_window": 4, "num_key_value_heads": 1, "rope_parameters": SCALED | {"rope_theta": 1e4}},
    "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0},
    "qwen3": {"layer_types": ["full_attention"], "attention_bias": False},
    "gemma3_text": {"sliding_window": 4, "sliding_window_pattern": 2, "rope_local_base_freq": 1e4},
}


def headed(tensors, metadata=None):
    """Header, NUL and data: [name, dtype, shape, bytes]."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, dtype, shape, content in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    return json.dumps(header, separators=(",", ":")).encode() + b"\0" + data


def weights(family):
    layer = {
        "input_layernorm.weight": [2], "post_attention_layernorm.weight": [2], "mlp.gate_proj.weight": [1, 2],
        "mlp.up_proj.weight": [1, 2], "mlp.down_proj.weight": [2, 1], "self_attn.o_proj.weight": [2, 8],
    } | {f"self_attn.{which}_proj.weight": [8, 2] for which in "qkv"}  # fmt: skip
    if family == "qwen2":
        layer |= {f"self_attn.{which}_proj.bias": [8] for which in "qkv"}
    if family in ("qwen3", "gemma3_text"):
        layer |= {f"self_attn.{which}_norm.weight": [8] for which in "qk"}
    if family == "gemma3_text":
        layer |= {f"{which}_feedforward_layernorm.weight": [2] for which in ("pre", "post")}
    shapes = {"model.embed_tokens.weight": [3, 2], "model.norm.weight": [2]}
    shapes |= {"model.layers.0." + name: shape for name, shape in layer.items()}
    return [[name, "BF16", shape, b"\x80\x3f" * math.prod(shape)] for name, shape in shapes.items()]


def models():
    for family, more in FAMILIES.items():
        kv = {"num_key_value_heads": 1} if family == "gemma3_text" else {}
        config = json.dumps({"model_type": family} | SIZES | kv | more, separators=(",", ":"))
        write("model", family, config)
        write("model", family + "-weights", config.encode() + b"\0" + headed(weights(family)))
    nested = {"model_type": "gemma3", "text_config": {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 7}}
    write("model", "nested", json.dumps(nested))
    i32 = lambda *values: struct.pack(f"<{len(values)}i", *values)
    write("model", "ids", b"i" + headed([["tokens", "I32", [3], i32(1, 2, 49)]], {"format": "rattn-tokens", "version": "1.0"}))
    prompts = [
        ["tokens", "I32", [5], i32(1, 2, 3, 4, 5)], ["lengths", "I32", [2], i32(3, 2)], ["prompt_len", "I32", [2], i32(1, 1)],
        ["seed", "I64", [2], struct.pack("<2q", 7, -1)], ["depth", "F32", [2], struct.pack("<2f", 0.5, math.nan)],
        ["probe", "I32", [2, 2], i32(0, 2, 1, 1)], ["candidates", "I32", [2, 2], i32(9, -1, 8, 7)],
    ]  # fmt: skip
    write("model", "prompts", b"p" + headed(prompts, {"format": "rattn-prompts", "version": "1.0", "task": "t", "family": "f"}))


def made_imports():
    text = {"document": "a/b.ids", "prompt_len": 4, "steps": 3, "nll": [1.5, 2, 0.25], "kl": [0, 0.5, 1], "keys_read": 40,
            "full_layer_steps": 2, "layers": [0, 1], "hf_wall": {"method": "hf-wall", "prefill_s": 0.5, "decode_s": 1}}
    prompt = {"document": "0", "prompt_len": 4, "steps": 1, "right": True, "hits": 0.5, "margin": -1, "seed": -3, "depth": 0.5}
    top = {"format": "rattn-eval", "version": "1.0", "tool": "decode_hf", "tool_version": "1.0", "model": "m/x"}
    pair = lambda one, other: [one, one | {"document": "c"} | other]
    rows = lambda task, docs, more: [{"task": task, "policy": p, "documents": d} for p, d in (("full", docs), ("streaming:k=8", more))]
    yield top | {"results": rows("ppl", pair(text, {}), pair(text, {"nll": [3, 3, 3], "keys_read": 10}))}
    yield top | {"results": rows("niah", pair(prompt, {"right": False}), pair(prompt, {}))}
    yield top | {"device": "x\u001b[1m", "dtype": "bf16", "results": rows("ppl", [text], [text]) + rows("vt", [prompt], [prompt])}
    yield top | {"results": [{"task": "t<b>", "policy": "recycled:k=4,stride=2+int8", "documents": [text | {"nll": [1e308, 1e308, 1e308]}]}]}
    yield top | {"version": "2.0", "results": []}


def imports():
    for i, made in enumerate(made_imports()):
        for how in range(2):
            write("import", f"made-{i}-{how}", bytes([how]) + json.dumps(made, separators=(",", ":")).encode())


for part in (traces, extremes, spellings, stores, results, exports, models, imports):
    part()
