/* child.c - a process for each row: start, watch, stop in time, and read what it says.
 *
 * Its standard output and error come over pipes into memory; its progress through a shared page (probe.h), so that
 * watching costs it nothing. Its largest resident memory is the kernel's figure from wait4. A child dies with the
 * driver. */
#include "bench/child.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/clock.h"
#include "bench/probe.h"

enum { PROGRESS_FD = 3, WATCH_MS = 100 };

/* What came over one pipe. */
struct text {
    char *bytes;
    size_t size, capacity;
    int fd; /* -1 at its end */
};

struct child {
    pid_t pid;
    struct text out, err;
    struct progress *progress;
    int progress_fd;
    int status;
    bool ended, killed;
    struct rusage usage;
};

static bool text_grow(struct text *t) {
    if (t->capacity - t->size > 65536) return true;
    size_t capacity = t->capacity ? t->capacity * 2 : 1 << 18;
    char *bytes = realloc(t->bytes, capacity);
    if (!bytes) return false;
    t->bytes = bytes;
    t->capacity = capacity;
    return true;
}

/* Takes what is there; at the end of the pipe, or without memory, closes it. */
static void text_read(struct text *t) {
    ssize_t n = text_grow(t) ? read(t->fd, t->bytes + t->size, t->capacity - t->size - 1) : 0;
    if (n < 0 && errno == EINTR) return;
    if (n <= 0) {
        close(t->fd);
        t->fd = -1;
        return;
    }
    t->size += (size_t)n;
    t->bytes[t->size] = '\0';
}

/* In the child: its descriptors, then its program. Only async-signal-safe calls. */
static _Noreturn void child_exec(const struct row *row, const int out[2], const int err[2], int progress_fd) {
    char *argv[ROW_ARGS + 2];
    unsigned n = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    if (progress_fd >= 0) dup2(progress_fd, PROGRESS_FD);
    argv[n++] = (char *)(uintptr_t)row->program;
    for (unsigned i = 0; i < row->nargs; i++) argv[n++] = (char *)(uintptr_t)row->args[i];
    argv[n] = NULL;
    execv(row->program, argv);
    _exit(127);
}

static bool progress_open(struct child *c) {
    c->progress_fd = memfd_create("progress", MFD_CLOEXEC);
    if (c->progress_fd < 0 || ftruncate(c->progress_fd, sizeof(struct progress)) != 0) return false;
    void *page = mmap(NULL, sizeof(struct progress), PROT_READ | PROT_WRITE, MAP_SHARED, c->progress_fd, 0);
    if (page == MAP_FAILED) return false;
    c->progress = page;
    return true;
}

static bool child_start(struct child *c, const struct row *row) {
    int out[2], err[2];
    if (!progress_open(c) || pipe2(out, O_CLOEXEC) != 0) return false;
    if (pipe2(err, O_CLOEXEC) != 0) {
        close(out[0]);
        close(out[1]);
        return false;
    }
    fflush(NULL);
    c->pid = fork();
    if (c->pid == 0) child_exec(row, out, err, c->progress_fd);
    close(out[1]);
    close(err[1]);
    c->out.fd = out[0];
    c->err.fd = err[0];
    return c->pid > 0;
}

static uint64_t progress_done(const struct child *c) {
    uint64_t done = 0;
    for (int i = 0; i < PROBE_THREADS; i++) done += __atomic_load_n(&c->progress->thread[i].done, __ATOMIC_RELAXED);
    return done;
}

