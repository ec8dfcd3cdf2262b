//! The build of trigc. The lists come first (add a line when you add a file: nothing is globbed, so that a stray file
//! cannot change the product), then the artifacts, then the steps that `zig build --help` shows.
//!
//! Three builds of the library exist: the installed one (as the options say), the checked one that tests link (every
//! check, UBSan), and the ones that sanitizers and other compilers make of the same list of sources.

const std = @import("std");
const version = @import("build.zig.zon").version; // the one place for the number

// ---------------------------------------------------------------------------------------------------- the lists

/// The library.
const library_sources = [_][]const u8{
    "alloc/base/check.c",
    "alloc/base/lock.c",
    "alloc/base/os_linux.c",
    "alloc/base/pressure.c",
    "alloc/arena.c",
    "alloc/cache.c",
    "alloc/central.c",
    "alloc/fixalloc.c",
    "alloc/free.c",
    "alloc/inside.c",
    "alloc/large.c",
    "alloc/manual.c",
    "alloc/manual_record.c",
    "alloc/manual_thread.c",
    "alloc/memory.c",
    "alloc/pageheap.c",
    "alloc/pageheap_look.c",
    "alloc/pageheap_summary.c",
    "alloc/sizeclass.c",
    "alloc/span.c",
    "gc/alloc.c",
    "gc/barrier.c",
    "gc/census.c",
    "gc/checkmark.c",
    "gc/collector.c",
    "gc/cycle.c",
    "gc/death.c",
    "gc/ephemeron.c",
    "gc/error.c",
    "gc/finalize.c",
    "gc/fork.c",
    "gc/free.c",
    "gc/handshake.c",
    "gc/heap.c",
    "gc/heapmap.c",
    "gc/inspect.c",
    "gc/manual.c",
    "gc/manual_check.c",
    "gc/mark.c",
    "gc/markpage.c",
    "gc/markscan.c",
    "gc/mode.c",
    "gc/mutator.c",
    "gc/native.c",
    "gc/limiter.c",
    "gc/pace.c",
    "gc/pacer.c",
    "gc/roots.c",
    "gc/rules.c",
    "gc/scavenger.c",
    "gc/stackcopy.c",
    "gc/stackscan.c",
    "gc/stats.c",
    "gc/step.c",
    "gc/stress.c",
    "gc/suspended.c",
    "gc/type.c",
    "gc/verify.c",
    "gc/version.c",
    "gc/vmstack.c",
    "gc/watch.c",
    "gc/weak.c",
    "gc/wmap.c",
    "gc/work.c",
    "gc/workers.c",
    "gc/wtable.c",
};

/// The public headers, each of which must compile alone as C and as C++. trigc.h first.
const public_headers = [_][]const u8{
    "trigc.h",
    "trigc/death.h",
    "trigc/inline.h",
    "trigc/insight.h",
    "trigc/manual.h",
    "trigc/roots.h",
    "trigc/version.h",
};

/// A program. `sources` where it is not the one file <folder>/<name>.c, `macros` for -D, `libs` for what it links
/// besides trigc (pkg-config names; "m" as it is).
const Program = struct {
    name: []const u8,
    sources: []const []const u8 = &.{},
    macros: []const []const u8 = &.{},
    libs: []const []const u8 = &.{},
    tsan: bool = false, // a test: test-tsan runs it too
    asan: bool = true, // a test: test-asan runs it too
    aarch64: bool = false, // a test: test-aarch64 runs it too
};

