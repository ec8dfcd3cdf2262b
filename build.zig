//! The build of trigc: what the options mean, and the steps that `zig build --help` shows, one function each. The
//! rest is in build/: lists (library.zig, tests.zig, programs.zig: add one line a file; nothing is globbed, so
//! that a stray file cannot change the product), what Zig compiles (compile.zig), what other compilers make of it
//! (compilers.zig), and what `check` looks at (checks.zig).
//!
//! Three builds of the library exist: the installed one (as the options say), the checked one that tests link (every
//! check, UBSan), and the ones that sanitizers and other compilers make of the same list of sources.

const std = @import("std");
const checks = @import("build/checks.zig");
const compile = @import("build/compile.zig");
const compilers = @import("build/compilers.zig");
const programs = @import("build/programs.zig");
const tests = @import("build/tests.zig");
const Options = compile.Options;
const Step = std.Build.Step;

/// The options that steps ask for, and the libraries that programs are linked with.
const Build = struct {
    b: *std.Build,
    stress: bool,
    only: []const u8,
    clang: []const u8,
    installed: Options,
    checked: Options,
    racing: Options,
    library: *Step.Compile,
    checked_library: *Step.Compile,
    racing_library: *Step.Compile,
};

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{});
    const chosen = b.option(std.builtin.Optimize, "optimize", "debug, safe, fast (the default) or small");
    const optimize: std.builtin.Optimize = chosen orelse switch (b.graph.release_mode) {
        .off, .any, .fast => .fast,
        .safe => .safe,
        .small => .small,
    };
    const checks_level = b.option(u2, "checks", "0 none, 1 cheap, 2 internal, 3 whole heap (2 in debug, else 0)") orelse
        @as(u2, if (optimize == .debug) 2 else 0);
    const thread = b.option(bool, "sanitize-thread", "ThreadSanitizer in everything that is built") orelse false;
    const ub = b.option(bool, "sanitize-c", "UBSan, with its messages, in everything that is built") orelse false;
    const stress = b.option(bool, "stress", "the tests' long variants") orelse false;
    const only = b.option([]const u8, "only", "build and run only the tests whose name contains this") orelse "";
    const full = b.option(bool, "full", "the demo's 2 GB load too") orelse false;
    const clang = b.option([]const u8, "clang", "the second clang (clang-14)") orelse "clang-14";
    const formatter = b.option([]const u8, "clang-format", "the formatter (clang-format-14)") orelse "clang-format-14";

    const installed: Options = .{
        .target = target,
        .optimize = optimize,
        .checks = checks_level,
        .thread = thread,
        .undefined_behaviour = if (ub) .full else .off,
    };
    var checked = installed;
    checked.optimize = chosen orelse .safe;
    checked.checks = 3;
    checked.undefined_behaviour = .full;
    var racing = checked;
    racing.thread = true;
    racing.undefined_behaviour = .off;

    const t: Build = .{
        .b = b,
        .stress = stress,
        .only = only,
        .clang = clang,
        .installed = installed,
        .checked = checked,
        .racing = racing,
        .library = compile.addStaticLibrary(b, "trigc", installed),
        .checked_library = compile.addStaticLibrary(b, "trigc_checked", checked),
        .racing_library = compile.addStaticLibrary(b, "trigc_racing", racing),
    };
    compile.installPackage(b, t.library, installed);
    addExamples(&t);
    const bench_install = addBenchPrograms(&t);
    addTestSteps(&t);
    addSoak(&t);
    addEmulated(&t);
    addModel(&t);
    addDemo(&t, bench_install, full);
    addBench(&t, bench_install);
    addUpkeep(&t, bench_install, formatter);
}

// ---------------------------------------------------------------------------------------------------- artifacts

fn addExamples(t: *const Build) void {
    const step = t.b.step("examples", "Build the examples, lox among them, into zig-out/bin");
    for (programs.examples) |program| {
        const exe = compile.addProgram(t.b, "examples", program, t.library, t.installed, &.{});
        step.dependOn(&t.b.addInstallArtifact(exe, .{}).step);
    }
    t.b.getInstallStep().dependOn(step);
}

/// What measures, and the library that records what a program asks of malloc.
fn addBenchPrograms(t: *const Build) *Step {
    const step = t.b.step("bench-programs", "Build the measuring programs into zig-out/bin");
    for (programs.bench_programs) |program| {
        const exe = compile.addProgram(t.b, "bench", program, t.library, t.installed, &.{});
        step.dependOn(&t.b.addInstallArtifact(exe, .{}).step);
    }
    const recorder = t.b.addLibrary(.{
        .name = programs.recorder.name,
        .linkage = .dynamic,
        .root_module = compile.cModule(t.b, t.installed),
    });
    recorder.root_module.addCSourceFiles(.{ .files = programs.recorder.sources, .flags = &compile.program_flags });
    step.dependOn(&t.b.addInstallArtifact(recorder, .{}).step);
    return step;
}

// ---------------------------------------------------------------------------------------------------- tests