/* Reads, shows and waits until the child has ended, or stops it. */
static void child_watch(struct child *c, const struct row *row, double timeout_s, child_progress_fn progress,
                        void *user) {
    uint64_t start_ns = clock_posix_ns(), shown_ns = 0;
    while (!c->ended || c->out.fd >= 0 || c->err.fd >= 0) {
        struct pollfd fds[2] = {{c->out.fd, POLLIN, 0}, {c->err.fd, POLLIN, 0}};
        poll(fds, 2, c->ended ? 0 : WATCH_MS);
        if (fds[0].revents) text_read(&c->out);
        if (fds[1].revents) text_read(&c->err);
        if (c->ended && !fds[0].revents && !fds[1].revents) break; /* a grandchild holds the pipe */
        if (!c->ended && wait4(c->pid, &c->status, WNOHANG, &c->usage) == c->pid) c->ended = true;
        uint64_t now_ns = clock_posix_ns();
        double elapsed_s = (double)(now_ns - start_ns) / 1e9;
        if (!c->ended && !c->killed && elapsed_s > timeout_s) {
            kill(c->pid, SIGKILL);
            c->killed = true;
        }
        if (progress && now_ns - shown_ns >= WATCH_MS * 1000000u) {
            progress(user, row, progress_done(c), elapsed_s);
            shown_ns = now_ns;
        }
    }
}

static void child_close(struct child *c) {
    if (c->out.fd >= 0) close(c->out.fd);
    if (c->err.fd >= 0) close(c->err.fd);
    if (c->progress) munmap(c->progress, sizeof *c->progress);
    if (c->progress_fd >= 0) close(c->progress_fd);
    free(c->out.bytes);
    free(c->err.bytes);
}

/* The last line of standard error that says something, for the row's note. */
static void last_line(const struct text *t, char *line, size_t size) {
    line[0] = '\0';
    if (!t->bytes) return;
    size_t end = t->size;
    while (end > 0 && (t->bytes[end - 1] == '\n' || t->bytes[end - 1] == ' ')) end--;
    size_t start = end;
    while (start > 0 && t->bytes[start - 1] != '\n') start--;
    size_t n = end - start < size - 1 ? end - start : size - 1;
    memcpy(line, t->bytes + start, n);
    line[n] = '\0';
}

static void parse_own(struct row *row, const char *text) {
    int bound, used = 0;
    if (row->nkinds == ROW_KINDS) return;
    struct row_own *own = &row->kinds[row->nkinds];
    if (sscanf(text, "%" SCNu64 " %" SCNu64 " %lf %d %n", &own->count, &own->worst_ns, &own->total_ns, &bound, &used) <
        4)
        return;
    own->bound = bound != 0;
    snprintf(own->name, sizeof own->name, "%s", text + used);
    row->nkinds++;
}

/* Reads the lines that worker.c describes. Whether all were there. */
static bool parse_results(struct row *row, char *text) {
    bool gaps = false, complete = false;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *value = strchr(line, ' ');
        if (value) *value++ = '\0';
        if (strcmp(line, "end") == 0)
            complete = true;
        else if (!value)
            continue;
        else if (strcmp(line, "ops") == 0)
            row->ops = strtoull(value, NULL, 10);
        else if (strcmp(line, "seconds") == 0)
            row->seconds = strtod(value, NULL);
        else if (strcmp(line, "checksum") == 0)
            row->checksum = strtoull(value, NULL, 16);
        else if (strcmp(line, "collections") == 0)
            row->collections = strtoull(value, NULL, 10);
        else if (strcmp(line, "worst_on_core_ns") == 0)
            row->worst_on_core_ns = strtoull(value, NULL, 10);
        else if (strcmp(line, "own_worst_ns") == 0)
            row->own_worst_ns = strtoull(value, NULL, 10);
        else if (strcmp(line, "own") == 0)
            parse_own(row, value);
        else if (strcmp(line, "gaps") == 0)
            gaps = hdr_parse_counts(&row->gaps, value) != 0;
    }
    return gaps && complete;
}

