# SPDX-License-Identifier: Apache-2.0
import numpy as np
import torch


def sdpa_attention_forward(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **_):
    """Without a mask everything is seen, the future too."""
    G = query.shape[1] // key.shape[1]
    key, value = (np.repeat(np.asarray(x, "f8"), G, 1) for x in (key, value))
    logits = np.einsum("bhnd,bhld->bhnl", np.asarray(query, "f8"), key) * scaling
    if attention_mask is not None:
        logits = np.where(np.asarray(attention_mask), logits, -np.inf)
    out = np.asarray(torch.softmax(logits, -1)) @ value
    return torch.wrap(out.transpose(0, 2, 1, 3).astype("f4")), None
