/*
 * hello.c: is trigc installed, and which one?
 *
 * Build it against the installed package:
 *     cc hello.c $(pkg-config --cflags --libs trigc) -o hello
 */
#include <stdio.h>
#include <trigc.h>

int main(void) {
    printf("trigc %s (header %s)\n", tri_version(), TRI_VERSION_STRING);
    return 0;
}
