/*
 * version.c: the version of the library that is linked, for comparison with the header's macros.
 */
#include <trigc.h>

const char *tri_version(void) {
    return TRI_VERSION_STRING;
}