/// Test programs under Criterion: tests/<name>.c. The sanitizers run them from the plain main of tests/plain.h: those
/// of concurrency under ThreadSanitizer (.tsan = true), all under AddressSanitizer but where Boehm takes part.
const tests = [_]Program{
    .{ .name = "test_version", .tsan = true, .aarch64 = true },
    .{ .name = "test_os", .tsan = true, .aarch64 = true },
    .{ .name = "test_lock", .tsan = true, .aarch64 = true },
    .{ .name = "test_sizeclass", .aarch64 = true },
    .{ .name = "test_fixalloc", .tsan = true, .aarch64 = true },
    .{ .name = "test_pageheap" },
    .{ .name = "test_pageheap_threads", .tsan = true },
    .{ .name = "test_pageheap_summary" },
    .{ .name = "test_span", .aarch64 = true },
    .{ .name = "test_heap", .tsan = true },
    .{ .name = "test_central", .tsan = true },
    .{ .name = "test_limits", .tsan = true },
    .{ .name = "test_inject", .tsan = true },
    .{ .name = "test_small" },
    .{ .name = "test_options", .tsan = true },
    .{ .name = "test_metadata", .tsan = true },
    .{ .name = "test_batch", .tsan = true },
    .{ .name = "test_types", .tsan = true, .aarch64 = true },
    .{ .name = "test_types_refused" },
    .{ .name = "test_native", .tsan = true, .aarch64 = true },
    .{ .name = "test_free", .tsan = true, .aarch64 = true },
    .{ .name = "test_weak", .tsan = true, .aarch64 = true },
    .{ .name = "test_death", .tsan = true },
    .{ .name = "test_wmap", .tsan = true },
    .{ .name = "test_wtable" },
    .{ .name = "test_manual", .tsan = true },
    .{ .name = "test_manual_checks" },
    .{ .name = "test_manual_kept", .tsan = true },
    .{ .name = "test_roots", .tsan = true, .aarch64 = true },
    .{ .name = "test_stackcopy", .tsan = true, .aarch64 = true },
    .{ .name = "test_coroutines", .tsan = true, .aarch64 = true },
    .{ .name = "test_threads", .tsan = true, .aarch64 = true },
    .{ .name = "test_blocking", .tsan = true, .aarch64 = true },
    .{ .name = "test_misuse", .tsan = true },
    .{ .name = "test_cycle", .tsan = true, .aarch64 = true },
    .{ .name = "test_here", .tsan = true },
    .{ .name = "stress_fork", .tsan = true },
    .{ .name = "test_fork", .tsan = true },
    .{ .name = "test_signals", .tsan = true },
    .{ .name = "test_crowd", .tsan = true },
    .{ .name = "test_step", .tsan = true },
    .{ .name = "test_modes", .tsan = true },
    .{ .name = "test_inside", .tsan = true },
    .{ .name = "test_rules", .tsan = true },
    .{ .name = "test_stats", .tsan = true, .aarch64 = true },
    .{ .name = "test_seen", .tsan = true },
    .{ .name = "test_waits", .tsan = true },
    .{ .name = "test_api" },
    .{ .name = "test_pacer" },
    .{ .name = "test_pace", .tsan = true },
    .{ .name = "test_scavenger", .tsan = true },
    .{ .name = "test_resident" },
    .{ .name = "test_pressure", .tsan = true },
    .{ .name = "test_arena_fields" },
    .{ .name = "test_planted" },
    .{ .name = "test_planted_figures" },
    .{ .name = "test_planted_death" },
    .{ .name = "test_messages" },
    .{ .name = "test_barrier", .tsan = true },
    .{ .name = "test_marking", .tsan = true },
    .{ .name = "test_markpage", .aarch64 = true },
    .{ .name = "test_workers", .tsan = true },
    .{ .name = "test_worksim" },
    .{ .name = "test_explorer", .sources = &.{ "tests/test_explorer.c", "tests/explorer.c" } },
    .{
        .name = "test_order_threads",
        .sources = &.{ "tests/test_order_threads.c", "tests/explorer.c" },
        .aarch64 = true,
    },
    .{
        .name = "test_order_objects",
        .sources = &.{ "tests/test_order_objects.c", "tests/explorer.c" },
        .aarch64 = true,
    },
    .{ .name = "stress_handshake", .tsan = true, .aarch64 = true },
    .{ .name = "stress_coroutines", .tsan = true, .aarch64 = true },
    .{ .name = "stress_property", .sources = &property_sources, .tsan = true, .aarch64 = true },
    .{ .name = "test_heapmap_dump", .tsan = true },
    .{ .name = "test_heapmap", .sources = &.{ "tests/test_heapmap.c", "bench/heapmap_read.c" } },
    .{ .name = "test_hdr", .sources = &.{ "tests/test_hdr.c", "bench/hdr.c" }, .libs = &.{"m"} },
    .{ .name = "test_zbuf", .sources = &(zbuf_sources ++ [_][]const u8{"tests/test_zbuf.c"}), .tsan = true },
    .{ .name = "test_zbuf_io", .sources = &(zbuf_sources ++ [_][]const u8{"tests/test_zbuf_io.c"}), .tsan = true },
    .{ .name = "test_zbuf_echo", .sources = &(zbuf_sources ++ [_][]const u8{"tests/test_zbuf_echo.c"}), .tsan = true },
    .{ .name = "compare_graph", .libs = &.{"bdw-gc"}, .asan = false },
};

/// Random mutators against a shadow graph: the coordinator and its tests, a worker, its operations, the graph.
const property_sources = [_][]const u8{
    "tests/stress_property.c",
    "tests/property_death.c",
    "tests/property_objects.c",
    "tests/property_roots.c",
    "tests/property_threads.c",
    "tests/shadow.c",
};

/// Examples: examples/<name>.c, installed into bin/.
const examples = [_]Program{
    .{ .name = "hello" },
    .{ .name = "list" },
    .{ .name = "coroutines" },
    .{ .name = "offheap_list" },
    zbuf_program,
    .{ .name = "proxy", .sources = &(proxy_sources ++ [_][]const u8{"examples/proxy/buffers.c"}), .libs = &.{"m"} },
    .{
        .name = "proxy_boehm",
        .sources = &(proxy_sources ++ [_][]const u8{"examples/proxy/buffers_boehm.c"}),
        .libs = &.{ "bdw-gc", "m" },
    },
    lox_program,
};

/// A proxy with buffers of five kinds, over trigc and, in a program of its own, over Boehm's collector.
const proxy_sources = [_][]const u8{
    "examples/proxy/load.c",
    "examples/proxy/main.c",
    "examples/proxy/proxy.c",
};

/// The echo server over the buffer pool.
const zbuf_program: Program = .{
    .name = "zbuf_echo",
    .sources = &(zbuf_sources ++ [_][]const u8{"examples/zbuf/main.c"}),
};

const zbuf_sources = [_][]const u8{
    "examples/zbuf/bufpool.c",
    "examples/zbuf/echo.c",
    "examples/zbuf/zbuf.c",
};

/// The Lox interpreter; the tests build it a second time, over the checked library.
const lox_program: Program = .{
    .name = "lox",
    .sources = &lox_sources,
    .macros = &.{ "LOX_WITH_BOEHM", "LOX_WITH_EDIT" },
    .libs = &.{ "libedit", "bdw-gc", "m" },
};

