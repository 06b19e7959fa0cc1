# SPDX-License-Identifier: Apache-2.0
import numpy as np
import torch


def causal(batch, q_length, kv_length, q_offset, kv_offset, width):
    query = q_offset + np.arange(q_length)[:, None]
    key = kv_offset + np.arange(kv_length)[None, :]
    seen = key <= query
    if width:
        seen &= key > query - width
    return torch.wrap(seen[None, None])
