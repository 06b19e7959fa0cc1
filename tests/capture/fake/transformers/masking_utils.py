# SPDX-License-Identifier: Apache-2.0
from . import VERSION
from .masks import causal as sdpa_mask

if VERSION < (4, 53):
    raise ImportError("masks are looked up by name since 4.53")

MASKS = {"sdpa": sdpa_mask}


class AttentionMaskInterface:
    @staticmethod
    def register(name, function):
        MASKS[name] = function
