//! What `zig build check` looks at, and what it writes anew when asked: every source by three compilers, the headers
//! alone, the formatting, the scripts of tools/, exported symbols, instructions of the fast paths.

const std = @import("std");
const compile = @import("compile.zig");
const compilers = @import("compilers.zig");
const library = @import("library.zig");
const programs = @import("programs.zig");
const tests = @import("tests.zig");
const Compiler = compilers.Compiler;
const Program = programs.Program;

/// What `zig fmt` formats.
const zig_paths = [_][]const u8{ "build.zig", "build.zig.zon", "build" };

pub fn addZigFormatter(b: *std.Build, check: bool) *std.Build.Step.Fmt {
    return b.addFmt(.{ .paths = b.pathList(&zig_paths), .check = check });
}

pub fn addFormatter(b: *std.Build, formatter: []const u8, mode: []const u8) *std.Build.Step.Run {
    const run = b.addSystemCommand(&.{"python3"});
    run.setName(b.fmt("clang-format {s}", .{mode}));
    run.setCwd(b.path("."));
    run.addFileArg(b.path("tools/format.py"));
    run.addArgs(&.{ mode, formatter });
    run.stdio = .inherit;
    return run;
}

/// Every source by gcc and the second clang, the tests by Zig's clang too (it compiles the rest in the other steps),
/// and the headers alone.
pub fn addCompilerChecks(b: *std.Build, check_step: *std.Build.Step, clang: []const u8) void {
    for ([_][]const u8{ "gcc", clang }) |command| {
        const released: Compiler = .{ .command = command, .flags = &.{ "-O2", "-DTRI_CHECKS=0" } };
        const asserted: Compiler = .{ .command = command, .flags = &.{ "-O1", "-DTRI_CHECKS=3" } };
        const plain: Compiler = .{ .command = command, .flags = &.{ "-O1", "-DTRI_CHECKS=3", "-DTRI_PLAIN_MAIN" } };
        for (library.sources) |source| {
            compilers.addSystemObject(b, released, source, &.{}).addStepDependencies(check_step);
            compilers.addSystemObject(b, asserted, source, &.{}).addStepDependencies(check_step);
        }
        for (tests.programs) |program| addCheckedSources(b, check_step, asserted, "tests", program);
        for (tests.programs) |program| addCheckedSources(b, check_step, plain, "tests", program);
        for (programs.examples) |program| addCheckedSources(b, check_step, released, "examples", program);
        for (programs.bench_programs) |program| addCheckedSources(b, check_step, released, "bench", program);
        addCheckedSources(b, check_step, released, "bench", programs.recorder);
        for ([_]Program{ programs.table_printer, programs.table_writer, programs.counted_program }) |program| {
            addCheckedSources(b, check_step, released, "tools", program);
        }
    }
    const tested: Compiler = .{ .command = compilers.zig_clang, .flags = &.{ "-O1", "-DTRI_CHECKS=3" } };
    for (tests.programs) |program| addCheckedSources(b, check_step, tested, "tests", program);
    const headers = b.addSystemCommand(&.{"python3"});
    headers.setName("headers alone");
    headers.setCwd(b.path("."));
    headers.addFileArg(b.path("tools/headers.py"));
    headers.addFileArg2(std.Build.LazyPath.zig_exe, .{ .prefix = "--zig=", .make_absolute = true });
    headers.addArg(b.fmt("--clang={s}", .{clang}));
    headers.addArgs(&library.headers);
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
    for (compile.sourcesOf(b, folder, program)) |source| {
        compilers.addSystemObject(b, compiler, source, program.macros).addStepDependencies(check_step);
    }
}

/// Instructions of the fast paths, of one kind of code whatever this machine and the options are, so that all get the
/// same numbers.
pub fn addCallCounts(b: *std.Build, mode: []const u8) *std.Build.Step.Run {
    const plain: compile.Options = .{
        .target = b.resolveTargetQuery(.{ .cpu_model = .baseline }),
        .optimize = .fast,
        .checks = 0,
    };
    const counted = compile.addStaticLibrary(b, "trigc_counted", plain);
    const program = compile.addProgram(b, "tools", programs.counted_program, counted, plain, &.{});
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
pub fn addToolChecks(b: *std.Build, check_step: *std.Build.Step) void {
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
    for ([_][2][]const u8{ .{ "--shared=", "lib/libtrigc.so" }, .{ "--static=", "lib/libtrigc.a" } }) |built| {
        const path = b.graph.path(.install_prefix, built[1]);
        symbols.addFileArg2(path, .{ .prefix = built[0], .make_absolute = true });
    }
    for (library.headers) |header| symbols.addArg(b.fmt("include/{s}", .{header}));
    symbols.step.dependOn(b.getInstallStep());
    symbols.stdio = .inherit;
    check_step.dependOn(&symbols.step);
}
