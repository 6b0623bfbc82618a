"""`python -m smallpress`, as torchrun starts it: the command line."""

import runpy

if __name__ == "__main__":
    runpy.run_module("smallpress.cli.main", run_name="__main__", alter_sys=True)
