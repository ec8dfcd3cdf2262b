//! What Zig compiles: the flags and include paths that all C sources share, the library, as often as somebody wants it
//! with other options, programs that are linked with one of these, and the package that is installed (both libraries,
//! headers, pkg-config file). The lists of sources are library.zig, programs.zig and tests.zig.

const std = @import("std");
const version = @import("../build.zig.zon").version; // the one place for the number
const lists = @import("library.zig");
const Program = @import("programs.zig").Program;

pub const warnings = [_][]const u8{ "-std=c11", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror" };
const library_flags = warnings ++ [_][]const u8{ "-fvisibility=hidden", "-fno-strict-aliasing" };
pub const program_flags = warnings;

pub const Options = struct {
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.Optimize,
    checks: u2,
    thread: bool = false,
    undefined_behaviour: std.zig.SanitizeC = .off,
};

/// A module of C sources with the include paths and macros that all of them share.
pub fn cModule(b: *std.Build, o: Options) *std.Build.Module {
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

pub fn addStaticLibrary(b: *std.Build, name: []const u8, o: Options) *std.Build.Step.Compile {
    const library = b.addLibrary(.{ .name = name, .linkage = .static, .root_module = cModule(b, o) });
    library.root_module.addCSourceFiles(.{ .files = &lists.sources, .flags = &library_flags });
    if (o.undefined_behaviour == .full) library.bundle_ubsan_rt = true; // so that any linker can finish the program
    return library;
}

pub fn addProgram(
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

pub fn sourcesOf(b: *std.Build, folder: []const u8, program: Program) []const []const u8 {
    if (program.sources.len > 0) return program.sources;
    return b.dupeStrings(&.{b.fmt("{s}/{s}.c", .{ folder, program.name })});
}

/// Everything that a user of the library needs, into the prefix: both libraries, the headers, the pkg-config file.
pub fn installPackage(b: *std.Build, library: *std.Build.Step.Compile, o: Options) void {
    const install = b.getInstallStep();
    b.installArtifact(library);
    for (lists.headers) |header| {
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
    for (lists.headers) |header| exports.addFileArg(b.path(b.fmt("include/{s}", .{header})));

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
