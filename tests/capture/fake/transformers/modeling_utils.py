# SPDX-License-Identifier: Apache-2.0
from . import VERSION
from .integrations.sdpa_attention import sdpa_attention_forward

ALL_ATTENTION_FUNCTIONS = {"sdpa": sdpa_attention_forward}

if VERSION >= (4, 50):

    class AttentionInterface:
        @staticmethod
        def register(name, function):
            ALL_ATTENTION_FUNCTIONS[name] = function