const lox_sources = [_][]const u8{
    "examples/lox/code.c",
    "examples/lox/compile.c",
    "examples/lox/emit.c",
    "examples/lox/gaps.c",
    "examples/lox/main.c",
    "examples/lox/mem.c",
    "examples/lox/mem_boehm.c",
    "examples/lox/mem_trigc.c",
    "examples/lox/natives.c",
    "examples/lox/object.c",
    "examples/lox/repl.c",
    "examples/lox/run.c",
    "examples/lox/scan.c",
    "examples/lox/table.c",
    "examples/lox/vm.c",
};

/// Measuring programs: bench/<name>.c, installed into bin/.
const bench_programs = [_]Program{
    .{ .name = "bench-trigc", .sources = &worker_trigc_sources, .macros = &.{"ADAPTER_TRIGC"} },
    .{ .name = "bench-boehm", .sources = &worker_sources, .macros = &.{"ADAPTER_BOEHM"}, .libs = &.{"bdw-gc"} },
    .{
        .name = "bench-boehm-typed",
        .sources = &worker_sources,
        .macros = &.{"ADAPTER_BOEHM_TYPED"},
        .libs = &.{"bdw-gc"},
    },
    .{ .name = "bench-malloc", .sources = &worker_sources, .macros = &.{"ADAPTER_MALLOC"} },
    .{ .name = "trigc-sawtooth", .sources = &.{"bench/sawtooth.c"} },
    .{ .name = "trigc-demo", .sources = &demo_sources, .libs = &.{"m"} },
    .{ .name = "bench-locality", .sources = &.{ "bench/locality.c", "bench/clock.c" } },
    .{ .name = "bench-json", .sources = &.{"bench/json_load.c"} },
    .{ .name = "bench-mark", .sources = &mark_sources, .libs = &.{"bdw-gc"} },
    .{ .name = "bench-death", .sources = &.{"bench/death.c"} },
    .{ .name = "bench-stacks", .sources = &.{"bench/stacks.c"} },
    .{ .name = "bench-step", .sources = &.{"bench/step.c"} },
    .{ .name = "bench-barrier", .sources = &.{ "bench/barrier.c", "bench/clock.c" } },
    .{ .name = "field-trigc", .sources = &field_trigc_sources, .macros = &.{"FIELD_TRIGC"}, .libs = &.{"m"} },
    .{ .name = "field-manual", .sources = &field_sources, .macros = &.{"FIELD_MANUAL"}, .libs = &.{"m"} },
    .{ .name = "field-malloc", .sources = &field_sources, .macros = &.{"FIELD_MALLOC"}, .libs = &.{"m"} },
    .{ .name = "field-boehm", .sources = &field_sources, .macros = &.{"FIELD_BOEHM"}, .libs = &.{ "bdw-gc", "m" } },
};

/// Graphs of many shapes, marked by both collectors in one process.
const mark_sources = [_][]const u8{
    "bench/mark.c",
    "bench/mark_boehm.c",
    "bench/mark_graphs.c",
    "bench/mark_trigc.c",
};

/// Loads beside other allocators and the plain limit; bench/field.py runs them.
const field_sources = [_][]const u8{
    "bench/field/load_buffers.c",
    "bench/field/load_fragment.c",
    "bench/field/load_handoff.c",
    "bench/field/load_larson.c",
    "bench/field/load_limit.c",
    "bench/field/load_sawtooth.c",
    "bench/field/load_short.c",
    "bench/field/load_sizes.c",
    "bench/field/main.c",
    "bench/field/memory.c",
};

const field_trigc_sources = field_sources ++ [_][]const u8{"bench/metadata.c"};

/// Writes down what a program asks of malloc (a library to preload): the field's measured sizes come from it.
const recorder: Program = .{ .name = "field-record", .sources = &.{"bench/field/record.c"} };

/// The driver that starts the others, each row of its table in a process of its own.
const demo_sources = [_][]const u8{
    "bench/child.c",
    "bench/clock.c",
    "bench/demo.c",
    "bench/heapmap_read.c",
    "bench/hdr.c",
    "bench/mmu.c",
    "bench/page.c",
    "bench/plan.c",
    "bench/probe.c",
    "bench/report.c",
};

/// One workload in one process, on the collector that a macro names.
const worker_sources = [_][]const u8{
    "bench/clock.c",
    "bench/events.c",
    "bench/hdr.c",
    "bench/probe.c",
    "bench/work_alloc.c",
    "bench/work_faults.c",
    "bench/work_gcbench.c",
    "bench/work_list.c",
    "bench/work_lru.c",
    "bench/work_splay.c",
    "bench/work_store.c",
    "bench/work_tides.c",
    "bench/work_trees.c",
    "bench/worker.c",
};

/// trigc's worker can draw the heap, touch its memory beforehand, and say how much of it is metadata.
const worker_trigc_sources = worker_sources ++ [_][]const u8{
    "bench/heapmap.c",
    "bench/metadata.c",
    "bench/populate.c",
};

/// The programs among them that `demo` and `bench` run.
const demo_program = "trigc-demo";
const bench_program = "trigc-demo";

/// Tools in C: tools/<name>.c. The first is installed; the second, run over the committed table, is a test.
const table_printer: Program = .{ .name = "trigc-sizeclasses", .sources = &.{"tools/sizeclasses.c"} };
const table_writer: Program = .{ .name = "mksizeclass" };
/// The fast paths in loops: tools/callcounts.py counts their instructions.
const counted_program: Program = .{ .name = "callcounts" };

