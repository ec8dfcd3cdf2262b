/* vm.h - the virtual machine's state and its entry points.
 *
 * Invariants:
 *  VM1  `top` is written back before every safepoint; from `stack` up to it lie values, and the collector reads them.
 *  VM2  what else the machine references is visited by vm_scan: frames, open upvalues, globals, names, temporaries.
 *  VM3  a frame is entered only if the stack has room for all that its function can push (function.max_stack).
 */
#ifndef LOX_VM_H
#define LOX_VM_H

#include "code.h"
#include "object.h"

#define FRAMES_MAX 64u
#define STACK_MAX (FRAMES_MAX * 256u)
#define STACK_RESERVE 64u /* for what the machine itself pushes */

struct frame {
    struct closure *closure;
    const uint8_t *ip;
    value *slots; /* slot 0: the callee or the receiver */
};

struct vm {
    value *stack, *top, *limit;
    uint32_t nframes;
    struct frame frames[FRAMES_MAX];
    struct upvalue *open;      /* open upvalues, from the top of the stack downwards */
    struct table global_index; /* names of global variables to indices */
    struct values *globals;    /* by index; VALUE_EMPTY: not defined */
    struct values *global_names;
    struct string *init_name;
    struct string *map_name; /* of the field that a WeakMap keeps its entries in */
    value held[4];           /* references that C code holds across a safepoint */
    uint32_t nheld;
    bool gaps; /* gaps.h is told of every step */
};

extern struct vm vm;

enum { VM_OK = 0, VM_COMPILE_ERROR = 65, VM_RUNTIME_ERROR = 70 };

/* Opens memory and machine. `options`: the collector's; stack and roots are filled in here. */
bool vm_open(struct mem_options *options);
void vm_close(void);

/* Compiles and runs a script. VM_*. */
int vm_interpret(const char *source);

/* The index of the global variable of this name; the first mention makes it. A safepoint. */
uint32_t vm_global(struct string *name);

/* run.c. Both return false after a run-time error has been reported. */
bool vm_run(void);
bool vm_call(value callee, uint32_t argc);

/* Reports a run-time error with its stack trace and unwinds everything. */
void vm_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Closes the upvalues that are open at `last` and above. */
void vm_close_upvalues(const value *last);

#endif
