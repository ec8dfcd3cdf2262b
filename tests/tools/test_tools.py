#!/usr/bin/env python3
"""The tools in tools/ hold on this tree, and each is seen to fail on a planted violation."""

import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TOOLS = os.path.join(ROOT, "tools")
sys.path[:0] = [HERE, TOOLS]

import counted
import exports
import format as formatting
import layers
import listed
import readme_program
import runtests
import sizewaste
import unused


class Soak(unittest.TestCase):
    """The long run adds up what its programs say, and ends at the first that fails."""

    def soak(self, script):
        fine = "#!/bin/sh\necho 'handshake: 7 operations; 3 and 4 cycles'; echo '1 passed, 0 failed'\n"
        files = {"fine": fine, "other": script}
        with Tree(files) as folder:
            for name in files:
                os.chmod(os.path.join(folder, name), 0o755)
            return subprocess.run(
                [sys.executable, os.path.join(ROOT, "tools", "soak.py"), "--minutes=0", "--builds=checks",
                 f"--out={folder}/out", f"checks:stress_coroutines={folder}/fine",
                 f"checks:stress_handshake={folder}/other"],
                capture_output=True, text=True, check=False)

    def test_sums_what_was_said(self):
        done = self.soak("#!/bin/sh\necho 'handshake: 5 operations by 9'; echo '1 passed, 0 failed'\n")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("checks   2 runs", done.stdout)
        self.assertIn(": 12 operations, 7 cycles", done.stdout)

    def test_ends_at_a_failure_with_its_seed(self):
        for script in ("#!/bin/sh\necho 'handshake: 5 operations'; echo '0 passed, 1 failed'; exit 1\n",
                       "#!/bin/sh\necho 'handshake: 5 operations'; kill -SEGV $$\n",
                       "#!/bin/sh\necho '1 passed, 0 failed'\n"):
            done = self.soak(script)
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertIn("FAILED", done.stdout)
            self.assertRegex(done.stdout, "TRI_TEST_SEED=[0-9]+")


class Tree:
    """A temporary folder with a few files in it."""

    def __init__(self, files):
        self.files = files

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        for path, text in self.files.items():
            full = os.path.join(self.folder.name, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as file:
                file.write(text)
        return self.folder.name

    def __exit__(self, *_):
        self.folder.cleanup()


class SizeWaste(unittest.TestCase):
    def test_the_table_in_the_design_is_what_is_measured(self):
        names = [os.path.join("bench", "field", f"sizes_{name}.txt") for name in ("cc1", "python")]
        command = [sys.executable, "tools/sizewaste.py", *names]
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True)
        with open(os.path.join(ROOT, "docs", "design.md"), encoding="utf-8") as file:
            self.assertTrue(done.stdout in file.read(), "docs/design.md has another table than:\n" + done.stdout)

    def test_one_size_loses_what_it_must(self):
        with Tree({"sizes.txt": "# x\nallocations 4\n24 3 3\n24 -1 1\n40000 1 9\n"}) as root:
            blocks = sizewaste.read_sizes(os.path.join(root, "sizes.txt"))
        self.assertEqual(blocks, {24: 4})
        ours = sizewaste.ours(os.path.join(ROOT, sizewaste.TABLE))
        self.assertEqual(sizewaste.measure(ours, blocks).percent(), (25.0, 0.0))
        self.assertEqual(sizewaste.measure(sizewaste.go(), blocks).slots, 96)
        end = sizewaste.measure(sizewaste.go(), {2688: 6}).percent()[1]
        self.assertAlmostEqual(end, 100 * 128 / 8192)

    def test_the_tables_have_their_classes(self):
        self.assertEqual(len(sizewaste.go()), 67)
        self.assertEqual([c.slot for c in sizewaste.eighths()][:11], [8, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160])
        for table in (sizewaste.go(), sizewaste.eighths()):
            self.assertEqual(table[-1].slot, 32768)