/// Scripts that test the tools and the built package: tests/tools/<name>.py.
const script_tests = [_][]const u8{
    "test_tools",
    "test_package",
    "test_examples",
    "test_callcounts",
    "test_demo",
    "test_docs",
    "test_field",
    "test_peers",
};

// ---------------------------------------------------------------------------------------------------- flags

const warnings = [_][]const u8{ "-std=c11", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror" };
const library_flags = warnings ++ [_][]const u8{ "-fvisibility=hidden", "-fno-strict-aliasing" };
const program_flags = warnings;

const Options = struct {
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.Optimize,
    checks: u2,
    thread: bool = false,
    undefined_behaviour: std.zig.SanitizeC = .off,
};

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{});
    const chosen = b.option(std.builtin.Optimize, "optimize", "debug, safe, fast (the default) or small");
    const optimize: std.builtin.Optimize = chosen orelse switch (b.graph.release_mode) {
        .off, .any, .fast => .fast,
        .safe => .safe,
        .small => .small,
    };
    const checks = b.option(u2, "checks", "0 none, 1 cheap, 2 internal, 3 whole heap (2 in debug, else 0)") orelse
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
        .checks = checks,
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

    // ------------------------------------------------------------------------------------------------ artifacts

    const library = addStaticLibrary(b, "trigc", installed);
    installPackage(b, library, installed);

    const examples_step = b.step("examples", "Build the examples, lox among them, into zig-out/bin");
    for (examples) |program| {
        const exe = addProgram(b, "examples", program, library, installed, &.{});
        const install = b.addInstallArtifact(exe, .{});
        examples_step.dependOn(&install.step);
    }
    b.getInstallStep().dependOn(examples_step);

    const bench_install = b.step("bench-programs", "Build the measuring programs into zig-out/bin");
    for (bench_programs) |program| {
        const exe = addProgram(b, "bench", program, library, installed, &.{});
        bench_install.dependOn(&b.addInstallArtifact(exe, .{}).step);
    }

    const recorder_library = b.addLibrary(.{
        .name = recorder.name,
        .linkage = .dynamic,
        .root_module = cModule(b, installed),
    });
    recorder_library.root_module.addCSourceFiles(.{ .files = recorder.sources, .flags = &program_flags });
    bench_install.dependOn(&b.addInstallArtifact(recorder_library, .{}).step);

    const printer = addProgram(b, "tools", table_printer, library, installed, &.{});
    b.installArtifact(printer);
    const writer = addProgram(b, "tools", table_writer, library, installed, &.{});

    const checked_library = addStaticLibrary(b, "trigc_checked", checked);
    const racing_library = addStaticLibrary(b, "trigc_racing", racing);

    // ------------------------------------------------------------------------------------------------ steps

    const test_step = b.step("test", "Run every test (-- <part of a name>: only those)");
    const run_tests = addTestRunner(b, stress);
    // The longest ones first.
    if (contains("model", only)) run_tests.addArg("optional:model=tests/model/run.sh|quick");
    if (contains("lox", only)) {
        const checked_lox = addProgram(b, "examples", lox_program, checked_library, checked, &.{});
        run_tests.addArtifactArg2(checked_lox, .{ .prefix = "script:lox=tests/lox/run.py|--stress|--jobs=1|--lox=" });
    }
    for (tests) |program| {
        if (!contains(program.name, only)) continue;
        const exe = addProgram(b, "tests", program, checked_library, checked, &.{});
        run_tests.addArtifactArg2(exe, .{ .prefix = b.fmt("criterion:{s}=", .{program.name}) });
    }
    for (script_tests) |name| {
        if (!contains(name, only)) continue;
        const script = b.path(b.fmt("tests/tools/{s}.py", .{name}));
        run_tests.addFileArg2(script, .{ .prefix = b.fmt("script:{s}=", .{name}) });
    }
    if (contains("size_class_table", only)) {
        run_tests.addArtifactArg2(writer, .{
            .prefix = "command:size_class_table=",
            .suffix = "|alloc/sizeclass_table.h",
        });
    }
    run_tests.addDirectoryArg2(b.graph.path(.install_prefix, ""), .{
        .prefix = "--define=TRI_TEST_PREFIX=",
        .make_absolute = true,
    });
    run_tests.step.dependOn(b.getInstallStep());
    run_tests.addPassthruArgs();

    const tsan_step = b.step("test-tsan", "Run the tests of concurrency under ThreadSanitizer");
    const run_tsan = addTestRunner(b, stress);
    for (tests) |program| {
        if (!program.tsan or !contains(program.name, only)) continue;
        const exe = addProgram(b, "tests", program, racing_library, racing, &.{"-DTRI_PLAIN_MAIN"});
        run_tsan.addArtifactArg2(exe, .{ .prefix = b.fmt("plain:{s}=", .{program.name}) });
    }
    run_tsan.addPassthruArgs();
    tsan_step.dependOn(&run_tsan.step);
    // Criterion's sandbox does not start under ThreadSanitizer, so that with it `test` is `test-tsan`.
    test_step.dependOn(if (thread) &run_tsan.step else &run_tests.step);

    const asan_step = b.step("test-asan", "Run the same tests under AddressSanitizer and UBSan (second clang)");
    const run_asan = addTestRunner(b, stress);
    addAsanPrograms(b, run_asan, clang, "plain:", only);
    run_asan.addPassthruArgs();
    asan_step.dependOn(&run_asan.step);

    const soak_step = b.step("soak", "An hour of random stress with delays under three builds (-- --minutes=N)");
    const run_soak = b.addSystemCommand(&.{"python3"});
    run_soak.setName("soak");
    run_soak.setCwd(b.path("."));
    run_soak.stdio = .inherit;
    run_soak.addFileArg(b.path("tools/soak.py"));
    const soaked = [_][]const u8{ "stress_property", "stress_handshake", "stress_coroutines" };
    for (soaked) |name| addAsanPrograms(b, run_soak, clang, "memory:", name);
    for (tests) |program| {
        for (soaked) |name| {
            if (std.mem.eql(u8, program.name, name)) break;
        } else continue;
        const flags = [_][]const u8{"-DTRI_PLAIN_MAIN"};
        const plain = addProgram(b, "tests", program, checked_library, checked, &flags);
        run_soak.addArtifactArg2(plain, .{ .prefix = b.fmt("checks:{s}=", .{program.name}) });
        const raced = addProgram(b, "tests", program, racing_library, racing, &flags);
        run_soak.addArtifactArg2(raced, .{ .prefix = b.fmt("threads:{s}=", .{program.name}) });
    }
    run_soak.addDirectoryArg2(b.graph.path(.install_prefix, "soak"), .{ .prefix = "--out=", .make_absolute = true });
    run_soak.addPassthruArgs();
    soak_step.dependOn(&run_soak.step);

    const aarch64_step = b.step("test-aarch64", "Run tests built for ARMv8 under qemu-aarch64 (package qemu-user)");
    const run_aarch64 = addTestRunner(b, stress);
    addEmulatedPrograms(b, run_aarch64, checked, only);
    run_aarch64.addPassthruArgs();
    aarch64_step.dependOn(&run_aarch64.step);

    const model_step = b.step("model", "Run the long searches over the model of the cycle");
    const run_model = addTestRunner(b, false);
    run_model.addArg("optional:model=tests/model/run.sh|long");
    model_step.dependOn(&run_model.step);

    const demo_step = b.step("demo", "Measure trigc beside Boehm, and draw it (-Dfull: the 2 GB load too)");
    const run_demo = addInstalledRun(b, demo_program);
    if (full) run_demo.addArg("--full");
    run_demo.step.dependOn(b.getInstallStep());
    run_demo.step.dependOn(bench_install);
    run_demo.addPassthruArgs();
    demo_step.dependOn(&run_demo.step);

    const bench_step = b.step("bench", "Measure (-- --quick: in a minute), then a look at the other allocators");
    bench_step.dependOn(bench_install);
    const run_bench = addInstalledRun(b, bench_program);
    run_bench.step.dependOn(b.getInstallStep());
    run_bench.step.dependOn(bench_install);
    run_bench.addPassthruArgs();
    bench_step.dependOn(&run_bench.step);
    const run_field = b.addSystemCommand(&.{"python3"});
    run_field.setName("run field");
    run_field.addFileArg(b.path("bench/field.py"));
    run_field.addArg("--quick");
    run_field.addDirectoryArg2(b.graph.path(.install_prefix, "bin"), .{ .prefix = "--bin=", .make_absolute = true });
    run_field.addDirectoryArg2(b.graph.path(.install_prefix, "field"), .{ .prefix = "--out=", .make_absolute = true });
    run_field.stdio = .inherit;
    run_field.step.dependOn(&run_bench.step);
    bench_step.dependOn(&run_field.step);
    const run_locality = addInstalledRun(b, "bench-locality");
    run_locality.addArg("--quick");
    run_locality.step.dependOn(bench_install);
    run_locality.step.dependOn(&run_field.step);
    bench_step.dependOn(&run_locality.step);
    const run_json = addInstalledRun(b, "bench-json");
    run_json.addArg("--quick");
    run_json.step.dependOn(bench_install);
    run_json.step.dependOn(&run_locality.step);
    bench_step.dependOn(&run_json.step);
    const run_barrier = addInstalledRun(b, "bench-barrier");
    run_barrier.addArg("--quick");
    run_barrier.step.dependOn(bench_install);
    run_barrier.step.dependOn(&run_json.step);
    bench_step.dependOn(&run_barrier.step);

    const counts_step = b.step("callcounts", "Count the instructions of the fast paths, write docs/callcounts.md");
    counts_step.dependOn(&addCallCounts(b, "write").step);

    const fmt_step = b.step("fmt", "Format the C sources and build.zig");
    fmt_step.dependOn(&b.addFmt(.{ .paths = b.pathList(&.{ "build.zig", "build.zig.zon" }) }).step);
    fmt_step.dependOn(&addFormatter(b, formatter, "--write").step);

    const check_step = b.step("check", "Three compilers, headers alone, formatting, include layers, exported symbols");
    check_step.dependOn(&b.addFmt(.{ .paths = b.pathList(&.{ "build.zig", "build.zig.zon" }), .check = true }).step);
    check_step.dependOn(&addFormatter(b, formatter, "--check").step);
    addCompilerChecks(b, check_step, clang);
    addToolChecks(b, check_step);
    check_step.dependOn(&addCallCounts(b, "check").step);
    check_step.dependOn(b.getInstallStep());
    check_step.dependOn(bench_install);
}

