/* main.c - the command line: options, a script or the REPL, exit codes as the reference interpreter's. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gaps.h"
#include "repl.h"
#include "vm.h"

enum { EXIT_USAGE = 64, EXIT_FILE = 74 };

static const char usage[] = "Usage: lox [options] [path]\n";
static const char help[] =
    "Runs the Lox script at path, or reads lines from the terminal.\n"
    "\n"
    "  --gc=trigc|boehm|none  collector: this project's heap (default), Boehm's, or trigc's allocation without cycles\n"
    "  --stress[=N]           collect at every allocation, or at every N-th\n"
    "  --trace-gc             print a line a collection to standard error\n"
    "  --stats                print the collector's counters to standard error at the end\n"
    "  --gaps                 print a histogram of the time between calls to standard error at the end\n"
    "  --help                 print this\n"
    "\n"
    "Exit codes: 0, 64 usage, 65 the script does not compile, 70 run-time error, 74 the file cannot be read.\n"
    "This build:"
#ifdef LOX_WITH_BOEHM
    " with Boehm's collector,"
#else
    " without Boehm's collector,"
#endif
#ifdef LOX_WITH_EDIT
    " with line editing.\n";
#else
    " without line editing.\n";
#endif

struct arguments {
    struct mem_options mem;
    bool stats, gaps;
    const char *path;
};

static bool parse_backend(const char *name, enum mem_backend *backend) {
    static const char *const names[] = {[MEM_TRIGC] = "trigc", [MEM_NONE] = "none", [MEM_BOEHM] = "boehm"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *backend = (enum mem_backend)i;
        return true;
    }
    fprintf(stderr, "lox: --gc=%s: the collectors are trigc, boehm and none\n", name);
    return false;
}

static bool parse_stress(const char *text, uint32_t *stress) {
    char *end;
    long n = strtol(text, &end, 10);
    if (*text != '\0' && *end == '\0' && n > 0 && n <= INT32_MAX) {
        *stress = (uint32_t)n;
        return true;
    }
    fprintf(stderr, "lox: --stress=%s: expected a count from 1 up\n", text);
    return false;
}

static bool parse_option(const char *option, struct arguments *arguments) {
    if (strncmp(option, "--gc=", 5) == 0) return parse_backend(option + 5, &arguments->mem.backend);
    if (strncmp(option, "--stress=", 9) == 0) return parse_stress(option + 9, &arguments->mem.stress);
    if (strcmp(option, "--stress") == 0) return parse_stress("1", &arguments->mem.stress);
    if (strcmp(option, "--trace-gc") == 0) {
        arguments->mem.trace = true;
        return true;
    }
    if (strcmp(option, "--stats") == 0) {
        arguments->stats = true;
        return true;
    }
    if (strcmp(option, "--gaps") == 0) {
        arguments->gaps = true;
        return true;
    }
    if (strcmp(option, "--help") == 0) {
        printf("%s%s", usage, help);
        exit(0);
    }
    fprintf(stderr, "lox: unknown option %s\n", option);
    return false;
}

static bool parse_arguments(int argc, char **argv, struct arguments *arguments) {
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) == 0) {
            if (!parse_option(argv[i], arguments)) return false;
        } else if (arguments->path != NULL) {
            return false;
        } else {
            arguments->path = argv[i];
        }
    }
    return true;
}

/* The whole file with a NUL behind it, or NULL after a message. Reads pipes and devices as well. */
static char *read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "Could not open file \"%s\".\n", path);
        return NULL;
    }
    size_t length = 0, capacity = 1 << 16;
    char *text = malloc(capacity);
    while (text != NULL) {
        length += fread(text + length, 1, capacity - length - 1, file);
        if (length < capacity - 1) break;
        char *grown = realloc(text, capacity *= 2);
        if (grown == NULL) free(text);
        text = grown;
    }
    if (text == NULL) {
        fprintf(stderr, "Not enough memory to read \"%s\".\n", path);
    } else if (ferror(file) != 0) {
        fprintf(stderr, "Could not read file \"%s\".\n", path);
        free(text);
        text = NULL;
    } else {
        text[length] = '\0';
    }
    fclose(file);
    return text;
}

/* What this thread, without a collector's own, has used of the processor. */
static double thread_seconds(void) {
    struct timespec ts;
    return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts) == 0 ? (double)ts.tv_sec + (double)ts.tv_nsec / 1e9 : 0;
}

static void print_stats(void) {
    struct mem_stats stats;
    mem_stats_get(&stats);
    fprintf(stderr,
            "[stats] cycles %llu, heap %.1f MiB, worst pause %.3f ms, pauses %.3f ms, marking %.3f ms, "
            "assists %.3f ms, sweeping %.3f ms, program's thread %.3f s\n",
            (unsigned long long)stats.cycles, (double)stats.heap_bytes / (1024.0 * 1024.0),
            (double)stats.worst_pause_ns / 1e6, (double)stats.pauses_ns / 1e6, (double)stats.mark_ns / 1e6,
            (double)stats.assist_ns / 1e6, (double)stats.sweep_ns / 1e6, thread_seconds());
}

int main(int argc, char **argv) {
    struct arguments arguments = {0};
    if (!parse_arguments(argc, argv, &arguments)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    char *source = NULL;
    if (arguments.path != NULL && (source = read_file(arguments.path)) == NULL) return EXIT_FILE;
    if (!vm_open(&arguments.mem)) {
        free(source);
        return EXIT_USAGE;
    }
    vm.gaps = arguments.gaps && gaps_start();
    int status = 0;
    if (source != NULL)
        status = vm_interpret(source);
    else
        repl();
    free(source);
    if (vm.gaps) gaps_end();
    if (arguments.stats) print_stats();
    vm_close();
    return status;
}
