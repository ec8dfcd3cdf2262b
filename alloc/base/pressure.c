/* pressure.c - reading pressure stall information and control group files, and sleeping until one of them speaks; see
 * pressure.h.
 *
 * Owns: the descriptors that are polled and the counts read last. Does not own: what is done about it.
 *
 * A file that is missing, empty or not what the kernel's documentation says counts as absent: nothing here fails. The
 * counts: `total` of the line "some" of a pressure file is the time, in microseconds, for which some task waited for
 * memory; memory.events counts how often the group went beyond memory.high and came to memory.max. A descriptor is
 * kept for polling only where the kernel itself is behind the file, and is never written to after its trigger was set.
 * While nothing is polled there is no descriptor at all.
 *
 * Invariants: I-PRES1 a source that does not exist never presses. I-PRES2 one wake is enough to end the wait that runs
 * or comes next. */
#include "alloc/base/pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "alloc/base/atomic.h"
#include "alloc/base/bits.h"
#include "alloc/base/os.h"

enum { FILE_SYSTEM = 0, FILE_GROUP, FILE_EVENTS };

_Static_assert(PRESSURE_SYSTEM == 1 << FILE_SYSTEM && PRESSURE_GROUP == 1 << FILE_GROUP &&
                   PRESSURE_EVENTS == 1 << FILE_EVENTS,
               "a file's bit is its index");

/* A tenth of the time, over windows of two seconds: the shortest that the kernel grants to any user. */
enum { STALL_PERCENT = 10, LEAST_WINDOW_NS = 500000000 };
static const char trigger_text[] = "some 200000 2000000";

static char prefix[PRESSURE_PREFIX_BYTES]; /* set by tests, while no heap exists */

void tri__pressure_set_root(const char *new_prefix) {
    snprintf(prefix, sizeof prefix, "%s", new_prefix);
}

/* ---- Files ---- */

/* The beginning of a file as text. False when it cannot be read or is empty. */
static bool read_text(const char *path, char *text, size_t capacity) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t n = read(fd, text, capacity - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

static bool number_at(const char *text, uint64_t *out) {
    char *end;
    if (*text < '0' || *text > '9') {
        return false;
    }
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    *out = value;
    return errno == 0 && (*end == '\0' || *end == '\n' || *end == ' ');
}

/* The number after `key` at the beginning of a line ("high 12"), or within the line that begins with `line` ("some",
 * "total="). */
static bool number_after(const char *text, const char *line, const char *key, uint64_t *out) {
    size_t line_length = strlen(line);
    for (const char *at = text; at != NULL && *at != '\0';) {
        const char *end = strchr(at, '\n');
        if (strncmp(at, line, line_length) == 0 && at[line_length] == ' ') {
            const char *number = *key ? strstr(at, key) : at + line_length + 1;
            if (number != NULL && (end == NULL || number < end)) {
                return number_at(number + strlen(key), out);
            }
            return false;
        }
        at = end != NULL ? end + 1 : NULL;
    }
    return false;
}

/* The count of one of the three files. */
static bool read_count(const char *path, int which, uint64_t *count) {
    char text[1024];
    uint64_t high = 0, most = 0;
    if (path[0] == '\0' || !read_text(path, text, sizeof text)) {
        return false;
    }
    if (which != FILE_EVENTS) {
        return number_after(text, "some", "total=", count);
    }
    bool any = number_after(text, "high", "", &high);
    any |= number_after(text, "max", "", &most);
    *count = high + most;
    return any;
}

/* The number in folder/name; false for "max", for garbage, and where there is none. */
static bool read_group_number(const char *folder, const char *name, size_t *out) {
    char path[PRESSURE_PATH_BYTES + 32], text[64];
    uint64_t value;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!read_text(path, text, sizeof text) || !number_at(text, &value)) {
        return false;
    }
    *out = (size_t)value;
    return true;
}

/* ---- The sources ---- */

/* Whether a list like "cpu,cpuacct" names the controller; version 2's list is empty. */
static bool has_controller(const char *list, size_t length, const char *controller) {
    size_t n = strlen(controller);
    for (const char *at = list, *end = list + length; at <= end;) {
        size_t item = strcspn(at, ",:");
        if (item == n && strncmp(at, controller, n) == 0) {
            return true;
        }
        at += item + 1;
    }
    return false;
}

