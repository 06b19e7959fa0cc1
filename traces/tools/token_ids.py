# SPDX-License-Identifier: Apache-2.0
"""Text <-> token ids, with the tokenizer.json of a prepared model directory. Command: tokenize.py.

The ids file is a safetensors file with one I32 tensor `tokens` [n] and metadata
`format=rattn-tokens`, `version=1.0`, `tokenizer.sha256`, and where the text came from (`source`,
`source_sha256`, `license`). Decoders read ids only.
"""

import argparse
import hashlib
import os
import sys

import numpy as np

import safetensors_io


def load_tokenizer(model_dir):
    import tokenizers

    return tokenizers.Tokenizer.from_file(os.path.join(model_dir, "tokenizer.json"))


def encode(args):
    with open(args.text, "rb") as file:
        data = file.read()
    digest = hashlib.sha256(data).hexdigest()
    if args.sha256 and digest != args.sha256:
        raise SystemExit(f"tokenize: {args.text}: SHA-256 is {digest}, expected {args.sha256}")
    part = data[args.offset : args.offset + args.bytes if args.bytes else None]
    try:
        text = part.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"bytes {args.offset}..{args.offset + len(part)}"
        raise SystemExit(f"tokenize: {args.text}: {where} are not whole UTF-8 characters: {error}")
    ids = load_tokenizer(args.model).encode(text, add_special_tokens=False).ids
    safetensors_io.write(
        args.output,
        [("tokens", "I32", np.array(ids, np.int32))],
        {
            "format": "rattn-tokens",
            "version": "1.0",
            "tokenizer.sha256": safetensors_io.file_sha256(
                os.path.join(args.model, "tokenizer.json")
            ),
            "source": f"{args.source or os.path.basename(args.text)} offset {args.offset}",
            "source_sha256": digest,
            "license": args.license,
        },
    )
    print(f"{args.output}: {len(ids)} tokens from {len(part)} bytes")


def decode(args):
    ids = safetensors_io.Reader(args.ids).raw("tokens").tolist()
    text = load_tokenizer(args.model).decode(ids[args.first : args.last], skip_special_tokens=False)
    sys.stdout.buffer.write(text.encode("utf-8"))


def main():
    parser = argparse.ArgumentParser(description="text to token ids and back")
    verbs = parser.add_subparsers(dest="verb", required=True)
    enc = verbs.add_parser("encode", help="text file to ids file")
    enc.add_argument("model", help="prepared model directory")
    enc.add_argument("text", help="UTF-8 text file")
    enc.add_argument("-o", "--output", required=True, help="ids file to write")
    enc.add_argument("--offset", type=int, default=0, help="first byte of the text to use")
    enc.add_argument(
        "--bytes", type=int, default=0, help="number of bytes to use (default: to the end)"
    )
    enc.add_argument("--sha256", help="refuse a text file with another SHA-256")
    enc.add_argument("--source", default="", help="name of the text, for the record")
    enc.add_argument("--license", default="unknown", help="licence of the text, for the record")
    enc.set_defaults(run=encode)
    dec = verbs.add_parser(
        "decode", help="ids file, or the tokens of any file with I32 `tokens`, to text on stdout"
    )
    dec.add_argument("model", help="prepared model directory")
    dec.add_argument("ids", help="ids file")
    dec.add_argument("--first", type=int, default=0, help="first token")
    dec.add_argument("--last", type=int, default=None, help="one past the last token")
    dec.set_defaults(run=decode)
    args = parser.parse_args()
    args.run(args)
