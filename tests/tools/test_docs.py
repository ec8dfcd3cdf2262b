#!/usr/bin/env python3
"""What the documents say is so: the tables of docs/design.md, the programs of docs/guide.md, the picture's generator,
the links between the pages, and examples/hello.c, which is the README's first program.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TOOLS = os.path.join(ROOT, "tools")
sys.path[:0] = [HERE, TOOLS]

import counted
import invariants
import mmu
import pauses
import readme_program

PREFIX = os.environ.get("TRI_TEST_PREFIX", os.path.join(ROOT, "zig-out"))
PAGES = ["README.md", "HACKING.md", "docs/design.md", "docs/guide.md", "docs/benchmarks.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.M)
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-D_GNU_SOURCE"]


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def anchors(text):
    """The names that a heading gets in the usual renderers."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


class Design(unittest.TestCase):
    def test_tables_agree_with_the_code(self):
        self.assertEqual(invariants.problems(ROOT), [])

    def test_names_exist(self):
        """What stands in backquotes and has an underscore is a name in the code, in the model, of the system's, or part
        of a file's name."""
        code = "".join(read(path) for path in [*invariants.sources(ROOT), "tests/model/onthefly.pml"])
        code += "SA_RESTART posix_spawn "
        code += "\n".join(os.listdir(os.path.join(ROOT, "bench", "field")))
        for page in ("docs/design.md", "docs/guide.md"):
            for quote in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", read(page), flags=re.S)):
                for name in re.findall(r"\b[A-Za-z_]\w*\b", quote):
                    with self.subTest(page=page, name=name):
                        self.assertTrue("_" not in name or name in code)

    def planted(self, change):
        """What invariants.py finds after `change` was made to a copy of the tree."""
        with tempfile.TemporaryDirectory() as root:
            for top in ("alloc", "gc", "include", "docs"):
                shutil.copytree(os.path.join(ROOT, top), os.path.join(root, top))
            for path, old, new in change:
                with open(os.path.join(root, path), encoding="utf-8") as file:
                    text = file.read()
                self.assertIn(old, text)
                with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                    file.write(text.replace(old, new))
            return invariants.problems(root)

    def test_differences_are_found(self):
        self.assertTrue(self.planted([("gc/pacer.h", "I-PACE2", "I-PACE7")]))
        self.assertTrue(self.planted([("docs/design.md", "| I-PACE2 |", "| I-PACE9 |")]))
        self.assertTrue(self.planted([("docs/design.md", "| 40 | `RANK_GATE` |", "| 45 | `RANK_GATE` |")]))
        self.assertTrue(self.planted([("docs/design.md", "| R14 |", "| R41 |")]))
        self.assertTrue(self.planted([("gc/pacer.c", "see pacer.h", "see R22")]))


class Programs(unittest.TestCase):
    def test_hello_is_the_readme_program(self):
        self.assertEqual(readme_program.first_program(read("README.md")), read("examples/hello.c"))

    def test_guide_programs_compile_and_run(self):
        blocks = readme_program.BLOCK.findall(read("docs/guide.md"))
        self.assertGreater(len(blocks), 5)
        for number, block in enumerate(blocks, 1):
            with self.subTest(block=number), tempfile.TemporaryDirectory() as folder:
                source, program = os.path.join(folder, "block.c"), os.path.join(folder, "block")
                with open(source, "w", encoding="utf-8") as file:
                    file.write(block)
                whole = "int main(" in block
                command = ["gcc", *WARNINGS, "-O2", f"-I{PREFIX}/include", source, "-o", program]
                command += [os.path.join(PREFIX, "lib", "libtrigc.a"), "-lpthread", "-lm"] if whole else ["-c"]
                done = subprocess.run(command, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)
                if whole:
                    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
                    self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)


class Messages(unittest.TestCase):
    def test_quoted_messages_are_in_the_code(self):
        """Each part of a message that the guide quotes, between its dots, is in a format string of gc/."""
        code = ""
        for path in invariants.sources(ROOT):
            if path.startswith("gc"):
                code += re.sub(r'"\s*"', "", read(path))  # adjacent literals are one
        table = read("docs/guide.md").split("## Common mistakes")[1]
        said = [line.split("|")[3] for line in table.splitlines() if line.startswith("|")]
        quotes = [quote for cell in said for quote in cell.split("`")[1::2] if " " in quote]
        self.assertGreaterEqual(len(quotes), 5)
        for quote in quotes:
            for part in re.split(r"\.\.\.|^checkmark:", quote):
                with self.subTest(part=part):
                    self.assertTrue(part.strip() in code, part)


class Pages(unittest.TestCase):
    def test_links_lead_somewhere(self):
        for page in PAGES:
            for link in LINK.findall(read(page)):
                if "://" in link:
                    continue
                with self.subTest(page=page, link=link):
                    path, _, anchor = link.partition("#")
                    target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
                    self.assertTrue(os.path.exists(os.path.join(ROOT, target)), target)
                    if anchor:
                        self.assertIn(anchor, anchors(read(target)))

    def test_picture_shows_every_curve(self):
        def row(peer, worst):
            curve = [[0.0, 20], [0.9, 100], [0.999, 10000]]
            return {"peer": peer, "ok": True, "gaps": {"curve": curve, "worst": worst}}

        scene = {"id": "store", "title": "a < b", "rows": [row("trigc", 1000000), row("boehm", 80000000)]}
        results = {"cores": 2, "cpu": "a processor", "when": "today", "scenes": [scene]}
        picture = pauses.draw(json.loads(json.dumps(results)), ("store", "lru512"))
        self.assertEqual(picture.count("<polyline"), 2)
        self.assertIn("boehm: worst 80.0 ms", picture)
        self.assertIn("a &lt; b", picture)
        with self.assertRaises(SystemExit):
            pauses.draw(results, ("list",))

    def test_utilisation_is_the_worst_window(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("run 0 1000\nphase 5 mark\npause 7 100 120 handshake\npause 7 105 110 scan\n")
            file.write("pause 7 130 140 assist\npause 7 500 900 wait\npause 8 300 310 sweep\n")
            file.flush()
            run, threads = mmu.read(file.name)
        self.assertEqual(run, (0, 1000))
        self.assertEqual(sorted(threads), [[[100, 120], [130, 140]], [[300, 310]]])
        self.assertEqual(mmu.mmu(run, threads, 20), 0)  # the handshake, the scan within it
        self.assertAlmostEqual(mmu.mmu(run, threads, 40), 1 - 30 / 40)
        self.assertAlmostEqual(mmu.mmu(run, threads, 400), 1 - 30 / 400)
        self.assertEqual(mmu.draw([("a", [(10000, 0.5)]), ("<b", [(10000, 1)])]).count("<polyline"), 2)


if __name__ == "__main__":
    sys.exit(counted.main())