// ---------------------------------------------------------------------------------------------------- artifacts

fn contains(name: []const u8, part: []const u8) bool {
    return std.mem.indexOf(u8, name, part) != null;
}

/// A module of C sources with the include paths and macros that all of them share.
fn cModule(b: *std.Build, o: Options) *std.Build.Module {
    const module = b.createModule(.{
        .target = o.target,
        .optimize = o.optimize,
        .link_libc = true,
        .pic = true,
        .omit_frame_pointer = false,
        .strip = false,
        .sanitize_thread = o.thread,
        .sanitize_c = o.undefined_behaviour,
    });
    module.addIncludePath(b.path("include"));
    module.addIncludePath(b.path(".")); // "alloc/span.h", "gc/mark.h": the layer shows in every include
    module.addCMacro("_GNU_SOURCE", "1");
    module.addCMacro("TRI_CHECKS", b.fmt("{d}", .{o.checks}));
    return module;
}

fn addStaticLibrary(b: *std.Build, name: []const u8, o: Options) *std.Build.Step.Compile {
    const library = b.addLibrary(.{ .name = name, .linkage = .static, .root_module = cModule(b, o) });
    library.root_module.addCSourceFiles(.{ .files = &library_sources, .flags = &library_flags });
    if (o.undefined_behaviour == .full) library.bundle_ubsan_rt = true; // so that any linker can finish the program
    return library;
}

