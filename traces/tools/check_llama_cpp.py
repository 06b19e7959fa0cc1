# SPDX-License-Identifier: Apache-2.0
"""The reference decoder against llama.cpp (package xllamacpp): an implementation by other people.

llama.cpp gets the same dequantised weights as an F32 GGUF, in that format's own row order, so a
wrong un-permutation, RoPE base, norm or head map here would show. Compared: token ids of the text,
and from four prompt lengths 48 greedy tokens with the log-probabilities of the ten best. 4 GiB.
"""

import argparse
import json
import os
import sys
import urllib.request

import numpy as np

import prepare_model
import reference_forward as forward
import safetensors_io
import token_ids

PROMPTS, STEPS, BEST = (1, 200, 512, 1536), 48, 10


def export_f32(source, target):
    """Rewrite a GGUF with every tensor as F32; all metadata but the file type is kept."""
    reader_class, dequantize = prepare_model.import_gguf()
    from gguf.constants import GGUFValueType
    from gguf.gguf_writer import GGUFWriter

    reader = reader_class(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, inner)
    writer.add_file_type(0)
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, np.ascontiguousarray(weight, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def start_server(gguf_path):
    """A llama.cpp server inside this process; returns a function that posts to it."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = gguf_path
    params.n_ctx, params.n_parallel, params.n_gpu_layers, params.warmup = 4096, 1, 0, False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads, params.port, params.verbosity = 1, 0, 0
    server = xllamacpp.Server(params)

    def post(path, body):
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(
            server.listening_address + path, json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)

    return post


def greedy(post, prompt):
    """[(token, [(candidate, log-probability), ...]), ...] as llama.cpp decodes."""
    body = {"prompt": prompt, "n_predict": STEPS, "n_probs": BEST, "cache_prompt": False}
    body |= {"temperature": 0, "samplers": ["top_k"], "top_k": 1}
    steps = post("/completion", body)["completion_probabilities"]
    return [(s["id"], [(c["id"], c["logprob"]) for c in s["top_logprobs"]]) for s in steps]


def main():
    parser = argparse.ArgumentParser(description="compare the reference decoder with llama.cpp")
    parser.add_argument("model", help="prepared model directory, with the .gguf it was made from")
    parser.add_argument("ids", help="ids file of English text")
    args = parser.parse_args()
    names = [name for name in os.listdir(args.model) if name.endswith(".gguf")]
    if len(names) != 1:
        raise SystemExit(f"check_llama_cpp: {args.model}: {len(names)} .gguf files, expected 1")
    exported = os.path.join(args.model, "f32.gguf.tmp")
    export_f32(os.path.join(args.model, names[0]), exported)
    ids = safetensors_io.Reader(args.ids).raw("tokens").tolist()
    tokenizer, model = token_ids.load_tokenizer(args.model), forward.Model.load(args.model)
    good = True
    try:
        post = start_server(exported)
        text = tokenizer.decode(ids)
        theirs = post("/tokenize", {"content": text, "add_special": False})["tokens"]
        good &= theirs == ids
        print(f"tokenizer: {len(ids)} ids of {len(text.encode())} bytes, equal: {theirs == ids}")
        for length in PROMPTS:
            decoder, worst, equal = forward.Decoder(model, length + STEPS, "f32"), 0.0, 0
            logits = decoder.prefill(np.array(ids[:length]))
            steps = greedy(post, ids[:length])
            for token, candidates in steps:
                mine = forward.log_softmax(logits)
                worst = max([worst] + [abs(mine[i] - value) for i, value in candidates])
                equal += int(mine.argmax()) == token
                logits = decoder.logits(decoder.forward(np.array([token])))[0]
            good &= worst <= 2e-3 and equal == len(steps) == STEPS
            figures = (
                f"{equal} of {STEPS} greedy tokens equal, log-probabilities of the {BEST} best"
            )
            print(f"prompt {length}: {figures} within {worst:.1e} (bound 2e-3)", flush=True)
    finally:
        os.unlink(exported)
    print("agrees" if good else "DISAGREES")
    sys.stdout.flush()
    os._exit(0 if good else 1)  # the server's threads have no way to be joined


if __name__ == "__main__":
    main()
