# SPDX-License-Identifier: Apache-2.0
"""Documents for perplexity, as ids files: essays, a TeX manual, code, HTML full of tables.

Each is a part of a file in a Debian package, which is downloaded and unpacked, not installed. What
counts is the SHA-256 of the text that was taken out; a package that holds another text is refused. The
texts keep their licences (they are listed below) and are never committed.
usage: make_texts.py MODEL_DIR [-o FOLDER]     FOLDER/NAME-NUMBER.ids.safetensors
"""

import argparse
import glob
import hashlib
import html
import os
import re
import subprocess
import sys

import numpy as np

import safetensors_io

# domain: package, version seen, licence, how the text is read; (file, first character, SHA-256 of the
# CHARACTERS from there on).
CHARACTERS = 24000
SOURCES = {
    "essay": ("anarchism", "15.3-3", "GPL-2", "html", [
        ("usr/share/doc/anarchism/html/secF3.html", 3000, "a9027474af2c11c859ee4b86c83333dac0cc562073633ba35608bfb2709e59e4"),
        ("usr/share/doc/anarchism/html/secE5.html", 500, "ba5d4fb76f5dc39ecfaff69798bd10c9d3aa7c24d4e186d134f344f81a89bd14"),
        ("usr/share/doc/anarchism/html/secF8.html", 3000, "8186e4842aa2eb4462891d44288046355fd9815174303a48c9ad295a21f59ae6"),
    ]),
    "manual": ("pari-doc", "2.15.2-1", "GPL-2+", "plain", [
        ("usr/share/pari/doc/usersch4.tex", 2000, "ee20ad1d0c2b2ceb192e76b3a56bab432e517f61de94d47185ba46f191f82fa4"),
        ("usr/share/pari/doc/usersch5.tex", 30000, "94c8d0600c4189fbe5e66cff1397189c22987a123331687b70f2efedd103487b"),
        ("usr/share/pari/doc/usersch3.tex", 90000, "8d9a81e03ad154316abc9b12d785084e2fa80e243cea5ccf6633e36ed8564830"),
    ]),
    "code": ("libpython3.11-stdlib", "3.11.2-6", "PSF", "plain", [
        ("usr/lib/python3.11/mailbox.py", 0, "a8aca718976725896164883699e213465e00fd7a3ff006b2ff93c0b57f7c9cec"),
        ("usr/lib/python3.11/statistics.py", 0, "504dfc687648436024bedf3675ff7a6d89aad50f38095dcc2265a0dfffd98bb3"),
        ("usr/lib/python3.11/difflib.py", 0, "2facc483f3265928155f70b961a6725b21d3e25ac6d72263ea459fd0a3865771"),
    ]),
    "tables": ("sqlite3-doc", "3.40.1-2", "public domain", "plain", [
        ("usr/share/doc/sqlite3/chronology.html", 8000, "eff78ff78fa0f25fec551a8df15d4ddf0e9e55a3dbd4ecfc289db673ae8ac528"),
        ("usr/share/doc/sqlite3/opcode.html", 20000, "24faa799a473f6299969c997898e99372af2c36ba307b130e32b1b9710ab0c32"),
        ("usr/share/doc/sqlite3/fileformat2.html", 40000, "0f2bf4473993fd378302b86a65d4a0368c1b561e98037d5fefd6edb53ada7198"),
    ]),
}  # fmt: skip


def fail(text):
    raise SystemExit("make_texts: " + text)


def unpack(package, folder):
    """The package's files below FOLDER/packages/PACKAGE."""
    root = os.path.join(folder, "packages", package)
    if os.path.isdir(os.path.join(root, "usr")):
        return root
    os.makedirs(root, exist_ok=True)
    print("make_texts: fetching %s" % package, file=sys.stderr)
    # apt drops to a user that may not write here and says so; root then fetches all the same.
    argv = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package]
    if subprocess.run(argv, cwd=root, check=False).returncode != 0:
        fail("%s could not be fetched with apt-get download" % package)
    debs = glob.glob(os.path.join(root, "*.deb"))
    if len(debs) != 1 or subprocess.run(["dpkg-deb", "-x", debs[0], root], check=False).returncode != 0:
        fail("%s: expected one package that dpkg-deb unpacks, got %s" % (root, debs))
    return root


def plain_words(text):
    """HTML without its tags; blank lines as one."""
    text = re.sub(r"(?s)<(script|style|head)\b.*?</\1>", "", text)
    text = html.unescape(re.sub(r"(?s)<[^>]+>", "", text))
    return re.sub(r"\n[ \t]*(\n[ \t]*)+", "\n\n", text)


def take(root, path, kind, first):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
        text = file.read()
    text = plain_words(text) if kind == "html" else text
    return text[first : first + CHARACTERS]


def main():
    parser = argparse.ArgumentParser(description="documents for perplexity, as ids files")
    parser.add_argument("model", help="prepared model directory")
    parser.add_argument("-o", "--output", default="build/texts")
    parser.add_argument("--show", action="store_true", help="print the digests instead of checking them")
    args = parser.parse_args()
    import tokenizers

    vocabulary = os.path.join(args.model, "tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(vocabulary)
    for domain, (package, version, licence, kind, parts) in SOURCES.items():
        root = unpack(package, args.output)
        for number, (path, first, expected) in enumerate(parts):
            text = take(root, path, kind, first)
            digest = hashlib.sha256(text.encode()).hexdigest()
            if args.show:
                print(domain, number, len(text), digest)
            elif digest != expected:
                fail("%s: %s: SHA-256 of characters %d to %d is %s, expected %s: the package holds another "
                     "text than version %s" % (package, path, first, first + CHARACTERS, digest, expected, version))  # fmt: skip
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            out = os.path.join(args.output, "%s-%d.ids.safetensors" % (domain, number))
            safetensors_io.write(out, [("tokens", "I32", np.array(ids, np.int32))], {
                "format": "rattn-tokens", "version": "1.0", "domain": domain, "license": licence,
                "tokenizer.sha256": safetensors_io.file_sha256(vocabulary), "source_sha256": digest,
                "source": "Debian %s %s, %s, characters %d to %d"
                % (package, version, path, first, first + len(text))})  # fmt: skip
            print("%s: %d tokens" % (out, len(ids)))


if __name__ == "__main__":
    main()