fn addProgram(
    b: *std.Build,
    folder: []const u8,
    program: Program,
    library: *std.Build.Step.Compile,
    o: Options,
    extra_flags: []const []const u8,
) *std.Build.Step.Compile {
    const exe = b.addExecutable(.{ .name = program.name, .root_module = cModule(b, o) });
    const flags = std.mem.concat(b.allocator, []const u8, &.{ &program_flags, extra_flags }) catch @panic("OOM");
    for (program.macros) |macro| exe.root_module.addCMacro(macro, "1");
    exe.root_module.addCSourceFiles(.{ .files = sourcesOf(b, folder, program), .flags = flags });
    exe.root_module.linkLibrary(library);
    for (program.libs) |lib| exe.root_module.linkSystemLibrary(lib, .{});
    const plain = extra_flags.len > 0;
    if (std.mem.eql(u8, folder, "tests") and !plain) {
        exe.root_module.linkSystemLibrary("criterion", .{});
        exe.link_gc_sections = false; // Criterion finds its tests in a section that nothing refers to by name
    }
    return exe;
}

fn sourcesOf(b: *std.Build, folder: []const u8, program: Program) []const []const u8 {
    if (program.sources.len > 0) return program.sources;
    return b.dupeStrings(&.{b.fmt("{s}/{s}.c", .{ folder, program.name })});
}

/// Everything that a user of the library needs, into the prefix: both libraries, the headers, the pkg-config file.
fn installPackage(b: *std.Build, library: *std.Build.Step.Compile, o: Options) void {
    const install = b.getInstallStep();
    b.installArtifact(library);
    for (public_headers) |header| {
        install.dependOn(&b.addInstallHeaderFile(b.path(b.fmt("include/{s}", .{header})), header).step);
    }
    const full_name = b.fmt("libtrigc.so.{s}", .{version});
    const soname = b.fmt("libtrigc.so.{d}", .{(std.SemanticVersion.parse(version) catch unreachable).major});
    const shared = b.addInstallLibFile(addSharedLibrary(b, library, o, soname), full_name);
    for ([_][]const u8{ soname, "libtrigc.so" }) |link| {
        const run = b.addSystemCommand(&.{ "ln", "-sf", full_name });
        run.setName(b.fmt("link {s}", .{link}));
        run.addFileArg(b.graph.path(.install_prefix, b.fmt("lib/{s}", .{link})));
        run.has_side_effects = true;
        run.step.dependOn(&shared.step);
        install.dependOn(&run.step);
    }
    const pc = b.addWriteFiles().add("trigc.pc", b.fmt(
        \\prefix=${{pcfiledir}}/../..
        \\includedir=${{prefix}}/include
        \\libdir=${{prefix}}/lib
        \\
        \\Name: trigc
        \\Description: A concurrent garbage-collected heap for C
        \\Version: {s}
        \\Cflags: -I${{includedir}}
        \\Libs: -L${{libdir}} -ltrigc
        \\Libs.private: -lpthread -lm
        \\
    , .{version}));
    install.dependOn(&b.addInstallFileWithDir(pc, .lib, "pkgconfig/trigc.pc").step);
}

/// The shared library, made of the static one's objects. Linked by `zig cc` because std.Build has no word for
/// `-z nodelete`: the collector's threads run this code, so dlclose must never unmap it.
fn addSharedLibrary(
    b: *std.Build,
    library: *std.Build.Step.Compile,
    o: Options,
    soname: []const u8,
) std.Build.LazyPath {
    const exports = b.addSystemCommand(&.{"python3"});
    exports.addFileArg(b.path("tools/exports.py"));
    exports.addArg("script");
    const script = exports.addOutputFileArg("trigc.map");
    for (public_headers) |header| exports.addFileArg(b.path(b.fmt("include/{s}", .{header})));

    const link = b.addRunFile(std.Build.LazyPath.zig_exe);
    link.setName("link libtrigc.so");
    link.addArgs(&.{ "cc", "-shared", "-O2", "-fno-sanitize=undefined" });
    if (!o.target.query.isNative()) {
        link.addArgs(&.{ "-target", o.target.query.zigTriple(b.allocator) catch @panic("OOM") });
    }
    link.addArg("-o");
    const shared = link.addOutputFileArg("libtrigc.so");
    link.addArg(b.fmt("-Wl,-soname,{s},-z,nodelete,-z,relro,-z,now,--undefined-version", .{soname}));
    link.addFileArg2(script, .{ .prefix = "-Wl,--version-script=" });
    link.addArg("-Wl,--whole-archive");
    link.addArtifactArg2(library, .{});
    link.addArgs(&.{ "-Wl,--no-whole-archive", "-lpthread", "-lm" });
    return shared;
}

