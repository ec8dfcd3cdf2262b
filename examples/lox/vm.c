/* vm.c - the machine's state: opening and closing, roots, global variables, errors. What runs is in run.c. */
#include "vm.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "compile.h"
#include "natives.h"
#include "table.h"

struct vm vm;

/* --- roots ------------------------------------------------------------------------------------------------------ */

/* VM2. In the scan handshake, perhaps on the collector's thread: it visits and does nothing else. */
static void vm_scan(struct mem_visitor *visitor) {
    for (uint32_t i = 0; i < vm.nframes; i++) mem_visit(visitor, &vm.frames[i].closure, 1);
    for (struct upvalue **link = &vm.open; *link != NULL; link = &(*link)->next) mem_visit(visitor, link, 1);
    mem_visit(visitor, &vm.global_index.entries, 1);
    mem_visit(visitor, &vm.globals, 1);
    mem_visit(visitor, &vm.global_names, 1);
    mem_visit(visitor, &vm.init_name, 1);
    mem_visit(visitor, &vm.map_name, 1);
    mem_visit(visitor, &strings.set, 1);
    mem_visit(visitor, &strings.grown, 1);
    mem_visit(visitor, strings.recent, RECENT_STRINGS);
    mem_visit_values(visitor, vm.held, vm.nheld);
    compile_visit_roots(visitor);
}

static void hold(void *obj) {
    vm.held[vm.nheld++] = value_from_obj(obj);
}

static void release(void) {
    vm.nheld--;
}

/* --- global variables ------------------------------------------------------------------------------------------- */

static struct values *values_grown(const struct values *old, uint32_t n) {
    struct values *grown = values_new(n);
    for (uint32_t i = 0; i < n; i++)
        mem_init_value(grown, &grown->at[i], old != NULL && i < old->head.n ? old->at[i] : VALUE_EMPTY);
    return grown;
}

uint32_t vm_global(struct string *name) {
    const value *known = table_find(&vm.global_index, name);
    if (known != NULL) return value_to_index(*known);
    uint32_t index = vm.global_index.count;
    hold(name);
    if (vm.globals == NULL || index == vm.globals->head.n) {
        uint32_t n = index == 0 ? 32 : index * 2;
        vm.globals = values_grown(vm.globals, n);
        vm.global_names = values_grown(vm.global_names, n);
    }
    table_set(NULL, &vm.global_index, name, value_from_index(index));
    mem_store_value(vm.global_names, &vm.global_names->at[index], value_from_obj(name));
    release();
    return index;
}

/* --- errors ----------------------------------------------------------------------------------------------------- */

static void print_trace(void) {
    for (uint32_t i = vm.nframes; i > 0; i--) {
        const struct frame *frame = &vm.frames[i - 1];
        const struct function *function = frame->closure->function;
        const uint8_t *code = (const uint8_t *)function->code->data;
        /* ip is past the instruction that failed, or called. */
        fprintf(stderr, "[line %u] in ", function_line(function, (size_t)(frame->ip - code) - 1));
        if (function->name == NULL)
            fputs("script\n", stderr);
        else
            fprintf(stderr, "%s()\n", function->name->chars);
    }
}

static void unwind(void) {
    vm_close_upvalues(vm.stack); /* closures that survive in globals must not look at the stack any more */
    vm.top = vm.stack;
    vm.nframes = 0;
}

void vm_error(const char *format, ...) {
    va_list args;
    fflush(stdout);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    print_trace();
    unwind();
}

/* --- entry points ----------------------------------------------------------------------------------------------- */

bool vm_open(struct mem_options *options) {
    vm = (struct vm){0};
    /* Malloc'd, so that a collector that scans static data on its own does not take every number for an address. */
    vm.stack = malloc((STACK_MAX + STACK_RESERVE) * sizeof(value));
    if (vm.stack == NULL) mem_exhausted();
    vm.top = vm.stack;
    vm.limit = vm.stack + STACK_MAX;
    options->stack = vm.stack;
    options->top = &vm.top;
    options->scan = vm_scan;
    if (!mem_open(options)) return false;
    vm.init_name = string_intern("init", 4);
    natives_define();
    return true;
}

void vm_close(void) {
    mem_close();
    free(vm.stack);
    vm = (struct vm){0};
}

int vm_interpret(const char *source) {
    struct function *function = compile(source);
    if (function == NULL) return VM_COMPILE_ERROR;
    hold(function);
    *vm.top++ = value_from_obj(closure_new(function));
    release();
    if (!vm_call(vm.top[-1], 0) || !vm_run()) return VM_RUNTIME_ERROR;
    return VM_OK;
}