fn addTestSteps(t: *const Build) void {
    const b = t.b;
    const printer = compile.addProgram(b, "tools", programs.table_printer, t.library, t.installed, &.{});
    b.installArtifact(printer);

    const test_step = b.step("test", "Run every test (-- <part of a name>: only those)");
    const run_tests = addTests(t);
    const tsan_step = b.step("test-tsan", "Run the tests of concurrency under ThreadSanitizer");
    const run_tsan = addTestRunner(b, t.stress);
    for (tests.programs) |program| {
        if (!program.tsan or !tests.isChosen(program.name, t.only)) continue;
        const flags = [_][]const u8{"-DTRI_PLAIN_MAIN"};
        const exe = compile.addProgram(b, "tests", program, t.racing_library, t.racing, &flags);
        run_tsan.addArtifactArg2(exe, .{ .prefix = b.fmt("plain:{s}=", .{program.name}) });
    }
    run_tsan.addPassthruArgs();
    tsan_step.dependOn(&run_tsan.step);
    // Criterion's sandbox does not start under ThreadSanitizer, so that with it `test` is `test-tsan`.
    test_step.dependOn(if (t.installed.thread) &run_tsan.step else &run_tests.step);

    const asan_step = b.step("test-asan", "Run the same tests under AddressSanitizer and UBSan (second clang)");
    const run_asan = addTestRunner(b, t.stress);
    compilers.addAsanPrograms(b, run_asan, t.clang, "plain:", t.only);
    run_asan.addPassthruArgs();
    asan_step.dependOn(&run_asan.step);
}

/// Everything that `zig build test` runs, the longest ones first.
fn addTests(t: *const Build) *Step.Run {
    const b = t.b;
    const run = addTestRunner(b, t.stress);
    if (tests.isChosen("model", t.only)) run.addArg("optional:model=tests/model/run.sh|quick");
    if (tests.isChosen("lox", t.only)) {
        const lox = compile.addProgram(b, "examples", programs.lox_program, t.checked_library, t.checked, &.{});
        run.addArtifactArg2(lox, .{ .prefix = "script:lox=tests/lox/run.py|--stress|--jobs=1|--lox=" });
    }
    for (tests.programs) |program| {
        if (!tests.isChosen(program.name, t.only)) continue;
        const exe = compile.addProgram(b, "tests", program, t.checked_library, t.checked, &.{});
        run.addArtifactArg2(exe, .{ .prefix = b.fmt("criterion:{s}=", .{program.name}) });
    }
    for (tests.scripts) |name| {
        if (!tests.isChosen(name, t.only)) continue;
        const script = b.path(b.fmt("tests/tools/{s}.py", .{name}));
        run.addFileArg2(script, .{ .prefix = b.fmt("script:{s}=", .{name}) });
    }
    if (tests.isChosen("size_class_table", t.only)) {
        const writer = compile.addProgram(b, "tools", programs.table_writer, t.library, t.installed, &.{});
        run.addArtifactArg2(writer, .{ .prefix = "command:size_class_table=", .suffix = "|alloc/sizeclass_table.h" });
    }
    run.addDirectoryArg2(b.graph.path(.install_prefix, ""), .{
        .prefix = "--define=TRI_TEST_PREFIX=",
        .make_absolute = true,
    });
    run.step.dependOn(b.getInstallStep());
    run.addPassthruArgs();
    return run;
}

fn addSoak(t: *const Build) void {
    const b = t.b;
    const step = b.step("soak", "An hour of random stress with delays under three builds (-- --minutes=N)");
    const run = b.addSystemCommand(&.{"python3"});
    run.setName("soak");
    run.setCwd(b.path("."));
    run.stdio = .inherit;
    run.addFileArg(b.path("tools/soak.py"));
    for (tests.soaked) |name| compilers.addAsanPrograms(b, run, t.clang, "memory:", name);
    for (tests.programs) |program| {
        for (tests.soaked) |name| {
            if (std.mem.eql(u8, program.name, name)) break;
        } else continue;
        const flags = [_][]const u8{"-DTRI_PLAIN_MAIN"};
        const plain = compile.addProgram(b, "tests", program, t.checked_library, t.checked, &flags);
        run.addArtifactArg2(plain, .{ .prefix = b.fmt("checks:{s}=", .{program.name}) });
        const raced = compile.addProgram(b, "tests", program, t.racing_library, t.racing, &flags);
        run.addArtifactArg2(raced, .{ .prefix = b.fmt("threads:{s}=", .{program.name}) });
    }
    run.addDirectoryArg2(b.graph.path(.install_prefix, "soak"), .{ .prefix = "--out=", .make_absolute = true });
    run.addPassthruArgs();
    step.dependOn(&run.step);
}