class Layers(unittest.TestCase):
    def test_this_tree_holds(self):
        wrong, nfiles = layers.check(ROOT)
        self.assertEqual(wrong, [])
        self.assertGreater(nfiles, 3)

    def complaints(self, path, text, **more):
        with Tree({path: text, **more}) as root:
            return layers.check(root)[0]

    def test_alloc_may_not_include_gc(self):
        wrong = self.complaints("alloc/span.c", 'int a;\n#include "gc/mark.h"\n')
        self.assertEqual(wrong, ['alloc/span.c:2: includes "gc/mark.h": alloc/ may not include gc/'])

    def test_base_may_not_include_alloc_proper(self):
        self.assertEqual(len(self.complaints("alloc/base/lock.c", '#include "alloc/span.h"\n')), 1)

    def test_public_headers_include_nothing_internal(self):
        self.assertEqual(len(self.complaints("include/trigc/inline.h", '#include "alloc/span.h"\n')), 1)
        self.assertEqual(len(self.complaints("include/trigc.h", '# include "../gc/mark.h"\n')), 1)

    def test_examples_include_nothing_internal(self):
        self.assertEqual(len(self.complaints("examples/lox/vm.c", '#include "gc/mark.h"\n')), 1)

    def test_paths_are_written_from_the_root(self):
        wrong = self.complaints("gc/mark.c", '#include "mark.h"\n', **{"gc/mark.h": ""})
        self.assertEqual(wrong, ['gc/mark.c:1: includes "mark.h"; write "gc/mark.h"'])

    def test_internal_headers_go_in_quotes(self):
        self.assertEqual(len(self.complaints("bench/b.c", "#include <gc/mark.h>\n", **{"gc/mark.h": ""})), 1)
        self.assertEqual(self.complaints("bench/b.c", "#include <gc/gc.h>\n"), [])

    def test_what_is_allowed_passes(self):
        files = {
            "include/trigc.h": "#include <trigc/inline.h>\n#include <stddef.h>\n",
            "alloc/base/lock.c": '#include "alloc/base/lock.h"\n#include <trigc.h>\n',
            "alloc/span.c": '#include "alloc/span.h"\n#include "alloc/base/lock.h"\n/* #include "gc/mark.h" */\n',
            "gc/mark.c": '#include "gc/mark.h"\n#include "alloc/span.h"\n#include <trigc.h>\n',
            "examples/lox/vm.c": '#include "vm.h"\n#include <trigc.h>\n',
            "tests/test_span.c": '#include "tests/plain.h"\n#include "alloc/span.h"\n',
        }
        with Tree(files) as root:
            self.assertEqual(layers.check(root), ([], len(files)))

    def test_the_command_fails(self):
        with Tree({"alloc/span.c": '#include "gc/mark.h"\n'}) as root:
            done = subprocess.run([sys.executable, os.path.join(TOOLS, "layers.py"), root], capture_output=True)
        self.assertEqual(done.returncode, 1)


