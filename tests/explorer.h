/*
 * explorer.h: every execution that C11's memory model allows of a small program of two or three threads.
 *
 * A program is data: locations, and for each thread a list of instructions, each access with its memory order. The
 * explorer builds all execution graphs of it: which write each read reads from (rf), in which order the writes to a
 * location come (mo), and what that makes happen before what (hb). The model is RC11 (Lahav, Vafeiadis, Kang, Hur,
 * Dreyer, 2017) without fences: coherence, atomicity of read-modify-write, one order of all seq_cst accesses (psc). Two
 * things are weaker than there. Load buffering is allowed, as ARMv8 does it: a relaxed write may come before relaxed
 * accesses to other locations that precede it in its thread, where neither its value nor whether it comes at all
 * depends on them (nothing out of thin air). And where C11 and C20 differ the weaker is taken: a release sequence
 * consists of its head and read-modify-writes, no later plain store of the same thread. Orders are judged as written:
 * TSO allows less, and so does ARMv8 of what is acquire, release or seq_cst.
 *
 * Checked in each execution: FAIL() is not reached; no data race (a PLAIN access and another to the same location, one
 * of them a write, not ordered by hb); no thread waits for ever; and, of complete ones, what the caller's function says
 * of the final registers and memory.
 *
 * The mini language. Registers R0 to R7 are each thread's own and begin as 0; a value is a number or a register.
 *   ex_load(p, reg, loc, order)               ex_store(p, loc, value, order)
 *   ex_add/or/and/swap(p, reg, loc, v, order) reg gets the old value
 *   ex_cas(p, reg, loc, expected, v, order)   reg gets what was found; it failed where that is not `expected`
 *   ex_await(p, reg, loc, cmp, v, order)      a loop of loads until one fits, or a sleep until one does
 *   ex_set(p, reg, v)                         ex_plus(p, reg, v): reg += v
 *   ex_when(p, reg, cmp, v, n)                the next n instructions only if it fits
 *   ex_end(p)                                 the thread ends here      ex_fail(p, text)
 *   ex_lock(p, loc), ex_unlock(p, loc)        a mutex: wait for 0 and swap with acquire; store 0 with release
 *
 * Invariants: EX1 an event is added after what it reads from. EX2 a graph is
 * visited once, whatever the order in which its events came (a set of 128-bit hashes of what identifies it).
 */
#ifndef TRI_TESTS_EXPLORER_H
#define TRI_TESTS_EXPLORER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EX_THREADS = 4, EX_INSTRS = 48, EX_LOCS = 16, EX_REGS = 8, EX_EVENTS = 64, EX_TRACE = 4096 };

enum order { PLAIN, RLX, ACQ, REL, ARL, SEQ };
enum cmp { EQ, NE, GE, LT };

/* A value that is a register's. */
enum { EX_REG = 1 << 20, R0 = EX_REG, R1, R2, R3, R4, R5, R6, R7 };

enum ex_op {
    EX_LOAD,
    EX_STORE,
    EX_ADD,
    EX_OR,
    EX_AND,
    EX_SWAP,
    EX_CAS,
    EX_AWAIT,
    EX_SET,
    EX_PLUS,
    EX_WHEN,
    EX_END,
    EX_FAIL
};

struct ex_instr {
    enum ex_op op;
    enum order order;
    enum cmp cmp;
    int reg, loc, value, expected, skip;
    const char *text;
};

struct ex_program {
    const char *name;
    unsigned nthreads, nlocs;
    const char *thread_names[EX_THREADS];
    const char *loc_names[EX_LOCS];
    int initial[EX_LOCS];
    unsigned ninstrs[EX_THREADS];
    struct ex_instr code[EX_THREADS][EX_INSTRS];
    bool may_stick; /* a thread may wait for ever */
};

/* A complete execution: what the registers and the locations hold at its end. */
struct ex_outcome {
    int regs[EX_THREADS][EX_REGS];
    int memory[EX_LOCS];
    bool ended[EX_THREADS]; /* false: it waits for ever (only where that is allowed) */
};

/* What is wrong with an execution, or NULL. */
typedef const char *(*ex_judge)(const struct ex_outcome *outcome);

struct ex_result {
    const char *wrong; /* of the first execution that is wrong; NULL: none is */
    uint64_t ngraphs, nexecutions;
    char trace[EX_TRACE]; /* that execution, an event a line */
};

void ex_begin(struct ex_program *p, const char *name);
/* A location; returns its number. */
int ex_loc(struct ex_program *p, const char *name, int initial);
/* What follows is this thread's code. */
void ex_thread(struct ex_program *p, const char *name);

void ex_load(struct ex_program *p, int reg, int loc, enum order order);
void ex_store(struct ex_program *p, int loc, int value, enum order order);
void ex_add(struct ex_program *p, int reg, int loc, int value, enum order order);
void ex_or(struct ex_program *p, int reg, int loc, int value, enum order order);
void ex_and(struct ex_program *p, int reg, int loc, int value, enum order order);
void ex_swap(struct ex_program *p, int reg, int loc, int value, enum order order);
void ex_cas(struct ex_program *p, int reg, int loc, int expected, int value, enum order order);
void ex_await(struct ex_program *p, int reg, int loc, enum cmp cmp, int value, enum order order);
void ex_set(struct ex_program *p, int reg, int value);
void ex_plus(struct ex_program *p, int reg, int value);
void ex_when(struct ex_program *p, int reg, enum cmp cmp, int value, int ninstrs);
void ex_end(struct ex_program *p);
void ex_fail(struct ex_program *p, const char *text);
void ex_lock(struct ex_program *p, int loc, enum order acquire);
void ex_unlock(struct ex_program *p, int loc, enum order release);

/* All executions, until one is wrong. `judge` may be NULL. */
struct ex_result ex_explore(const struct ex_program *p, ex_judge judge);

#endif