/* The path of this process's group in a hierarchy, from /proc/self/cgroup: that of version 2 (""), or of a controller
 * of version 1. */
static bool find_group_name(const char *controller, char *name, size_t capacity) {
    char path[PRESSURE_PREFIX_BYTES + 32], text[4096];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", prefix);
    if (!read_text(path, text, sizeof text)) {
        return false;
    }
    for (char *line = text; line != NULL && *line != '\0';) {
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end = '\0';
        }
        char *list = strchr(line, ':'), *group = list != NULL ? strchr(list + 1, ':') : NULL;
        if (group != NULL && group[1] == '/' && has_controller(list + 1, (size_t)(group - list - 1), controller)) {
            snprintf(name, capacity, "%s", group + 1);
            return strlen(group + 1) < capacity;
        }
        line = end != NULL ? end + 1 : NULL;
    }
    return false;
}

static bool is_group(const char *folder) {
    size_t bytes;
    return read_group_number(folder, "memory.current", &bytes);
}

/* The group's folder. Inside a container the name may be one of another world: then the hierarchy's root is ours. */
static void find_group(struct pressure *p) {
    static const char *const mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
    char name[PRESSURE_PATH_BYTES / 2];
    p->group[0] = '\0';
    if (!find_group_name("", name, sizeof name)) {
        return;
    }
    for (size_t i = 0; i < TRI_COUNT(mounts); i++) {
        int root = snprintf(p->group, sizeof p->group, "%s%s", prefix, mounts[i]);
        p->root_length = (size_t)root;
        snprintf(p->group + root, sizeof p->group - (size_t)root, "%s", strcmp(name, "/") == 0 ? "" : name);
        if (is_group(p->group)) {
            return;
        }
        p->group[root] = '\0';
        if (is_group(p->group)) {
            return;
        }
    }
    p->group[0] = '\0';
}

static bool is_kernels(int fd) {
    struct statfs s;
    return fstatfs(fd, &s) == 0 && (s.f_type == PROC_SUPER_MAGIC || s.f_type == CGROUP2_SUPER_MAGIC);
}

