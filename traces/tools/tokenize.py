# SPDX-License-Identifier: Apache-2.0
"""Text <-> token ids on the command line; the work is in token_ids.py.

This file has the name of a standard module that others need (linecache, inspect), and the folder of
a script comes first on the path. So when it is imported, it becomes the standard module.
"""

import os

if __name__ == "__main__":
    import token_ids

    token_ids.main()
else:
    __file__ = os.path.join(os.path.dirname(os.__file__), "tokenize.py")
    with open(__file__, encoding="utf-8") as standard:
        exec(compile(standard.read(), __file__, "exec"), globals())