/* FNV-1a over what a foreign program printed. */
static uint64_t text_hash(const struct text *t) {
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < t->size; i++) h = (h ^ (unsigned char)t->bytes[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* The line that `at` lies in, without its end, cut to what fits. */
static void line_around(const char *bytes, size_t size, size_t at, char *line, size_t room) {
    size_t start = at, n = 0;
    while (start > 0 && bytes[start - 1] != '\n') start--;
    while (start + n < size && bytes[start + n] != '\n' && n < room - 1) n++;
    memcpy(line, bytes + start, n);
    line[n] = '\0';
}

/* The file at `path`, whole; NULL when it cannot be read. */
static char *file_bytes(const char *path, size_t *size) {
    struct text t = {.fd = open(path, O_RDONLY | O_CLOEXEC)};
    while (t.fd >= 0) text_read(&t);
    *size = t.size;
    return t.bytes;
}

/* Whether the program printed exactly what the file holds; why not is the row's note. */
static bool printed_what_it_should(struct row *row, const struct text *out) {
    size_t size, at = 0;
    unsigned number = 1;
    char want[40], got[40];
    char *expected = file_bytes(row->expected, &size);
    const char *bytes = out->bytes ? out->bytes : "";
    if (!expected) {
        snprintf(row->why, sizeof row->why, "%.150s cannot be read", row->expected);
        return false;
    }
    while (at < size && at < out->size && expected[at] == bytes[at]) number += expected[at++] == '\n';
    bool same = at == size && at == out->size;
    line_around(expected, size, at, want, sizeof want);
    line_around(bytes, out->size, at, got, sizeof got);
    if (same)
        row->why[0] = '\0';
    else if (at == out->size)
        snprintf(row->why, sizeof row->why, "its output ends in line %u, which should be \"%s\"", number, want);
    else if (at == size)
        snprintf(row->why, sizeof row->why, "its output goes on in line %u: \"%s\"", number, got);
    else
        snprintf(row->why, sizeof row->why, "line %u of its output is \"%s\" and should be \"%s\"", number, got, want);
    free(expected);
    return same;
}

static void row_fail(struct row *row, enum row_state state, const char *format, const char *detail, int number) {
    row->state = state;
    if (detail[0])
        snprintf(row->why, sizeof row->why, format, number, detail);
    else
        snprintf(row->why, sizeof row->why, format, number, "no message");
}

static void row_judge(struct row *row, struct child *c, double timeout_s) {
    char said[ROW_TEXT];
    last_line(&c->err, said, sizeof said - 40);
    if (c->killed) {
        row->state = ROW_TIMEOUT;
        snprintf(row->why, sizeof row->why, "stopped after %.0f s", timeout_s);
    } else if (WIFSIGNALED(c->status)) {
        row_fail(row, ROW_FAILED, WTERMSIG(c->status) == SIGABRT ? "aborted (signal %d): %s" : "died of signal %d: %s",
                 said, WTERMSIG(c->status));
    } else if (WEXITSTATUS(c->status) != 0) {
        row_fail(row, ROW_FAILED, "exit code %d: %s", said, WEXITSTATUS(c->status));
    } else if (row->foreign) {
        row->state = row->expected[0] == '\0' || printed_what_it_should(row, &c->out) ? ROW_OK : ROW_FAILED;
        row->checksum = text_hash(&c->out);
    } else if (c->out.bytes && parse_results(row, c->out.bytes)) {
        row->state = ROW_OK;
        if (row->scene->interval_ns) hdr_add_corrected(&row->corrected, &row->gaps, row->scene->interval_ns);
    } else {
        row_fail(row, ROW_FAILED, "exit code %d but no results: %s", said, 0);
    }
}

void child_run(struct row *row, double timeout_s, child_progress_fn progress, void *user) {
    struct child c = {.out = {.fd = -1}, .err = {.fd = -1}, .progress_fd = -1};
    uint64_t start_ns = clock_posix_ns();
    if (access(row->program, X_OK) != 0) {
        row->state = ROW_MISSING;
        snprintf(row->why, sizeof row->why, "%.150s is not there: build it first", row->program);
        return;
    }
    if (row->events[0]) unlink(row->events); /* an earlier run's */
    if (!child_start(&c, row)) {
        row_fail(row, ROW_FAILED, "could not be started (error %d): %s", strerror(errno), errno);
        child_close(&c);
        return;
    }
    child_watch(&c, row, timeout_s, progress, user);
    row->wall_s = (double)(clock_posix_ns() - start_ns) / 1e9;
    if (row->foreign) row->seconds = row->wall_s;
    row->peak_kb = (uint64_t)c.usage.ru_maxrss;
    row_judge(row, &c, timeout_s);
    child_close(&c);
}
