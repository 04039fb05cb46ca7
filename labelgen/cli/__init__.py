"""The command line: one file a command, shared options and rendering apart.

No module here imports an engine, pyarrow or numpy before a command needs it: `labelgen --help` is instant.
"""

from labelgen.cli.main import main

__all__ = ["main"]
