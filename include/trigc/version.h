/* trigc/version.h - the numbers of this release, and what they promise.
 *
 * Before 1.0 the minor number changes with the ABI: a program built against 0.1.x runs with any later 0.1.y and with
 * nothing else. The shared library's soname, libtrigc.so.0, carries the major number. tri_version() gives the version
 * of the library that was linked; a header and a library that do not belong together are refused when a heap is
 * created (TRI_EABI).
 *
 * The one place where the number is decided is build.zig.zon; a test holds the three macros below against it.
 */
#ifndef TRIGC_VERSION_H
#define TRIGC_VERSION_H

#define TRI_VERSION_MAJOR 0
#define TRI_VERSION_MINOR 1
#define TRI_VERSION_PATCH 0

#define TRI__STRING2(x) #x
#define TRI__STRING(x) TRI__STRING2(x)

/* "0.1.0": a string literal. */
#define TRI_VERSION_STRING \
    TRI__STRING(TRI_VERSION_MAJOR) "." TRI__STRING(TRI_VERSION_MINOR) "." TRI__STRING(TRI_VERSION_PATCH)

/* 0x00MMmmpp, for comparisons in #if. */
#define TRI_VERSION ((TRI_VERSION_MAJOR << 16) | (TRI_VERSION_MINOR << 8) | TRI_VERSION_PATCH)

#endif
