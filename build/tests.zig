//! The tests: programs, those that `soak` repeats, and the scripts beside them. Add a line when you add a file.

const std = @import("std");
const Program = @import("programs.zig").Program;
const zbuf_sources = @import("programs.zig").zbuf_sources;

/// Test programs under Criterion: tests/<name>.c. The sanitizers run them from the plain main of tests/plain.h: those
/// of concurrency under ThreadSanitizer (.tsan = true), all under AddressSanitizer but where Boehm takes part.
pub const programs = [_]Program{
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
    .{ .name = "test_gate", .tsan = true },
    .{ .name = "test_death", .tsan = true },
    .{ .name = "test_finq", .tsan = true },
    .{ .name = "test_wmap", .tsan = true },
    .{ .name = "test_wmap_threads", .tsan = true },
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
    .{ .name = "test_scarce", .tsan = true },
    .{ .name = "stress_fork", .tsan = true },
    .{ .name = "test_fork", .tsan = true },
    .{ .name = "test_signals", .tsan = true },
    .{ .name = "test_interrupted" },
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
    .{ .name = "test_pacer_sim" },
    .{ .name = "test_pace", .tsan = true },
    .{ .name = "test_scavenger", .tsan = true },
    .{ .name = "test_resident" },
    .{ .name = "test_pressure", .tsan = true },
    .{ .name = "test_way", .tsan = true },
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
pub const property_sources = [_][]const u8{
    "tests/stress_property.c",
    "tests/property_death.c",
    "tests/property_objects.c",
    "tests/property_roots.c",
    "tests/property_threads.c",
    "tests/shadow.c",
};

/// Scripts that test the tools and the built package: tests/tools/<name>.py.
pub const scripts = [_][]const u8{
    "test_tools",
    "test_package",
    "test_examples",
    "test_callcounts",
    "test_demo",
    "test_docs",
    "test_field",
    "test_peers",
};

/// The programs that `soak` repeats for an hour.
pub const soaked = [_][]const u8{ "stress_property", "stress_handshake", "stress_coroutines" };

/// Whether -Donly chooses a test of this name.
pub fn isChosen(name: []const u8, only: []const u8) bool {
    return std.mem.indexOf(u8, name, only) != null;
}