// ---------------------------------------------------------------------------------------------------- steps

/// tools/runtests.py, waiting for the programs that it shall run. Runs whenever it is asked for: a stress test's
/// success is not a fact to keep in a cache.
fn addTestRunner(b: *std.Build, stress: bool) *std.Build.Step.Run {
    const run = b.addSystemCommand(&.{"python3"});
    run.setName("run tests");
    run.setCwd(b.path("."));
    run.addFileArg(b.path("tools/runtests.py"));
    run.addArgs(&.{ "--jobs", "2" });
    if (stress) run.setEnvironmentVariable("TRI_TEST_STRESS", "1");
    run.stdio = .inherit;
    return run;
}

/// Runs a program where it was installed, so that it finds the others beside it, with the terminal as its own.
fn addInstalledRun(b: *std.Build, name: []const u8) *std.Build.Step.Run {
    const run = b.addRunFile(b.graph.path(.install_prefix, b.fmt("bin/{s}", .{name})));
    run.setName(b.fmt("run {s}", .{name}));
    run.stdio = .inherit;
    return run;
}

fn addFormatter(b: *std.Build, formatter: []const u8, mode: []const u8) *std.Build.Step.Run {
    const run = b.addSystemCommand(&.{"python3"});
    run.setName(b.fmt("clang-format {s}", .{mode}));
    run.setCwd(b.path("."));
    run.addFileArg(b.path("tools/format.py"));
    run.addArgs(&.{ mode, formatter });
    run.stdio = .inherit;
    return run;
}

const Compiler = struct { command: []const u8, flags: []const []const u8 };

/// Zig's own clang, in the place of a compiler of the system.
const zig_clang = "zig cc";

/// One object by a compiler of the system, rebuilt when its source or a header that it reads has changed.
fn addSystemObject(
    b: *std.Build,
    compiler: Compiler,
    source: []const u8,
    macros: []const []const u8,
) std.Build.LazyPath {
    const zig = std.mem.eql(u8, compiler.command, zig_clang);
    const run = if (zig) b.addRunFile(std.Build.LazyPath.zig_exe) else b.addSystemCommand(&.{compiler.command});
    if (zig) run.addArg("cc");
    run.setName(b.fmt("{s} {s}", .{ compiler.command, source }));
    run.setCwd(b.path(".")); // so that dependency files and messages name paths from the root
    run.addArgs(&warnings);
    run.addArgs(&.{ "-D_GNU_SOURCE=1", "-Iinclude", "-I." });
    run.addArgs(compiler.flags);
    for (macros) |macro| run.addArg(b.fmt("-D{s}=1", .{macro}));
    run.addArgs(&.{ "-MMD", "-MF" });
    _ = run.addDepFileOutputArg2("object.d", .{ .make_absolute = true });
    run.addArg("-c");
    run.addFileArg2(b.path(source), .{ .make_absolute = true });
    run.addArg("-o");
    return run.addOutputFileArg2("object.o", .{ .make_absolute = true });
}

/// The sanitized tests with AddressSanitizer and UBSan: Zig ships no runtime for the former, so the second clang builds
/// library and tests anew.
fn addAsanPrograms(
    b: *std.Build,
    run_tests: *std.Build.Step.Run,
    clang: []const u8,
    kind: []const u8,
    only: []const u8,
) void {
    const sanitize = [_][]const u8{ "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined" };
    const common = sanitize ++ [_][]const u8{ "-O1", "-g", "-fno-omit-frame-pointer", "-DTRI_CHECKS=3" };
    const for_library: Compiler = .{ .command = clang, .flags = &(common ++ [_][]const u8{"-fno-strict-aliasing"}) };
    const for_tests: Compiler = .{ .command = clang, .flags = &(common ++ [_][]const u8{"-DTRI_PLAIN_MAIN"}) };
    var objects: [library_sources.len]std.Build.LazyPath = undefined;
    for (&objects, library_sources) |*object, source| object.* = addSystemObject(b, for_library, source, &.{});
    for (tests) |program| {
        if (!program.asan or !contains(program.name, only)) continue;
        const link = b.addSystemCommand(&.{clang});
        link.setName(b.fmt("link {s} (asan)", .{program.name}));
        link.addArgs(&sanitize);
        link.addArg("-o");
        const exe = link.addOutputFileArg(program.name);
        for (sourcesOf(b, "tests", program)) |source| {
            link.addFileArg(addSystemObject(b, for_tests, source, program.macros));
        }
        for (objects) |object| link.addFileArg(object);
        for (program.libs) |lib| link.addArg(b.fmt("-l{s}", .{if (std.mem.eql(u8, lib, "bdw-gc")) "gc" else lib}));
        link.addArgs(&.{ "-lpthread", "-lm" });
        run_tests.addFileArg2(exe, .{ .prefix = b.fmt("{s}{s}=", .{ kind, program.name }) });
    }
}

