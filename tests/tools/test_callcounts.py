#!/usr/bin/env python3
"""The count of instructions reads callgrind's output right, and its comparison sees what got worse."""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tools")]

import callcounts
import counted

# Two loops as callgrind writes them with whole names: the lines after calls= are inclusive costs.
OUT = """version: 1
fn=once_empty
78 3
cfn=loop_empty
calls=1 75
78 50
fn=main
140 1
cfn=once_empty
calls=1 78
140 62
cfn=twice_empty
calls=1 80
141 110
cfn=once_poll
calls=1 90
150 110
cfn=twice_poll
calls=1 92
150 206
cfn=tri_attach
calls=1 10
130 99999
"""


class Counts(unittest.TestCase):
    def test_inclusive_costs_of_the_loops_are_read(self):
        self.assertEqual(callcounts.parse(OUT), {"once_empty": 62, "twice_empty": 110, "once_poll": 110,
                                                 "twice_poll": 206})

    def test_a_call_is_the_difference_without_the_loop(self):
        costs = callcounts.parse(OUT)
        for name, _, _ in callcounts.PATHS:
            costs.setdefault("once_" + name, costs["once_poll"])
            costs.setdefault("twice_" + name, costs["twice_poll"])
        self.assertEqual(set(callcounts.counts(costs).values()), {48 / callcounts.CALLS})

    def test_a_table_reads_back_as_it_was_written(self):
        found = {name: 3.0 + i for i, (name, _, _) in enumerate(callcounts.PATHS)}
        self.assertEqual(callcounts.committed(callcounts.render(found)), found)

    def test_more_instructions_are_a_complaint_and_fewer_a_remark(self):
        table = {name: 10.0 for name, _, _ in callcounts.PATHS}
        self.assertEqual(callcounts.compare(table, table), ([], []))
        worse, better = callcounts.compare(dict(table, poll=10.5, load=9.0), table)
        self.assertEqual((len(worse), len(better)), (1, 1))
        self.assertIn("tri_poll", worse[0])
        self.assertEqual(callcounts.compare(dict(table, poll=10.1), table), ([], []))

    def test_a_path_without_a_row_is_a_complaint(self):
        table = {name: 10.0 for name, _, _ in callcounts.PATHS}
        self.assertEqual(len(callcounts.compare(table, {})[0]), len(table))

    def test_the_committed_table_has_every_path(self):
        with open(callcounts.TABLE, encoding="utf-8") as file:
            self.assertEqual(set(callcounts.committed(file.read())), {name for name, _, _ in callcounts.PATHS})


if __name__ == "__main__":
    sys.exit(counted.main())
