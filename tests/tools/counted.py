"""Runs a module's unittest cases and ends with the line that tools/runtests.py reads: "N passed, N failed"."""

import sys
import unittest


def main():
    program = unittest.main(module="__main__", exit=False, verbosity=1, argv=sys.argv[:1])
    result = program.result
    nfailed = len(result.failures) + len(result.errors)
    sys.stderr.flush()
    print(f"{result.testsRun - nfailed} passed, {nfailed} failed", flush=True)
    return 1 if nfailed or result.testsRun == 0 else 0
