#!/usr/bin/env python3
"""The installed package as a stranger finds it: pkg-config names it, programs build against it statically and shared,
with each C compiler at hand, and the library exports what it should. Takes the prefix from TRI_TEST_PREFIX.
"""

import glob
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
import exports
import listed
import readme_program

PREFIX = os.environ.get("TRI_TEST_PREFIX", os.path.join(ROOT, "zig-out"))
LIB = os.path.join(PREFIX, "lib")
COMPILERS = [name for name in ("gcc", "clang-14", "clang") if shutil.which(name)]
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
CXX_COMPILERS = [name for name in ("g++", "clang++-14", "clang++") if shutil.which(name)]
CXX_WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"]


def pkg_config(*arguments):
    env = {**os.environ, "PKG_CONFIG_PATH": os.path.join(LIB, "pkgconfig")}
    done = subprocess.run(["pkg-config", *arguments, "trigc"], capture_output=True, text=True, env=env, check=True)
    return done.stdout.split()


def build(compiler, source, program, static):
    flags = pkg_config("--cflags")
    if static:
        libs = [os.path.join(LIB, "libtrigc.a"), "-lpthread", "-lm"]
    else:
        libs = [*pkg_config("--libs"), f"-Wl,-rpath,{LIB}"]
    command = [compiler, *WARNINGS, "-O2", *flags, source, "-o", program, *libs]
    return subprocess.run(command, capture_output=True, text=True)


class Package(unittest.TestCase):
    def test_pkg_config_is_relocatable(self):
        with tempfile.TemporaryDirectory() as folder:
            moved = os.path.join(folder, "elsewhere")
            os.makedirs(os.path.join(moved, "lib", "pkgconfig"))
            shutil.copy(os.path.join(LIB, "pkgconfig", "trigc.pc"), os.path.join(moved, "lib", "pkgconfig"))
            env = {**os.environ, "PKG_CONFIG_PATH": os.path.join(moved, "lib", "pkgconfig")}
            done = subprocess.run(
                ["pkg-config", "--variable=includedir", "trigc"], capture_output=True, text=True, env=env, check=True
            )
            self.assertEqual(os.path.realpath(done.stdout.strip()), os.path.realpath(os.path.join(moved, "include")))

    def test_version_is_the_same_everywhere(self):
        with open(os.path.join(ROOT, "build.zig.zon"), encoding="utf-8") as file:
            version = re.search(r'\.version = "([^"]+)"', file.read()).group(1)
        with open(os.path.join(PREFIX, "include", "trigc", "version.h"), encoding="utf-8") as file:
            numbers = re.findall(r"#define TRI_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", file.read())
        self.assertEqual(".".join(numbers), version)
        self.assertEqual(pkg_config("--modversion"), [version])

    def test_the_source_package_has_what_the_build_names(self):
        with open(os.path.join(ROOT, "build.zig.zon"), encoding="utf-8") as file:
            packed = re.findall(r'^ {8}"([^"]+)",$', file.read(), re.M)
        for name in packed:
            self.assertTrue(os.path.exists(os.path.join(ROOT, name)), name)
        with open(os.path.join(ROOT, "build.zig"), encoding="utf-8") as file:
            named = set(re.findall(r'@import\("([^"]+\.zig)"\)', file.read()))
        self.assertIn("build/tests.zig", named)
        named |= {name for name in listed.listed_names(ROOT) if os.path.isfile(os.path.join(ROOT, name))}
        for name in sorted(named):
            self.assertTrue(name in packed or name.split("/")[0] in packed, f"build.zig.zon lacks {name}")

    def test_shared_library_is_never_unmapped(self):
        library = os.path.join(LIB, "libtrigc.so.0")
        done = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
        self.assertRegex(done.stdout, r"SONAME.*\[libtrigc\.so\.0\]")
        self.assertIn("NODELETE", done.stdout)

    def test_symbols(self):
        headers = glob.glob(os.path.join(PREFIX, "include", "**", "*.h"), recursive=True)
        wrong = exports.problems(
            exports.declared_in(headers),
            exports.defined_symbols(os.path.join(LIB, "libtrigc.so.0"), True),
            exports.defined_symbols(os.path.join(LIB, "libtrigc.a"), False),
        )
        self.assertEqual(wrong, [])

    def build_and_run(self, source, arguments=()):
        for compiler in COMPILERS:
            for static in (True, False):
                with self.subTest(source=os.path.basename(source), compiler=compiler, static=static):
                    with tempfile.TemporaryDirectory() as folder:
                        program = os.path.join(folder, "program")
                        built = build(compiler, source, program, static)
                        self.assertEqual(built.returncode, 0, built.stderr)
                        if arguments is not None:
                            done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)
                            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_readme_program(self):
        with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
            program = readme_program.first_program(file.read())
        if program is None:
            self.skipTest("README.md has no ```c block")
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "readme.c")
            with open(source, "w", encoding="utf-8") as file:
                file.write(program)
            self.build_and_run(source)

    def test_hello_builds_and_runs(self):
        self.build_and_run(os.path.join(ROOT, "examples", "hello.c"))

    def test_the_header_is_cxx_too(self):
        source = os.path.join(ROOT, "tests", "api_cxx.cc")
        for compiler in CXX_COMPILERS:
            for standard in ("c++17", "c++20"):
                with self.subTest(compiler=compiler, standard=standard), tempfile.TemporaryDirectory() as folder:
                    program = os.path.join(folder, "program")
                    flags = [f"-std={standard}", *CXX_WARNINGS, "-O2", *pkg_config("--cflags"), "-x", "c++", source]
                    libs = ["-x", "none", os.path.join(LIB, "libtrigc.a"), "-lpthread", "-lm"]
                    command = [compiler, *flags, "-o", program, *libs]
                    built = subprocess.run(command, capture_output=True, text=True)
                    self.assertEqual(built.returncode, 0, built.stderr)
                    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
                    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_examples_build_as_strangers_would(self):
        names = listed.listed_names(ROOT)
        for source in sorted(glob.glob(os.path.join(ROOT, "examples", "*.c"))):
            if os.path.basename(source)[: -len(".c")] in names:
                self.build_and_run(source, None)


if __name__ == "__main__":
    sys.exit(counted.main())