/* A descriptor that poll understands, or -1. */
static int open_polled(const char *path, int which) {
    bool trigger = which != FILE_EVENTS;
    int fd = open(path, (trigger ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    char text[16];
    bool works = is_kernels(fd) && (trigger ? write(fd, trigger_text, sizeof trigger_text) == sizeof trigger_text
                                            : read(fd, text, sizeof text) > 0);
    if (!works) {
        close(fd);
        return -1;
    }
    return fd;
}

static void find_file(struct pressure *p, int which, const char *folder, const char *name) {
    struct pressure_file *file = &p->files[which];
    uint64_t count;
    snprintf(file->path, sizeof file->path, "%.*s%s", (int)(sizeof file->path - 40), folder, name);
    if (!read_count(file->path, which, &count)) {
        file->path[0] = '\0';
        return;
    }
    p->sources |= 1u << which;
    file->fd = open_polled(file->path, which);
}

void tri__pressure_init(struct pressure *p) {
    int wake_fd = -1;
    p->sources = 0;
    p->limited = false;
    for (int i = 0; i < PRESSURE_SOURCES; i++) {
        p->files[i] = (struct pressure_file){.fd = -1};
    }
    find_group(p);
    find_file(p, FILE_SYSTEM, prefix, "/proc/pressure/memory");
    if (p->group[0] != '\0') {
        find_file(p, FILE_GROUP, p->group, "/memory.pressure");
        find_file(p, FILE_EVENTS, p->group, "/memory.events");
        p->sources |= PRESSURE_LIMIT;
    }
    for (int i = 0; i < PRESSURE_SOURCES && wake_fd < 0; i++) {
        if (p->files[i].fd >= 0) {
            wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        }
    }
    atomic_store_seq(&p->wake_fd, wake_fd); /* pairs with pressure_wake */
}

void tri__pressure_fini(struct pressure *p) {
    for (int i = 0; i < PRESSURE_SOURCES; i++) {
        if (p->files[i].fd >= 0) {
            close(p->files[i].fd);
        }
    }
    if (p->wake_fd >= 0) {
        close(p->wake_fd);
    }
}

bool tri__pressure_needs_reading(const struct pressure *p) {
    if (p->limited) {
        return true;
    }
    for (int i = 0; i < PRESSURE_SOURCES; i++) {
        if (p->files[i].path[0] != '\0' && (p->files[i].fd < 0 || p->wake_fd < 0)) {
            return true;
        }
    }
    return false;
}

/* ---- Looking ---- */

/* A pressure file presses when tasks waited for a tenth of the time since the last look; memory.events when it
 * counted. */
static bool file_presses(struct pressure_file *file, int which, uint64_t now_ns) {
    uint64_t count;
    if (!read_count(file->path, which, &count)) {
        return false; /* I-PRES1 */
    }
    uint64_t before = file->count, since_ns = file->read_ns;
    if (which != FILE_EVENTS && since_ns != 0 && now_ns - since_ns < LEAST_WINDOW_NS) {
        return false; /* a share of so short a time says nothing */
    }
    file->count = count;
    file->read_ns = now_ns;
    if (since_ns == 0 || count <= before) {
        return false;
    }
    if (which == FILE_EVENTS) {
        return true;
    }
    uint64_t elapsed_us = (now_ns - since_ns) / 1000;
    return (count - before) * 100 >= elapsed_us * STALL_PERCENT;
}

/* What a group uses, without the cached files that nobody has read lately. */
static size_t working_set(const char *folder, size_t current) {
    char path[PRESSURE_PATH_BYTES + 32], text[4096];
    uint64_t cached = 0;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    if (read_text(path, text, sizeof text)) {
        number_after(text, "inactive_file", "", &cached);
    }
    return cached < current ? current - (size_t)cached : 0;
}

/* The limit that is nearest, from the group up to the hierarchy's root. */
static void look_at_limits(struct pressure *p, struct pressure_report *r) {
    char folder[PRESSURE_PATH_BYTES];
    snprintf(folder, sizeof folder, "%s", p->group);
    for (;;) {
        size_t high = SIZE_MAX, most = SIZE_MAX, current = 0;
        read_group_number(folder, "memory.high", &high);
        read_group_number(folder, "memory.max", &most);
        size_t limit = min_size(high, most);
        if (limit != SIZE_MAX && read_group_number(folder, "memory.current", &current)) {
            size_t used = working_set(folder, current), room = limit > used ? limit - used : 0;
            size_t room_before = r->limit_bytes > r->used_bytes ? r->limit_bytes - r->used_bytes : 0;
            if (r->limit_bytes == SIZE_MAX || room < room_before) {
                r->limit_bytes = limit;
                r->used_bytes = used;
            }
        }
        char *slash = strrchr(folder + p->root_length, '/');
        if (slash == NULL) {
            return;
        }
        *slash = '\0';
    }
}

uint32_t tri__pressure_look(struct pressure *p, uint64_t now_ns, uint32_t fired, struct pressure_report *r) {
    *r = (struct pressure_report){.pressing = fired & p->sources, .limit_bytes = SIZE_MAX};
    for (int i = 0; i < PRESSURE_SOURCES; i++) {
        if (file_presses(&p->files[i], i, now_ns)) {
            r->pressing |= 1u << i;
        }
    }
    if (p->group[0] != '\0') {
        look_at_limits(p, r);
        p->limited = r->limit_bytes != SIZE_MAX;
        if (r->limit_bytes != SIZE_MAX && r->used_bytes >= r->limit_bytes - r->limit_bytes / 20) {
            r->pressing |= PRESSURE_LIMIT;
        }
    }
    return r->pressing;
}

/* ---- Sleeping ---- */

static void close_polled(struct pressure_file *file) {
    close(file->fd);
    file->fd = -1;
}

/* What a descriptor that poll returned says; the kernel forgets a file's news when it is read again. */
static bool has_news(struct pressure_file *file, int which, short revents) {
    char text[16];
    if (revents & POLLNVAL) {
        file->fd = -1; /* closed under our feet: read from now on */
        return false;
    }
    if (which == FILE_EVENTS) { /* POLLPRI and POLLERR come together here */
        if (pread(file->fd, text, sizeof text, 0) <= 0) {
            close_polled(file);
        }
        return false; /* the look that follows counts */
    }
    if (revents & POLLERR) {
        close_polled(file); /* its group is gone */
        return false;
    }
    return (revents & POLLPRI) != 0;
}

static uint32_t wait_polling(struct pressure *p, uint64_t timeout_ns) {
    struct pollfd fds[PRESSURE_SOURCES + 1];
    struct timespec t = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};
    uint32_t fired = 0;
    fds[0] = (struct pollfd){.fd = p->wake_fd, .events = POLLIN};
    for (int i = 0; i < PRESSURE_SOURCES; i++) {
        fds[i + 1] = (struct pollfd){.fd = p->files[i].fd, .events = POLLPRI}; /* poll leaves out what is negative */
    }
    if (ppoll(fds, TRI_COUNT(fds), timeout_ns ? &t : NULL, NULL) <= 0) {
        return 0;
    }
    if (fds[0].revents & POLLIN) {
        uint64_t wakes;
        ssize_t ignored = read(p->wake_fd, &wakes,
                               sizeof wakes); /* empties it; a wake that comes now ends the next wait */
        (void)ignored;
    }
    for (int i = 0; i < PRESSURE_SOURCES; i++) {
        if (fds[i + 1].revents != 0 && has_news(&p->files[i], i, fds[i + 1].revents)) {
            fired |= 1u << i;
        }
    }
    return fired;
}

uint32_t tri__pressure_wait(struct pressure *p, const uint32_t *word, uint64_t timeout_ns) {
    if (atomic_load_seq(word) != 0) { /* pairs with the waker's write of it: I-PRES2 */
        return 0;
    }
    if (p->wake_fd >= 0) {
        return wait_polling(p, timeout_ns);
    }
    tri__os_futex_wait(word, 0, timeout_ns);
    return 0;
}

void tri__pressure_wake(struct pressure *p, const uint32_t *word) {
    int fd = atomic_load_seq(&p->wake_fd); /* after *word; pairs with pressure_init: one of the two sees the other */
    if (fd >= 0) {
        uint64_t one = 1;
        ssize_t ignored = write(fd, &one, sizeof one); /* full: a wake is under way */
        (void)ignored;
    } else {
        tri__os_futex_wake_all(word);
    }
}

/* ---- Processors ---- */

/* What one group grants in a period, in thousandths of a processor, rounded up; UINT_MAX: no limit. */
static unsigned quota_of(const char *folder) {
    char path[PRESSURE_PATH_BYTES + 32], text[64], *second;
    uint64_t quota = 0, period = 0;
    size_t number;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (read_text(path, text, sizeof text)) { /* version 2: "max 100000", "50000 100000" */
        second = strchr(text, ' ');
        if (second == NULL || !number_at(text, &quota) || !number_at(second + 1, &period)) {
            return UINT_MAX;
        }
    } else if (read_group_number(folder, "cpu.cfs_quota_us", &number)) { /* version 1: -1 without a limit */
        quota = number;
        period = read_group_number(folder, "cpu.cfs_period_us", &number) ? number : 0;
    }
    if (quota == 0 || period == 0 || quota > UINT64_MAX / 1000 || (quota * 1000 - 1) / period >= UINT_MAX - 1) {
        return UINT_MAX;
    }
    return (unsigned)((quota * 1000 - 1) / period) + 1;
}

unsigned tri__group_millicpus(unsigned ncpus) {
    unsigned least = ncpus * 1000;
    static const struct {
        const char *mount, *controller;
    } hierarchies[] = {{"/sys/fs/cgroup", ""},
                       {"/sys/fs/cgroup/unified", ""},
                       {"/sys/fs/cgroup/cpu", "cpu"},
                       {"/sys/fs/cgroup/cpu,cpuacct", "cpu"}};
    for (size_t i = 0; i < TRI_COUNT(hierarchies); i++) {
        char name[PRESSURE_PATH_BYTES / 2], folder[PRESSURE_PATH_BYTES], *slash;
        if (!find_group_name(hierarchies[i].controller, name, sizeof name)) {
            continue;
        }
        int root = snprintf(folder, sizeof folder, "%s%s", prefix, hierarchies[i].mount);
        snprintf(folder + root, sizeof folder - (size_t)root, "%s", strcmp(name, "/") == 0 ? "" : name);
        for (;;) { /* from the group up to the root, which in a container may be the group itself */
            unsigned granted = quota_of(folder);
            least = granted < least ? granted : least;
            if ((slash = strrchr(folder + root, '/')) == NULL) {
                break;
            }
            *slash = '\0';
        }
    }
    return least;
}
