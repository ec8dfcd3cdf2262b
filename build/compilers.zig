//! Objects by a compiler of the system: for AddressSanitizer, whose runtime Zig has not, and for the checks that other
//! compilers find nothing to say (checks.zig).

const std = @import("std");
const compile = @import("compile.zig");
const library = @import("library.zig");
const tests = @import("tests.zig");

pub const Compiler = struct { command: []const u8, flags: []const []const u8 };

/// Zig's own clang, in the place of a compiler of the system.
pub const zig_clang = "zig cc";

/// One object by a compiler of the system, rebuilt when its source or a header that it reads has changed.
pub fn addSystemObject(
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
    run.addArgs(&compile.warnings);
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
pub fn addAsanPrograms(
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
    var objects: [library.sources.len]std.Build.LazyPath = undefined;
    for (&objects, library.sources) |*object, source| object.* = addSystemObject(b, for_library, source, &.{});
    for (tests.programs) |program| {
        if (!program.asan or !tests.isChosen(program.name, only)) continue;
        const link = b.addSystemCommand(&.{clang});
        link.setName(b.fmt("link {s} (asan)", .{program.name}));
        link.addArgs(&sanitize);
        link.addArg("-o");
        const exe = link.addOutputFileArg(program.name);
        for (compile.sourcesOf(b, "tests", program)) |source| {
            link.addFileArg(addSystemObject(b, for_tests, source, program.macros));
        }
        for (objects) |object| link.addFileArg(object);
        for (program.libs) |lib| link.addArg(b.fmt("-l{s}", .{if (std.mem.eql(u8, lib, "bdw-gc")) "gc" else lib}));
        link.addArgs(&.{ "-lpthread", "-lm" });
        run_tests.addFileArg2(exe, .{ .prefix = b.fmt("{s}{s}=", .{ kind, program.name }) });
    }
}
