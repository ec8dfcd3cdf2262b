/*
 * The library that is linked says the version that its header promises.
 */
#include "tests/plain.h"

#include <trigc.h>

TEST(version, library_and_header_agree) {
    CHECK_STR_EQ(tri_version(), TRI_VERSION_STRING);
}

TEST(version, numbers_and_string_agree) {
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", TRI_VERSION >> 16, (TRI_VERSION >> 8) & 0xff, TRI_VERSION & 0xff);
    CHECK_STR_EQ(text, TRI_VERSION_STRING);
}