class Exports(unittest.TestCase):
    HEADER = """
        #define TRI_API __attribute__((visibility("default")))
        /* TRI_API int tri_in_a_comment(void); */
        TRI_API int tri_plain(void); // TRI_API int tri_in_another(void);
        TRI_API tri_scanner *tri_scanner_add(tri_thread *thread, void (*fn)(tri_visitor *, void *),
                                             void *arg);
        TRI_API extern const uint32_t tri_table[4];
        static inline int tri_inline(void) { return tri_plain(); }
        int tri_not_marked(void);
    """
    NAMES = {"tri_plain", "tri_scanner_add", "tri_table"}

    def test_reads_declarations(self):
        self.assertEqual(exports.declared(self.HEADER), self.NAMES)

    def test_script_names_them_and_hides_the_rest(self):
        script = exports.version_script(self.NAMES)
        self.assertIn("tri_scanner_add;", script)
        self.assertRegex(script, r"local:\s*\*;")

    def test_agreement_passes(self):
        shared = [("so", name) for name in self.NAMES] + [("so", exports.NODE)]
        static = shared[:-1] + [("a[x.o]", "tri__internal")]
        self.assertEqual(exports.problems(self.NAMES, shared, static), [])

    def test_foreign_export_is_found(self):
        shared = [("so", name) for name in self.NAMES | {"gc_start"}]
        wrong = exports.problems(self.NAMES, shared, [])
        self.assertEqual(len(wrong), 1)
        self.assertIn("gc_start", wrong[0])

    def test_undeclared_export_is_found(self):
        shared = [("so", name) for name in self.NAMES | {"tri_secret"}]
        self.assertIn("tri_secret", exports.problems(self.NAMES, shared, [])[0])

    def test_missing_export_is_found(self):
        self.assertIn("tri_table", exports.problems(self.NAMES, [("so", "tri_plain")], [])[0])

    def test_foreign_global_in_the_archive_is_found(self):
        wrong = exports.problems(set(), [], [("libtrigc.a[span.o]", "span_sweep")])
        self.assertEqual(len(wrong), 1)

    def test_planted_in_a_real_library(self):
        with Tree({"x.c": "int gc_start(void) { return 1; } int tri_plain(void) { return 2; }", "x.h": ""}) as root:
            source, library = os.path.join(root, "x.c"), os.path.join(root, "x.so")
            subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", library], check=True)
            header = os.path.join(root, "t.h")
            with open(header, "w", encoding="utf-8") as file:
                file.write(self.HEADER)
            command = [sys.executable, os.path.join(TOOLS, "exports.py"), "check", f"--shared={library}", header]
            done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("gc_start", done.stderr)
        self.assertIn("tri_table", done.stderr)


class Listed(unittest.TestCase):
    BUILD = 'const a = .{ "alloc/span.c", "examples/lox/vm.c" }; const t = .{ .name = "test_span" };'

    def unlisted(self, path):
        with Tree({"build/lists.zig": self.BUILD, path: ""}) as root:
            return listed.check(root)

    def test_listed_passes(self):
        for path in ("alloc/span.c", "tests/test_span.c", "examples/lox/vm.c"):
            self.assertEqual(self.unlisted(path), [])

    def test_forgotten_is_found(self):
        for path in ("alloc/stray.c", "tests/test_stray.c", "examples/lox/stray.c", "gc/test_span.c"):
            self.assertEqual(self.unlisted(path), [path])


class Unused(unittest.TestCase):
    USED = "int tri__used(void);\nstatic inline int half(int n) {\n    return n / 2;\n}\n#define LEAST 1\n"

    def test_this_tree_holds(self):
        self.assertEqual(unused.check(ROOT), [])

    def complaints(self, header):
        body = '#include "alloc/a.h"\nint tri__used(void) {\n    return LEAST;\n}\n'
        user = "static int f(void) {\n    return half(tri__used());\n}\n"
        with Tree({"alloc/a.h": self.USED + header, "alloc/a.c": body, "gc/b.c": user}) as root:
            return unused.check(root)

    def test_used_passes(self):
        self.assertEqual(self.complaints(""), [])

    def test_planted_ones_are_found(self):
        planted = {
            "int tri__idle(int a);\n": "alloc/a.h: tri__idle has no user outside the file that defines it",
            "static inline int third(int n) {\n    return n / 3;\n}\n": "alloc/a.h: third has no user",
            "#define MOST 9\n": "alloc/a.h: macro MOST has no user",
            "enum { SOME = 3 };\n": "alloc/a.h: enumerator SOME has no user",
            "struct a {\n    int forgotten;\n};\n": "alloc/a.h: field forgotten has no user",
        }
        for text, row in planted.items():
            self.assertEqual(self.complaints(text), [row])


