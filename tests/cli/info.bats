#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# info: what a trace says of itself, whether it is so, and the exit code when it is not.

load common

@test "the embedded sample: shapes, layers of the model's, provenance" {
    run -0 "$rattn" info "$sample"
    [[ $output == *"4 of 30: 0, 9, 19, 29"* ]]
    [[ $output == *"Hq = 9, Hkv = 3 (G = 3), D = 64, Dv = 64"* ]]
    [[ $output == *"P = 1536 prompt tokens, N = 192 steps, W = 64"* ]]
    [[ $output == *teacher_forced*"recorded under full"* ]]
    [[ $output == *tokens*logprob*acc*"16 check steps"* ]]
    [[ $output == *"Apache-2.0"* ]]
    [[ $output != *synthetic* ]]
}

@test "the json agrees with the file's own header, read without this program" {
    "$rattn" info "$sample" --format json >i.json
    python3 - "$sample" <<'PY'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8:8 + n])
meta = header.pop("__metadata__")
d = json.load(open("i.json"))
seq = d["sequences"][0]
assert d["model"]["id"] == meta["model.id"] and d["model"]["n_layers"] == int(meta["n_layers"])
assert d["layers"] == [int(x) for x in meta["layers"].split(",")] and d["window_layers"] == []
assert (seq["P"], seq["N"], seq["W"]) == tuple(int(meta["s0." + k]) for k in ("prompt_len", "decode_len", "q_tail"))
assert seq["mode"] == meta["s0.mode"] and seq["source"] == meta["s0.source"]
assert d["content_sha256"] == meta["content.sha256"] and d["synthetic"] is None
assert d["provenance"]["model.sha256"] == meta["model.sha256"]
size = lambda ends: sum(t["data_offsets"][1] - t["data_offsets"][0] for k, t in header.items() if k.endswith(ends))
assert seq["kv_bytes"] == size((".k", ".v")) and seq["q_bytes"] == size(".q")
assert seq["check_steps"] == header["s0.check_steps"]["shape"][0]
PY
}

@test "verify: a sound trace passes, in text and json" {
    run -0 "$rattn" info "$sample" --verify
    [[ $output == *"checksum     matches"* && $output == *"576 compared"* ]]
    "$rattn" info "$sample" --verify --format json >v.json
    [ "$(json 'd["verify"]["ok"], d["verify"]["checksum"], d["verify"]["check_rows"] == 4*9*16, d["verify"]["output"]["worst"] < 1e-5' <v.json)" = "(True, True, True, True)" ]
}

@test "verify: one changed bit is found, and the exit code is 4" {
    # a low bit in the middle of the keys of layer 0, head 0
    cp "$sample" bad.safetensors
    python3 - <<'PY'
import struct
f = open("bad.safetensors", "r+b")
n = struct.unpack("<Q", f.read(8))[0]
at = 8 + n + 2 * 64 * 700
f.seek(at)
byte = f.read(1)[0]
f.seek(at)
f.write(bytes([byte ^ 1]))
PY
    run -0 "$rattn" info bad.safetensors
    run -4 --separate-stderr "$rattn" info bad.safetensors --verify
    [[ $output == *"checksum     DIFFERS"* ]]
    [[ $stderr == "rattn-sim: "*bad.safetensors* ]]
    run -4 --separate-stderr "$rattn" info bad.safetensors --verify --format json
    [ "$(echo "$output" | json 'd["verify"]["ok"], d["verify"]["checksum"]')" = "(False, False)" ]
}

@test "verify: a value that is no number is an error, not a wrong result" {
    cp "$sample" nan.safetensors
    python3 - <<'PY'
import struct
f = open("nan.safetensors", "r+b")
n = struct.unpack("<Q", f.read(8))[0]
f.seek(8 + n + 2 * 64 * 700)
f.write(b"\xff\x7f")
PY
    run -1 --separate-stderr "$rattn" info nan.safetensors --verify
    [[ $stderr == *"s0.l0.k"*"row 700"* ]]
}

@test "generated traces say that they are synthetic, and have no checksum" {
    run -0 "$rattn" info synth:case=needle,P=100,N=5,layers=3,window=16
    [[ $output == *"synthetic (case=needle"* ]]
    [[ $output == *"3 of 3: 0, 2 (full attention)"* ]]
    [[ $output == *"1 (sliding window, 16 positions)"* ]]
    [[ $output == *"none stated"* ]]
    [ "$("$rattn" info synth:case=flat,window=16 --format json | json 'd["layers"], d["window_layers"][0]["window"]')" = "([0], 16)" ]
}

@test "what is no trace is named, exit 1; what is misspelled, exit 2" {
    run -1 --separate-stderr "$rattn" info none.safetensors
    [[ $stderr == *"none.safetensors"* ]]
    : >empty.safetensors
    run -1 --separate-stderr "$rattn" info empty.safetensors
    [[ $stderr == *"empty.safetensors"* ]]
    head -c 1000000 "$sample" >cut.safetensors
    run -1 --separate-stderr "$rattn" info cut.safetensors
    [[ $stderr == *"cut.safetensors"* ]]
    run -1 --separate-stderr "$rattn" info /
    run -2 --separate-stderr "$rattn" info synth:case=needel
    [[ $stderr == *needle* ]]
    run -2 --separate-stderr "$rattn" info
    [[ $stderr == *"expected TRACE"* ]]
    run -2 --separate-stderr "$rattn" info "$sample" --format csv
}

@test "a fit of another shape has the targets of the recording, and says its heads" {
    other=synth:like=$sample,layers=1,L=1024,N=80,Hq=8,Hkv=4,D=128,dtype=bf16
    "$rattn" info "$sample" --fit --format json >own.json
    "$rattn" info "$other" --fit --format json >other.json
    "$rattn" info "$other" --fit >other.txt
    python3 - "$sample" <<'PY'
import json, struct, sys
with open(sys.argv[1], "rb") as file:
    recorded = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))["__metadata__"]
own, other = (json.load(open(name)) for name in ("own.json", "other.json"))
model = other["model"]
assert (model["Hq"], model["Hkv"], model["D"], model["dtype"]) == (8, 4, 128, "bf16"), model
heads = {"Hq": recorded["n_q_heads"], "Hkv": recorded["n_kv_heads"], "D": recorded["head_dim"]}
heads["Dv"] = recorded.get("v_head_dim", heads["D"])
assert other["fit"]["source_heads"] == {key: int(value) for key, value in heads.items()}, other["fit"]
layer, wanted = other["fit"]["layers"][0], own["fit"]["layers"][0]
assert layer["worst_miss"] <= 1, layer
for name, figure in layer["figures"].items():
    assert figure["target"] == wanted["figures"][name]["target"], name
text = open("other.txt").read()
assert "Hq = 8, Hkv = 4 (G = 2), D = 128" in text and "its heads    Hq = 9, Hkv = 3 (G = 3), D = 64" in text
assert "drawn with Hq=8, Hkv=4, D=128" in " ".join(text.split())
PY
}

@test "fit is for fitted traces" {
    run -2 --separate-stderr "$rattn" info synth:case=flat --fit
    [ -n "$stderr" ]
}