/// Tests for ARMv8, with musl and without a shared library, so that an emulator of the processor alone runs them. That
/// shows what the port lacks (instructions, registers, sizes of pages), and no weak memory order: the emulator orders
/// accesses as the processor does on which it runs.
fn addEmulated(t: *const Build) void {
    const b = t.b;
    const step = b.step("test-aarch64", "Run tests built for ARMv8 under qemu-aarch64 (package qemu-user)");
    const run = addTestRunner(b, t.stress);
    var ported = t.checked;
    ported.target = b.resolveTargetQuery(.{ .cpu_arch = .aarch64, .os_tag = .linux, .abi = .musl });
    ported.thread = false;
    ported.undefined_behaviour = .off;
    const library = compile.addStaticLibrary(b, "trigc_aarch64", ported);
    for (tests.programs) |program| {
        if (!program.aarch64 or !tests.isChosen(program.name, t.only)) continue;
        const flags = [_][]const u8{ "-DTRI_PLAIN_MAIN", "-DTEST_EMULATED=1" };
        const exe = compile.addProgram(b, "tests", program, library, ported, &flags);
        run.addArtifactArg2(exe, .{ .prefix = b.fmt("emulated:{s}=", .{program.name}) });
    }
    run.addPassthruArgs();
    step.dependOn(&run.step);
}

fn addModel(t: *const Build) void {
    const step = t.b.step("model", "Run the long searches over the model of the cycle");
    const run = addTestRunner(t.b, false);
    run.addArg("optional:model=tests/model/run.sh|long");
    step.dependOn(&run.step);
}

/// tools/runtests.py, waiting for the programs that it shall run. Runs whenever it is asked for: a stress test's
/// success is not a fact to keep in a cache.
fn addTestRunner(b: *std.Build, stress: bool) *Step.Run {
    const run = b.addSystemCommand(&.{"python3"});
    run.setName("run tests");
    run.setCwd(b.path("."));
    run.addFileArg(b.path("tools/runtests.py"));
    run.addArgs(&.{ "--jobs", "2" });
    if (stress) run.setEnvironmentVariable("TRI_TEST_STRESS", "1");
    run.stdio = .inherit;
    return run;
}

// ---------------------------------------------------------------------------------------------------- measuring

fn addDemo(t: *const Build, bench_install: *Step, full: bool) void {
    const step = t.b.step("demo", "Measure trigc beside Boehm, and draw it (-Dfull: the 2 GB load too)");
    const run = addInstalledRun(t.b, programs.demo_program);
    if (full) run.addArg("--full");
    run.step.dependOn(t.b.getInstallStep());
    run.step.dependOn(bench_install);
    run.addPassthruArgs();
    step.dependOn(&run.step);
}

/// One after the other, so that none disturbs what another measures.
fn addBench(t: *const Build, bench_install: *Step) void {
    const b = t.b;
    const step = b.step("bench", "Measure (-- --quick: in a minute), then a look at the other allocators");
    step.dependOn(bench_install);
    const run_bench = addInstalledRun(b, programs.bench_program);
    run_bench.step.dependOn(b.getInstallStep());
    run_bench.step.dependOn(bench_install);
    run_bench.addPassthruArgs();
    step.dependOn(&run_bench.step);
    const run_field = b.addSystemCommand(&.{"python3"});
    run_field.setName("run field");
    run_field.addFileArg(b.path("bench/field.py"));
    run_field.addArg("--quick");
    run_field.addDirectoryArg2(b.graph.path(.install_prefix, "bin"), .{ .prefix = "--bin=", .make_absolute = true });
    run_field.addDirectoryArg2(b.graph.path(.install_prefix, "field"), .{ .prefix = "--out=", .make_absolute = true });
    run_field.stdio = .inherit;
    run_field.step.dependOn(&run_bench.step);
    step.dependOn(&run_field.step);
    var before = &run_field.step;
    for ([_][]const u8{ "bench-locality", "bench-json", "bench-barrier" }) |name| {
        const run = addInstalledRun(b, name);
        run.addArg("--quick");
        run.step.dependOn(bench_install);
        run.step.dependOn(before);
        step.dependOn(&run.step);
        before = &run.step;
    }
}

/// Runs a program where it was installed, so that it finds the others beside it, with the terminal as its own.
fn addInstalledRun(b: *std.Build, name: []const u8) *Step.Run {
    const run = b.addRunFile(b.graph.path(.install_prefix, b.fmt("bin/{s}", .{name})));
    run.setName(b.fmt("run {s}", .{name}));
    run.stdio = .inherit;
    return run;
}

// ---------------------------------------------------------------------------------------------------- upkeep

fn addUpkeep(t: *const Build, bench_install: *Step, formatter: []const u8) void {
    const b = t.b;
    const counts_step = b.step("callcounts", "Count the instructions of the fast paths, write docs/callcounts.md");
    counts_step.dependOn(&checks.addCallCounts(b, "write").step);

    const fmt_step = b.step("fmt", "Format the C sources and build.zig");
    fmt_step.dependOn(&checks.addZigFormatter(b, false).step);
    fmt_step.dependOn(&checks.addFormatter(b, formatter, "--write").step);

    const check_step = b.step("check", "Three compilers, headers alone, formatting, include layers, exported symbols");
    check_step.dependOn(&checks.addZigFormatter(b, true).step);
    check_step.dependOn(&checks.addFormatter(b, formatter, "--check").step);
    checks.addCompilerChecks(b, check_step, t.clang);
    checks.addToolChecks(b, check_step);
    check_step.dependOn(&checks.addCallCounts(b, "check").step);
    check_step.dependOn(b.getInstallStep());
    check_step.dependOn(bench_install);
}