class Wrapping(unittest.TestCase):
    def test_short_lines_stay(self):
        lines = ["/* " + "a" * 114 + " */", " * " + "b " * 50, "int a;"]
        self.assertEqual(formatting.wrap(lines), lines)

    def test_words_go_to_the_next_line_of_the_comment(self):
        lines = ["/* " + "a" * 110 + " bcd efg", " * hij */", "int a;"]
        self.assertEqual(formatting.wrap(lines), ["/* " + "a" * 110 + " bcd", " * efg hij */", "int a;"])

    def test_or_to_a_line_of_their_own(self):
        lines = ["    /* " + "a" * 110 + " bcd */", "int a;"]
        self.assertEqual(formatting.wrap(lines), ["    /* " + "a" * 110, "     * bcd */", "int a;"])

    def test_an_item_is_no_place_for_them(self):
        lines = ["/* " + "a" * 110 + " bcd efg", " * - hij */"]
        self.assertEqual(formatting.wrap(lines), ["/* " + "a" * 110 + " bcd", " * efg", " * - hij */"])

    def test_code_stays(self):
        lines = ["    call(" + "a, " * 40 + "b); /* why */"]
        self.assertEqual(formatting.wrap(lines), lines)


class ReadmeProgram(unittest.TestCase):
    def test_takes_the_first_c_block(self):
        text = "# t\n```sh\nls\n```\n```c\nint a;\n```\n```c\nint b;\n```\n"
        self.assertEqual(readme_program.first_program(text), "int a;\n")

    def test_none(self):
        self.assertIsNone(readme_program.first_program("```cpp\nint a;\n```\n"))


class Counting(unittest.TestCase):
    """tools/runtests.py: no way to fail may be counted as a success."""

    def count(self, kind, output, code):
        return runtests.counts(runtests.Program(kind, "x", "x", []), output, code)

    def test_criterion(self):
        line = "[\x1b[0;34m====\x1b[0m] Synthesis: Tested: 7 | Passing: 4 | Failing: 3 | Crashing: 1 \n"
        self.assertEqual(self.count("criterion", runtests.ANSI.sub("", line), 1), (4, 3))
        self.assertEqual(self.count("criterion", "", -11), (0, 1))
        self.assertEqual(self.count("criterion", "", 0), (0, 1))
        none = "[====] Synthesis: Tested: 0 | Passing: 0 | Failing: 0 | Crashing: 0 \n"
        self.assertEqual(self.count("criterion", none, 0), (0, 1))

    def test_plain(self):
        self.assertEqual(self.count("plain", "[ ok ] a.b (0 ms)\n3 passed, 0 failed\n", 0), (3, 0))
        self.assertEqual(self.count("plain", "3 passed, 2 failed\n", 1), (3, 2))
        self.assertEqual(self.count("plain", "3 passed, 0 failed\n", 66), (3, 1))
        self.assertEqual(self.count("plain", "", 0), (0, 1))

    def test_optional(self):
        self.assertEqual(self.count("optional", "fine\n", 0), (1, 0))
        self.assertEqual(self.count("optional", "bad\n", 2), (0, 1))

    def run_programs(self, scripts, *more):
        files = {f"{name}.sh": f"#!/bin/sh\n{text}\n" for name, text in scripts.items()}
        with Tree(files) as root:
            arguments = []
            for name in scripts:
                path = os.path.join(root, f"{name}.sh")
                os.chmod(path, 0o755)
                arguments.append(f"plain:{name}={path}")
            command = [sys.executable, os.path.join(TOOLS, "runtests.py"), *arguments, *more]
            done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout

    def test_last_line_is_the_sum(self):
        code, text = self.run_programs({"a": "echo '2 passed, 0 failed'", "b": "echo '3 passed, 0 failed'"})
        self.assertEqual((code, text.splitlines()[-1]), (0, "5 passed, 0 failed"))

    def test_failure_crash_and_hang_fail_the_run(self):
        scripts = {
            "good": "echo '1 passed, 0 failed'",
            "bad": "echo '1 passed, 1 failed'; exit 1",
            "crash": "kill -SEGV $$",
            "hang": "sleep 60",
        }
        code, text = self.run_programs(scripts, "--timeout", "4")  # the others end in time on a slow machine, too
        self.assertEqual((code, text.splitlines()[-1]), (1, "2 passed, 3 failed"))
        self.assertIn("died of SIGSEGV", text)
        self.assertIn("still running after 4 s", text)

    def test_programs_of_another_processor_need_an_emulator(self):
        with Tree({"x": "", "bin/qemu-aarch64": "#!/bin/sh\necho '3 passed, 0 failed'\n"}) as root:
            emulator = os.path.join(root, "bin", "qemu-aarch64")
            os.chmod(emulator, 0o755)
            command = [sys.executable, os.path.join(TOOLS, "runtests.py"), f"emulated:x={root}/x"]
            with_it = {**os.environ, "PATH": os.path.dirname(emulator) + ":" + os.environ["PATH"]}
            there = subprocess.run(command, capture_output=True, text=True, env=with_it)
            missing = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": root})
        self.assertEqual((there.returncode, there.stdout.splitlines()[-1]), (0, "3 passed, 0 failed"))
        self.assertEqual((missing.returncode, missing.stdout.splitlines()[-1]), (0, "0 passed, 0 failed"))
        self.assertIn("apt-get install -y qemu-user", missing.stdout)

    def test_a_filter_that_fits_nothing_fails(self):
        code, _ = self.run_programs({"a": "echo '1 passed, 0 failed'"}, "nothing")
        self.assertEqual(code, 1)