/// Tests for ARMv8, with musl and without a shared library, so that an emulator of the processor alone runs them. That
/// shows what the port lacks (instructions, registers, sizes of pages), and no weak memory order: the emulator orders
/// accesses as the processor does on which it runs.
fn addEmulatedPrograms(b: *std.Build, run_tests: *std.Build.Step.Run, checked: Options, only: []const u8) void {
    var ported = checked;
    ported.target = b.resolveTargetQuery(.{ .cpu_arch = .aarch64, .os_tag = .linux, .abi = .musl });
    ported.thread = false;
    ported.undefined_behaviour = .off;
    const library = addStaticLibrary(b, "trigc_aarch64", ported);
    for (tests) |program| {
        if (!program.aarch64 or !contains(program.name, only)) continue;
        const exe = addProgram(b, "tests", program, library, ported, &.{ "-DTRI_PLAIN_MAIN", "-DTEST_EMULATED=1" });
        run_tests.addArtifactArg2(exe, .{ .prefix = b.fmt("emulated:{s}=", .{program.name}) });
    }
}

/// Every source by gcc and the second clang, the tests by Zig's clang too (it compiles the rest in the other steps),
/// and the headers alone.
fn addCompilerChecks(b: *std.Build, check_step: *std.Build.Step, clang: []const u8) void {
    for ([_][]const u8{ "gcc", clang }) |command| {
        const released: Compiler = .{ .command = command, .flags = &.{ "-O2", "-DTRI_CHECKS=0" } };
        const asserted: Compiler = .{ .command = command, .flags = &.{ "-O1", "-DTRI_CHECKS=3" } };
        const plain: Compiler = .{ .command = command, .flags = &.{ "-O1", "-DTRI_CHECKS=3", "-DTRI_PLAIN_MAIN" } };
        for (library_sources) |source| {
            addSystemObject(b, released, source, &.{}).addStepDependencies(check_step);
            addSystemObject(b, asserted, source, &.{}).addStepDependencies(check_step);
        }
        for (tests) |program| addCheckedSources(b, check_step, asserted, "tests", program);
        for (tests) |program| addCheckedSources(b, check_step, plain, "tests", program);
        for (examples) |program| addCheckedSources(b, check_step, released, "examples", program);
        for (bench_programs) |program| addCheckedSources(b, check_step, released, "bench", program);
        addCheckedSources(b, check_step, released, "bench", recorder);
        for ([_]Program{ table_printer, table_writer, counted_program }) |program| {
            addCheckedSources(b, check_step, released, "tools", program);
        }
    }
    const tested: Compiler = .{ .command = zig_clang, .flags = &.{ "-O1", "-DTRI_CHECKS=3" } };
    for (tests) |program| addCheckedSources(b, check_step, tested, "tests", program);
    const headers = b.addSystemCommand(&.{"python3"});
    headers.setName("headers alone");
    headers.setCwd(b.path("."));
    headers.addFileArg(b.path("tools/headers.py"));
    headers.addFileArg2(std.Build.LazyPath.zig_exe, .{ .prefix = "--zig=", .make_absolute = true });
    headers.addArg(b.fmt("--clang={s}", .{clang}));
    headers.addArgs(&public_headers);
    headers.stdio = .inherit;
    check_step.dependOn(&headers.step);
}

fn addCheckedSources(
    b: *std.Build,
    check_step: *std.Build.Step,
    compiler: Compiler,
    folder: []const u8,
    program: Program,
) void {
    for (sourcesOf(b, folder, program)) |source| {
        addSystemObject(b, compiler, source, program.macros).addStepDependencies(check_step);
    }
}

/// Instructions of the fast paths, of one kind of code whatever this machine and the options are, so that all get the
/// same numbers.
fn addCallCounts(b: *std.Build, mode: []const u8) *std.Build.Step.Run {
    const plain: Options = .{
        .target = b.resolveTargetQuery(.{ .cpu_model = .baseline }),
        .optimize = .fast,
        .checks = 0,
    };
    const library = addStaticLibrary(b, "trigc_counted", plain);
    const program = addProgram(b, "tools", counted_program, library, plain, &.{});
    const run = b.addSystemCommand(&.{"python3"});
    run.setName(b.fmt("callcounts {s}", .{mode}));
    run.setCwd(b.path("."));
    run.addFileArg(b.path("tools/callcounts.py"));
    run.addArg(mode);
    run.addArtifactArg2(program, .{});
    run.has_side_effects = true;
    run.stdio = .inherit;
    return run;
}

/// The checks that are scripts: include layers, files that no list names, what nobody uses, symbols.
fn addToolChecks(b: *std.Build, check_step: *std.Build.Step) void {
    for ([_][]const u8{ "layers", "listed", "invariants", "unused" }) |name| {
        const run = b.addSystemCommand(&.{"python3"});
        run.setName(name);
        run.setCwd(b.path("."));
        run.addFileArg(b.path(b.fmt("tools/{s}.py", .{name})));
        run.stdio = .inherit;
        check_step.dependOn(&run.step);
    }
    const symbols = b.addSystemCommand(&.{"python3"});
    symbols.setName("symbols");
    symbols.setCwd(b.path("."));
    symbols.addFileArg(b.path("tools/exports.py"));
    symbols.addArg("check");
    for ([_][2][]const u8{ .{ "--shared=", "lib/libtrigc.so" }, .{ "--static=", "lib/libtrigc.a" } }) |library| {
        const path = b.graph.path(.install_prefix, library[1]);
        symbols.addFileArg2(path, .{ .prefix = library[0], .make_absolute = true });
    }
    for (public_headers) |header| symbols.addArg(b.fmt("include/{s}", .{header}));
    symbols.step.dependOn(b.getInstallStep());
    symbols.stdio = .inherit;
    check_step.dependOn(&symbols.step);
}
