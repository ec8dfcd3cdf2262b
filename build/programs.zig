//! The programs besides the tests: examples, what measures, tools in C. Add a line when you add a file; a program of
//! several files has its list of sources below the list of programs that names it.
//!
//! What a program is stands here too, for the list of the tests (tests.zig) is made of the same.

/// A program. `sources` where it is not the one file <folder>/<name>.c, `macros` for -D, `libs` for what it links
/// besides trigc (pkg-config names; "m" as it is).
pub const Program = struct {
    name: []const u8,
    sources: []const []const u8 = &.{},
    macros: []const []const u8 = &.{},
    libs: []const []const u8 = &.{},
    tsan: bool = false, // a test: test-tsan runs it too
    asan: bool = true, // a test: test-asan runs it too
    aarch64: bool = false, // a test: test-aarch64 runs it too
};

/// Examples: examples/<name>.c, installed into bin/.
pub const examples = [_]Program{
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
pub const proxy_sources = [_][]const u8{
    "examples/proxy/load.c",
    "examples/proxy/main.c",
    "examples/proxy/proxy.c",
};

/// The echo server over the buffer pool.
pub const zbuf_program: Program = .{
    .name = "zbuf_echo",
    .sources = &(zbuf_sources ++ [_][]const u8{"examples/zbuf/main.c"}),
};

pub const zbuf_sources = [_][]const u8{
    "examples/zbuf/bufpool.c",
    "examples/zbuf/echo.c",
    "examples/zbuf/zbuf.c",
};

/// The Lox interpreter; the tests build it a second time, over the checked library.
pub const lox_program: Program = .{
    .name = "lox",
    .sources = &lox_sources,
    .macros = &.{ "LOX_WITH_BOEHM", "LOX_WITH_EDIT" },
    .libs = &.{ "libedit", "bdw-gc", "m" },
};

pub const lox_sources = [_][]const u8{
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
pub const bench_programs = [_]Program{
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
pub const mark_sources = [_][]const u8{
    "bench/mark.c",
    "bench/mark_boehm.c",
    "bench/mark_graphs.c",
    "bench/mark_trigc.c",
};

/// Loads beside other allocators and the plain limit; bench/field.py runs them.
pub const field_sources = [_][]const u8{
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

pub const field_trigc_sources = field_sources ++ [_][]const u8{"bench/metadata.c"};

/// Writes down what a program asks of malloc (a library to preload): the field's measured sizes come from it.
pub const recorder: Program = .{ .name = "field-record", .sources = &.{"bench/field/record.c"} };

/// The driver that starts the others, each row of its table in a process of its own.
pub const demo_sources = [_][]const u8{
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
pub const worker_sources = [_][]const u8{
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
pub const worker_trigc_sources = worker_sources ++ [_][]const u8{
    "bench/heapmap.c",
    "bench/metadata.c",
    "bench/populate.c",
};

/// The programs among them that `demo` and `bench` run.
pub const demo_program = "trigc-demo";
pub const bench_program = "trigc-demo";

/// Tools in C: tools/<name>.c. The first is installed; the second, run over the committed table, is a test.
pub const table_printer: Program = .{ .name = "trigc-sizeclasses", .sources = &.{"tools/sizeclasses.c"} };
pub const table_writer: Program = .{ .name = "mksizeclass" };
/// The fast paths in loops: tools/callcounts.py counts their instructions.
pub const counted_program: Program = .{ .name = "callcounts" };