class PlainHeader(unittest.TestCase):
    """tests/plain.h without Criterion: what must fail fails."""

    PROGRAM = """
        #include "tests/plain.h"
        TEST(plain, good) { CHECK(1 + 1 == 2); CHECK_EQ((size_t)3, 3u); CHECK_STR_EQ("x", "x"); CHECK_MSG(1, "no"); }
        TEST(plain, bad_check) { CHECK(1 == 2); }
        TEST(plain, bad_eq) { CHECK_EQ(1, 2); }
        TEST(plain, bad_string) { CHECK_STR_EQ("x", NULL); }
        TEST(plain, bad_message) { CHECK_MSG(0, "seed %d", 17); }
        static void *other(void *p) { CHECK(p != NULL); return NULL; }
        TEST(plain, bad_on_a_thread) {
            pthread_t t;
            pthread_create(&t, NULL, other, NULL);
            pthread_join(t, NULL);
        }
        TEST(plain, dies_as_told, .signal = SIGABRT) { abort(); }
        TEST(plain, does_not_die, .signal = SIGABRT) { CHECK(1); }
        TEST(plain, hangs, .timeout = 1) { for (;;) { sleep(1); } }
        TEST(plain, exits_as_told, .exit_code = 3) { exit(3); }
    """

    def run_program(self, *arguments):
        with Tree({"x.c": self.PROGRAM}) as root:
            source, program = os.path.join(root, "x.c"), os.path.join(root, "x")
            flags = ["-std=c11", "-D_GNU_SOURCE", "-DTRI_PLAIN_MAIN", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}"]
            subprocess.run(["gcc", *flags, source, "-o", program, "-lpthread"], check=True)
            return subprocess.run([program, *arguments], capture_output=True, text=True)

    def test_counts(self):
        done = self.run_program()
        self.assertEqual(done.stdout.splitlines()[-1], "3 passed, 7 failed")
        self.assertEqual(done.returncode, 1)
        self.assertIn("seed 17", done.stderr)
        self.assertIn("1 (0x1) and 2 (0x2)", done.stderr)
        self.assertIn("not on the test's own thread", done.stderr)

    def test_filters(self):
        done = self.run_program("plain.good", "as_told")
        self.assertEqual((done.stdout.splitlines()[-1], done.returncode), ("3 passed, 0 failed", 0))


if __name__ == "__main__":
    sys.exit(counted.main())
