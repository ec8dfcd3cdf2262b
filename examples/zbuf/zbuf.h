/* zbuf.h - buffers for input and output out of a pool, on trigc's manual memory.
 *
 * Three layers, each usable alone:
 *
 *   struct buf       one block of a fixed capacity, with what is in it: `length` bytes from data + head on
 *   struct bufpool   blocks of seven sizes, taken and given back, up to a limit; any thread
 *   struct zbuf      a byte queue that takes a block when it has something to hold, a larger one when it grows, and
 *                    gives it back when it is empty; with descriptors, files and connections at both ends
 *
 * Every byte is manual memory of one heap (tri_manual_alloc), the pool itself included: no collection scans or moves
 * it, tri_manual_bytes counts it, and bufpool_destroy gives all of it back. No thread has to be attached.
 *
 * Conventions: calls return ZBUF_OK or a number of bytes, or else a negative zbuf_err; zbuf_last_error() then says
 * which call it was, why, and what to do. A call that fails leaves the contents of its buffers as they were. A zbuf and
 * a buf have one owner at a time. */
#ifndef ZBUF_H
#define ZBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>
#include <trigc.h>

/* Every error with the sentence that zbuf_strerror returns for it. */
#define ZBUF_ERRORS(X)                                             \
    X(ZBUF_OK, 0, "success")                                       \
    X(ZBUF_EINVAL, -1, "an argument is not valid")                 \
    X(ZBUF_ETOOLARGE, -2, "more than the largest buffer can hold") \
    X(ZBUF_ELIMIT, -3, "the pool is at its limit")                 \
    X(ZBUF_ENOMEM, -4, "memory could not be had")                  \
    X(ZBUF_EAGAIN, -5, "nothing can be read or written now")       \
    X(ZBUF_ETIMEDOUT, -6, "the time given has passed")             \
    X(ZBUF_EBUSY, -7, "buffers of the pool are still in use")      \
    X(ZBUF_ESYSTEM, -8, "a system call failed; errno says how")

#define ZBUF_ENUM(name, value, text) name = value,
enum zbuf_err { ZBUF_ERRORS(ZBUF_ENUM) };
#undef ZBUF_ENUM

/* The constant sentence for an error. */
const char *zbuf_strerror(int err);

/* The calling thread's last error in words; an empty string before the first one. */
const char *zbuf_last_error(void);

/* ------------------------------------------------------------------------------------------------------------ buf */

enum { BUF_NSIZES = 7, BUF_LARGEST_BYTES = 8 << 20 };

struct bufpool;

struct buf {
    struct buf *next;     /* in the pool's list of free ones */
    struct bufpool *pool; /* where it goes back to */
    char *data;           /* `capacity` bytes */
    size_t capacity;      /* one of bufpool_sizes */
    size_t head;          /* bytes at the front that were popped */
    size_t length;        /* bytes held: data[head .. head + length) */
    unsigned size_idx;    /* index into bufpool_sizes */
    bool is_out;          /* somebody has taken it */
};

/* Appends n bytes. ZBUF_ETOOLARGE when they do not fit behind what is there (buf_adjust may make room). */
int buf_set_bytes(struct buf *b, const void *src, size_t n);

/* The first byte held; b->length says how many follow. */
static inline char *buf_bytes(const struct buf *b) {
    return b->data + b->head;
}

/* Makes `dst` hold what `src` holds, and nothing else. ZBUF_ETOOLARGE when dst is too small. */
int buf_copy(struct buf *dst, const struct buf *src);

/* Drops n bytes from the front. ZBUF_EINVAL when there are fewer. */
int buf_pop(struct buf *b, size_t n);

/* Moves what is held to the front of the block: head becomes 0, the bytes stay the same. */
void buf_adjust(struct buf *b);

/* Drops everything. */
void buf_clear(struct buf *b);

/* -------------------------------------------------------------------------------------------------------- bufpool */

/* 4 KiB, 16 KiB, 64 KiB, 256 KiB, 1 MiB, 4 MiB, 8 MiB. */
extern const size_t bufpool_sizes[BUF_NSIZES];

/* Fill it with bufpool_config_init, then change what you need. */
struct bufpool_config {
    size_t limit_bytes;                 /* the sizes of all buffers together never exceed it; default 5 GiB */
    unsigned npreallocated[BUF_NSIZES]; /* default 5000, 1000, 500, 200, 50, 20, 10 */
    bool eager;                         /* build the preallocated ones now, not each at its first use */
};
void bufpool_config_init(struct bufpool_config *config);

/* A pool over the heap's manual memory; config NULL: the defaults. Preallocated buffers count against the limit from
 * now on, whether they are built yet or not, so a pool that starts has them for certain. ZBUF_EINVAL when they alone
 * exceed the limit, ZBUF_ENOMEM. */
