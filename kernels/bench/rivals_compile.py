# SPDX-License-Identifier: Apache-2.0
"""Compiles FlashInfer's decode modules ahead of time, on a machine without torch and without a GPU.

FlashInfer itself says what to compile and with which flags; its imports of torch find a stand-in
that answers any attribute. The modules need no torch headers. They go where FlashInfer looks for
modules compiled ahead. usage: rivals_compile.py SITE WORK_FOLDER; JOBS compilers run at a time (2).
"""

import os
import shutil
import subprocess
import sys
import types

SHAPES = (("bfloat16", 128), ("float16", 128), ("bfloat16", 64))


class Anything(types.ModuleType):
    """A module, class, function or value, as needed."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = Anything(f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value

    def __call__(self, *arguments, **_keywords):
        # As a decorator it leaves the function alone.
        return arguments[0] if len(arguments) == 1 and callable(arguments[0]) else self

    def __int__(self):
        return 1

    def __or__(self, _other):
        return self

    __ror__ = __or__


def stand_in_for_torch():
    torch = Anything("torch")
    torch.__version__ = torch.version.__version__ = torch.torch_version.__version__ = "2.11.0"
    torch.version.cuda = "13.0"
    torch.torch_version.TorchVersion = lambda text: tuple(int(n) for n in text.split("."))
    sys.modules["torch"] = torch
    for name in ("version", "torch_version", "cuda", "library", "nn", "distributed", "utils"):
        sys.modules[f"torch.{name}"] = getattr(torch, name)
    sys.modules["torch.nn.functional"] = torch.nn.functional
    return torch


def stand_in_for_tvm_ffi(site):
    """Only its include paths are asked for; the library in SITE is for another Python."""
    ffi = Anything("tvm_ffi")
    include = os.path.join(site, "tvm_ffi", "include")
    ffi.libinfo.find_include_path = ffi.libinfo.find_dlpack_include_path = lambda: include
    sys.modules["tvm_ffi"] = ffi


def specs_of(torch):
    from flashinfer.jit.attention import modules

    for name, width in SHAPES:
        dtype = getattr(torch, name)
        types_and_width = (dtype, dtype, dtype, width, width, 0, False, False)
        indexed = (dtype, dtype, dtype, torch.int32, width, width, 0, False, False)
        yield modules.gen_batch_decode_module(*indexed)
        yield modules.gen_single_decode_module(*types_and_width)
        yield modules.gen_batch_prefill_module("fa2", *indexed, False)
        yield modules.gen_single_prefill_module("fa2", *types_and_width, False)


def main(site, work):
    site, work = os.path.abspath(site), os.path.abspath(work)
    os.environ["FLASHINFER_CUDA_ARCH_LIST"] = "9.0a"
    os.environ["FLASHINFER_WORKSPACE_BASE"] = work
    stand_in_for_tvm_ffi(site)
    torch = stand_in_for_torch()
    sys.path.insert(0, site)
    for spec in specs_of(torch):
        spec.write_ninja()
        subprocess.run(["ninja", "-C", spec.build_dir, "-j", os.environ.get("JOBS", "2")],
                       check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        spec.aot_path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(spec.jit_library_path, spec.aot_path)
        subprocess.run(["strip", spec.aot_path], check=True)
        print(f"{spec.name}: {spec.aot_path.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
