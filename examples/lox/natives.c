/* natives.c - functions and methods written in C: clock(), gc(), and the class WeakMap.
 *
 * A WeakMap is an instance of an ordinary class, so it can have fields and subclasses. What it maps lies in a map of
 * the memory layer (mem.h), under a field whose name no program can write, made by the first `set`: a subclass need
 * not call an initializer.
 *
 * Owns: these functions and their messages. Does not own: what keeps an entry alive (mem_trigc.c, mem_boehm.c).
 *
 * Invariants:
 *  N1  a native's arguments lie on the VM stack and its receiver below them, so they are in roots while it runs.
 */
#include "natives.h"

#include <string.h>
#include <time.h>

#include "vm.h"

/* --- functions -------------------------------------------------------------------------------------------------- */

static value native_clock(uint32_t argc, const value *args) {
    (void)argc;
    (void)args;
    return value_from_number((double)clock() / CLOCKS_PER_SEC);
}

static value native_gc(uint32_t argc, const value *args) {
    (void)argc;
    (void)args;
    mem_collect();
    return VALUE_NIL;
}

/* --- WeakMap ---------------------------------------------------------------------------------------------------- */

/* What has an identity of its own: not numbers, booleans and nil, and not strings, which are equal by their text. */
static bool is_key(value v) {
    if (value_is_obj(v) && !value_is_kind(v, OBJ_STRING)) return true;
    vm_error("Keys of a WeakMap must be instances, classes or functions.");
    return false;
}

static struct instance *receiver_of(const value *args) {
    return AS(instance, args[-1]);
}

/* The receiver's map, or NULL: nothing was ever set. */
static void *map_of(const value *args) {
    value map = instance_get(receiver_of(args), vm.map_name);
    return map == VALUE_EMPTY ? NULL : value_to_obj(map);
}

static void *make_map(const value *args) {
    void *map = mem_map_new();
    *vm.top++ = value_from_obj(map); /* a root: the field may have to be made */
    instance_set(receiver_of(args), vm.map_name, value_from_obj(map));
    vm.top--;
    return map;
}

static value map_set(uint32_t argc, const value *args) {
    (void)argc;
    if (!is_key(args[0])) return VALUE_EMPTY;
    void *map = map_of(args);
    if (map == NULL) map = make_map(args);
    mem_map_put(map, value_to_obj(args[0]), args[1]);
    return args[1];
}

static value map_get(uint32_t argc, const value *args) {
    (void)argc;
    if (!is_key(args[0])) return VALUE_EMPTY;
    void *map = map_of(args);
    value found;
    return map != NULL && mem_map_get(map, value_to_obj(args[0]), &found) ? found : VALUE_NIL;
}

static value map_has(uint32_t argc, const value *args) {
    (void)argc;
    if (!is_key(args[0])) return VALUE_EMPTY;
    void *map = map_of(args);
    value found;
    return value_from_bool(map != NULL && mem_map_get(map, value_to_obj(args[0]), &found));
}

static value map_delete(uint32_t argc, const value *args) {
    (void)argc;
    if (!is_key(args[0])) return VALUE_EMPTY;
    void *map = map_of(args);
    return value_from_bool(map != NULL && mem_map_remove(map, value_to_obj(args[0])));
}

static value map_count(uint32_t argc, const value *args) {
    (void)argc;
    void *map = map_of(args);
    return value_from_number(map != NULL ? (double)mem_map_count(map) : 0);
}

/* --- definitions ------------------------------------------------------------------------------------------------ */

static void define(const char *name, value val) {
    *vm.top++ = val;
    uint32_t index = vm_global(string_intern(name, strlen(name)));
    mem_store_value(vm.globals, &vm.globals->at[index], val);
    vm.top--;
}

static void define_function(const char *name, native_fn fn, uint32_t arity) {
    define(name, value_from_obj(native_new(fn, arity)));
}

/* The class lies on top of the stack. */
static void define_method(const char *name, native_fn fn, uint32_t arity) {
    *vm.top++ = value_from_obj(native_new(fn, arity));
    struct string *interned = string_intern(name, strlen(name)); /* its table keeps what came last */
    struct class *class = AS(class, vm.top[-2]);
    table_set(class, &class->methods, interned, vm.top[-1]);
    vm.top--;
}

static void define_weak_map(void) {
    vm.map_name = string_intern("(map)", 5);
    *vm.top++ = value_from_obj(class_new(string_intern("WeakMap", 7)));
    define_method("set", map_set, 2);
    define_method("get", map_get, 1);
    define_method("has", map_has, 1);
    define_method("delete", map_delete, 1);
    define_method("count", map_count, 0);
    define("WeakMap", vm.top[-1]);
    vm.top--;
}

void natives_define(void) {
    define_function("clock", native_clock, ANY_ARITY);
    define_function("gc", native_gc, 0);
    define_weak_map();
}