int bufpool_create(tri_heap *heap, const struct bufpool_config *config, struct bufpool **out);

/* Frees everything. ZBUF_EBUSY, and nothing is freed, while a buffer is out. NULL is fine. */
int bufpool_destroy(struct bufpool *pool);

/* An empty buffer of the smallest size that holds `size_bytes`. ZBUF_ETOOLARGE, ZBUF_ELIMIT, ZBUF_ENOMEM. Any
 * thread. */
int bufpool_take(struct bufpool *pool, size_t size_bytes, struct buf **out);

/* Gives a buffer back; from any thread, not only the one that took it. NULL is fine. ZBUF_EINVAL for one that was given
 * back already or is of another pool. */
int bufpool_give(struct bufpool *pool, struct buf *b);

/* Returns the memory of every buffer that is not out to the heap's manual memory; the number of bytes. Any thread. */
size_t bufpool_trim(struct bufpool *pool);

struct bufpool_stats {
    size_t limit_bytes;
    size_t counted_bytes; /* what counts against the limit */
    size_t built_bytes;   /* buffers that have memory */
    size_t out_bytes;     /* buffers taken and not given back */
    size_t nbuilt[BUF_NSIZES];
    size_t nout[BUF_NSIZES];
};
void bufpool_stats_get(struct bufpool *pool, struct bufpool_stats *out);

/* ----------------------------------------------------------------------------------------------------------- zbuf */

/* It has a block exactly while it holds a byte. */
struct zbuf {
    struct bufpool *pool;
    struct buf *b;
};

/* An empty one. No memory is taken. */
void zbuf_init(struct zbuf *zb, struct bufpool *pool);

/* Drops everything and gives the block back. The end of a zbuf, too. */
void zbuf_clear(struct zbuf *zb);

/* Drops n bytes from the front. ZBUF_EINVAL when there are fewer. */
int zbuf_pop(struct zbuf *zb, size_t n);

/* The first byte held, NULL when empty; valid until the next call that changes the zbuf. */
const char *zbuf_data(const struct zbuf *zb);
size_t zbuf_length(const struct zbuf *zb);

/* Moves what is held to the front of the block, so that the space of what was popped can be filled again. The calls
 * below do it when they need to. */
void zbuf_adjust(struct zbuf *zb);

/* Appends n bytes from memory. ZBUF_ETOOLARGE when more than 8 MiB would be held, ZBUF_ELIMIT, ZBUF_ENOMEM. */
int zbuf_read(struct zbuf *zb, const void *src, size_t n);

/* Appends what one read of `fd` brings. How much room it gets is what FIONREAD says is there, so that one call takes
 * all of it, up to 8 MiB held. The number of bytes; 0 at the end; ZBUF_EAGAIN when `fd` does not block and has nothing.
 * ZBUF_ETOOLARGE when 8 MiB are held already: pop some first. Calls cut short by a signal go on. */
ssize_t zbuf_read_from_fd(struct zbuf *zb, int fd);

/* Writes what is held to `fd` and pops what went: all of it, or as much as a descriptor that does not block takes
 * (ZBUF_EAGAIN when that is nothing). When an error follows some progress the progress is returned, and the next call
 * meets the error. The number of bytes. A pipe or socket without a reader also raises SIGPIPE: ignore it. */
ssize_t zbuf_write_to_fd(struct zbuf *zb, int fd);

/* Appends the rest of `file`, or as much of it as 8 MiB held allow: call again after popping. The number of bytes; 0 at
 * the end of the file. */
ssize_t zbuf_read_from_file(struct zbuf *zb, FILE *file);

/* Flushes `file`, then writes what is held behind that, as zbuf_write_to_fd does; nothing stays in the stream's own
 * buffer. The number of bytes. */
ssize_t zbuf_write_to_file(struct zbuf *zb, FILE *file);

/* The same over a connected stream socket, blocking or not, with a time limit in milliseconds: 0 does not wait
 * (ZBUF_EAGAIN), a negative one waits for ever, a positive one ends in ZBUF_ETIMEDOUT. Reading returns as soon as there
 * is something, 0 when the peer has closed. Writing waits until all went; what went before an error is popped.
 * No SIGPIPE. While it waits, reading holds no block that it had not held before. */
ssize_t zbuf_read_from_conn(struct zbuf *zb, int fd, int timeout_ms);
ssize_t zbuf_write_to_conn(struct zbuf *zb, int fd, int timeout_ms);

/* --------------------------------------------------------------------------------------------- between the files */

/* Remembers the words for zbuf_last_error; returns err. errno is kept. */
__attribute__((format(printf, 2, 3))) int zbuf_error(int err, const char *format, ...);

#endif
