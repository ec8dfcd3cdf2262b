/* run.c - the interpreter loop and what it needs: calls, upvalues, properties.
 *
 * Owns: the stack discipline. In the loop the top of the stack lives in a local variable, the instruction pointer too;
 * SAVE writes both back, before every safepoint (VM1) and before every error.
 *
 * Property instructions remember what they found (struct cache, by the number of their name's constant): the class's
 * number, and the field's position or the method's place in the table. A number stands for a class and its layout, so
 * one comparison decides (O5); an instance with an extension has a shape whose number nobody remembers.
 */
#include "gaps.h"
#include "vm.h"

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define COLD __attribute__((noinline, cold))
#define SLOW __attribute__((noinline))

/* --- upvalues --------------------------------------------------------------------------------------------------- */

/* The open upvalue of a stack slot. May allocate. */
static struct upvalue *capture(value *location) {
    struct upvalue **link = &vm.open;
    while (*link != NULL && (*link)->location > location) link = &(*link)->next;
    if (*link != NULL && (*link)->location == location) return *link;
    struct upvalue *upvalue = upvalue_new(location);
    mem_init(upvalue, &upvalue->next, *link);
    __atomic_store_n(link, upvalue, __ATOMIC_RELAXED); /* the collector may be reading the word as a value */
    return upvalue;
}

void vm_close_upvalues(const value *last) {
    while (vm.open != NULL && vm.open->location >= last) {
        struct upvalue *upvalue = vm.open;
        vm.open = upvalue->next;
        mem_store_value(upvalue, &upvalue->closed, *upvalue->location);
        upvalue->location = &upvalue->closed;
    }
}

/* Makes a closure with its upvalues and pushes it. What it captures from the frame is opened first: open upvalues are
 * roots, so they survive the closure's own allocation, after which no safepoint is left: no store needs a barrier. */
static SLOW void push_closure(struct function *function, const struct frame *frame, const uint8_t *captures) {
    struct upvalue *upvalues[256];
    uint32_t n = function->nupvalues;
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *from = captures + 2 * i;
        upvalues[i] = from[0] != 0 ? capture(frame->slots + from[1]) : frame->closure->upvalues[from[1]];
    }
    struct closure *closure = closure_new(function);
    for (uint32_t i = 0; i < n; i++) mem_init(closure, &closure->upvalues[i], upvalues[i]);
    *vm.top++ = value_from_obj(closure);
}

/* --- calls ------------------------------------------------------------------------------------------------------ */

/* Enters a function; its callee slot and arguments are on the stack. */
static inline bool call_closure(struct closure *closure, uint32_t argc) {
    struct function *function = closure->function;
    if (UNLIKELY(argc != function->arity)) {
        vm_error("Expected %u arguments but got %u.", function->arity, argc);
        return false;
    }
    value *slots = vm.top - argc - 1;
    if (UNLIKELY(vm.nframes == FRAMES_MAX || (size_t)(vm.limit - slots) < function->max_stack)) {
        vm_error("Stack overflow.");
        return false;
    }
    struct frame *frame = &vm.frames[vm.nframes++];
    frame->closure = closure;
    frame->ip = (const uint8_t *)function->code->data;
    frame->slots = slots;
    if (mem_wanted()) mem_poll();
    return true;
}

static bool call_class(struct class *class, uint32_t argc) {
    struct instance *instance = instance_new(class);
    vm.top[-1 - (int)argc] = value_from_obj(instance);
    if (class->init != NULL) return call_closure(class->init, argc);
    if (argc == 0) return true;
    vm_error("Expected 0 arguments but got %u.", argc);
    return false;
}

static bool call_native(const struct native *native, uint32_t argc) {
    if (argc != native->head.small && native->head.small != ANY_ARITY) {
        vm_error("Expected %u arguments but got %u.", native->head.small, argc);
        return false;
    }
    value result = native->fn(argc, vm.top - argc);
    if (result == VALUE_EMPTY) return false;
    vm.top -= argc + 1;
    *vm.top++ = result;
    return true;
}

/* What a class has as a method; the receiver lies below the arguments. */
static bool call_bound(struct obj *method, uint32_t argc) {
    return method->kind == OBJ_NATIVE ? call_native((struct native *)method, argc)
                                      : call_closure((struct closure *)method, argc);
}

SLOW bool vm_call(value callee, uint32_t argc) {
    if (value_is_obj(callee)) {
        struct obj *obj = value_to_obj(callee);
        switch (obj->kind) {
        case OBJ_CLOSURE: return call_closure((struct closure *)obj, argc);
        case OBJ_CLASS: return call_class((struct class *)obj, argc);
        case OBJ_NATIVE: return call_native((struct native *)obj, argc);
        case OBJ_BOUND_METHOD:
            vm.top[-1 - (int)argc] = ((struct bound_method *)obj)->receiver;
            return call_bound(((struct bound_method *)obj)->method, argc);
        default: break;
        }
    }
    vm_error("Can only call functions and classes.");
    return false;
}

/* --- properties ------------------------------------------------------------------------------------------------- */

static bool undefined_property(const struct string *name) {
    vm_error("Undefined property '%s'.", name->chars);
    return false;
}

static bool call_method(const struct class *class, const struct string *name, uint32_t argc) {
    const value *method = table_find(&class->methods, name);
    if (method == NULL) return undefined_property(name);
    return call_bound(value_to_obj(*method), argc);
}

/* A method named like no field of the class is remembered by its place: it cannot be hidden while the number lasts.
 * One written in C is not, so that what is remembered is a closure. */
static void remember_method(struct cache *cache, const struct class *class, const struct string *name) {
    const value *method = table_find(&class->methods, name);
    if (method == NULL || class_field(class, name) != UINT32_MAX || !value_is_kind(*method, OBJ_CLOSURE)) return;
    struct entry *entry = (struct entry *)((uintptr_t)method - offsetof(struct entry, val));
    *cache = (struct cache){class->head.n, (uint32_t)(entry - class->methods.entries->at)};
}

static SLOW bool invoke(struct string *name, uint32_t argc, struct cache *cache) {
    value receiver = vm.top[-1 - (int)argc];
    if (!value_is_kind(receiver, OBJ_INSTANCE)) {
        vm_error("Only instances have methods.");
        return false;
    }
    struct instance *instance = AS(instance, receiver);
    value field = instance_get(instance, name);
    if (field != VALUE_EMPTY) {
        vm.top[-1 - (int)argc] = field;
        return vm_call(field, argc);
    }
    struct class *class = instance_class(instance);
    remember_method(cache, class, name);
    return call_method(class, name, argc);
}

/* Replaces the top of the stack by its method, bound to it. */
static SLOW bool bind_method(const struct class *class, const struct string *name) {
    const value *method = table_find(&class->methods, name);
    if (method == NULL) return undefined_property(name);
    struct bound_method *bound = bound_method_new(vm.top[-1], value_to_obj(*method));
    vm.top[-1] = value_from_obj(bound);
    return true;
}

static void remember_field(struct cache *cache, const struct class *class, const struct string *name) {
    *cache = (struct cache){class->head.n, class_field(class, name)};
}

static SLOW bool get_property(struct string *name, struct cache *cache) {
    if (!value_is_kind(vm.top[-1], OBJ_INSTANCE)) {
        vm_error("Only instances have properties.");
        return false;
    }
    struct instance *instance = AS(instance, vm.top[-1]);
    struct class *class = instance_class(instance);
    value field = instance_get(instance, name);
    if (field == VALUE_EMPTY) return bind_method(class, name);
    remember_field(cache, class, name);
    vm.top[-1] = field;
    return true;
}

static SLOW bool set_property(struct string *name, struct cache *cache) {
    if (!value_is_kind(vm.top[-2], OBJ_INSTANCE)) {
        vm_error("Only instances have fields.");
        return false;
    }
    struct instance *instance = AS(instance, vm.top[-2]);
    instance_set(instance, name, vm.top[-1]);
    remember_field(cache, instance_class(instance), name);
    vm.top[-2] = vm.top[-1];
    vm.top--;
    return true;
}

static bool inherit(void) {
    if (!value_is_kind(vm.top[-2], OBJ_CLASS)) {
        vm_error("Superclass must be a class.");
        return false;
    }
    struct class *superclass = AS(class, vm.top[-2]), *class = AS(class, vm.top[-1]);
    table_copy(class, &class->methods, &superclass->methods);
    table_copy(class, &class->fields, &superclass->fields);
    mem_store(class, &class->init, superclass->init);
    vm.top--;
    return true;
}

static void define_method(struct string *name) {
    struct class *class = AS(class, vm.top[-2]);
    table_set(class, &class->methods, name, vm.top[-1]);
    if (name == vm.init_name) mem_store(class, &class->init, value_to_obj(vm.top[-1]));
    vm.top--;
}

static struct string *class_name(value constant) {
    if (value_is_obj(constant)) return AS(string, constant);
    return AS(string, vm.global_names->at[value_to_index(constant)]);
}

static COLD bool undefined_variable(value constant) {
    vm_error("Undefined variable '%s'.", AS(string, vm.global_names->at[value_to_index(constant)])->chars);
    return false;
}

/* --- the loop --------------------------------------------------------------------------------------------------- */

/* Adds what is not two numbers: the two values at the top of the stack. */
static SLOW bool add(void) {
    if (!value_is_kind(vm.top[-1], OBJ_STRING) || !value_is_kind(vm.top[-2], OBJ_STRING)) {
        vm_error("Operands must be two numbers or two strings.");
        return false;
    }
    struct string *sum = string_concat(AS(string, vm.top[-2]), AS(string, vm.top[-1]));
    vm.top--;
    vm.top[-1] = value_from_obj(sum);
    return true;
}

#define SAVE() (frame->ip = ip, vm.top = sp)
#define LOAD_FRAME()                                                                           \
    do {                                                                                       \
        frame = &vm.frames[vm.nframes - 1];                                                    \
        const struct function *loaded = frame->closure->function;                              \
        ip = frame->ip;                                                                        \
        sp = vm.top;                                                                           \
        slots = frame->slots;                                                                  \
        constants = loaded->constants->at;                                                     \
        caches = loaded->caches != NULL ? (struct cache *)(void *)loaded->caches->data : NULL; \
    } while (0)
#define BYTE() (*ip++)
#define DISTANCE() (ip += 2, (size_t)ip[-2] << 8 | ip[-1])
#define NUMBERS() (LIKELY(value_is_number(sp[-1]) && value_is_number(sp[-2])))
#define NEXT() goto *dispatch[BYTE()]
#define FAIL(...)              \
    do {                       \
        SAVE();                \
        vm_error(__VA_ARGS__); \
        return false;          \
    } while (0)
#define ARITHMETIC(sign)                                                                  \
    do {                                                                                  \
        if (!NUMBERS()) FAIL("Operands must be numbers.");                                \
        sp[-2] = value_from_number(value_to_number(sp[-2]) sign value_to_number(sp[-1])); \
        sp--;                                                                             \
        NEXT();                                                                           \
    } while (0)
#define COMPARISON(sign)                                                                \
    do {                                                                                \
        if (!NUMBERS()) FAIL("Operands must be numbers.");                              \
        sp[-2] = value_from_bool(value_to_number(sp[-2]) sign value_to_number(sp[-1])); \
        sp--;                                                                           \
        NEXT();                                                                         \
    } while (0)
/* A helper that works on the saved stack and may fail. */
#define HELPER(call)               \
    do {                           \
        SAVE();                    \
        if (!(call)) return false; \
        sp = vm.top;               \
        NEXT();                    \
    } while (0)
/* The same for one that may enter a frame. */
#define ENTER(call)                \
    do {                           \
        SAVE();                    \
        if (!(call)) return false; \
        LOAD_FRAME();              \
        NEXT();                    \
    } while (0)

bool vm_run(void) {
    static const void *const labels[OPCODE_COUNT] = {
#define OPCODE(name) [OP_##name] = &&do_##name,
        OPCODES(OPCODE)
#undef OPCODE
    };
    /* The same, but for the instructions that are steps: those are counted first. */
    static const void *const counted[OPCODE_COUNT] = {
#define OPCODE(name) \
    [OP_##name] = OP_##name == OP_CALL || OP_##name == OP_INVOKE || OP_##name == OP_LOOP ? &&count : &&do_##name,
        OPCODES(OPCODE)
#undef OPCODE
    };
    const void *const *dispatch = vm.gaps ? counted : labels;
    struct frame *frame;
    const uint8_t *ip;
    value *sp, *slots;
    const value *constants;
    struct cache *caches;
    LOAD_FRAME();
    NEXT();

count:
    gaps_step();
    goto *labels[ip[-1]];

do_CONSTANT:
    *sp++ = constants[BYTE()];
    NEXT();
do_NIL:
    *sp++ = VALUE_NIL;
    NEXT();
do_TRUE:
    *sp++ = VALUE_TRUE;
    NEXT();
do_FALSE:
    *sp++ = VALUE_FALSE;
    NEXT();
do_POP:
    sp--;
    NEXT();
do_GET_LOCAL:
    *sp++ = slots[BYTE()];
    NEXT();
do_SET_LOCAL:
    slots[BYTE()] = sp[-1];
    NEXT();

do_GET_GLOBAL : {
    value constant = constants[BYTE()];
    value v = vm.globals->at[value_to_index(constant)];
    if (UNLIKELY(v == VALUE_EMPTY)) HELPER(undefined_variable(constant));
    *sp++ = v;
    NEXT();
}
do_DEFINE_GLOBAL : {
    uint32_t index = value_to_index(constants[BYTE()]);
    mem_store_value(vm.globals, &vm.globals->at[index], sp[-1]);
    sp--;
    NEXT();
}
do_SET_GLOBAL : {
    value constant = constants[BYTE()];
    value *global = &vm.globals->at[value_to_index(constant)];
    if (UNLIKELY(*global == VALUE_EMPTY)) HELPER(undefined_variable(constant));
    mem_store_value(vm.globals, global, sp[-1]);
    NEXT();
}
do_GET_UPVALUE:
    *sp++ = *frame->closure->upvalues[BYTE()]->location;
    NEXT();
do_SET_UPVALUE : {
    struct upvalue *upvalue = frame->closure->upvalues[BYTE()];
    if (upvalue->location == &upvalue->closed)
        mem_store_value(upvalue, &upvalue->closed, sp[-1]);
    else
        *upvalue->location = sp[-1]; /* a slot of the VM stack */
    NEXT();
}

do_GET_PROPERTY : {
    uint32_t name = BYTE();
    if (LIKELY(value_is_kind(sp[-1], OBJ_INSTANCE))) {
        struct instance *instance = AS(instance, sp[-1]);
        struct cache cache = caches[name];
        if (LIKELY(instance->shape->n == cache.class_number && cache.position < instance->head.small)) {
            value v = instance->fields[cache.position];
            if (LIKELY(v != VALUE_EMPTY)) {
                sp[-1] = v;
                NEXT();
            }
        }
    }
    HELPER(get_property(AS(string, constants[name]), &caches[name]));
}
do_SET_PROPERTY : {
    uint32_t name = BYTE();
    if (LIKELY(value_is_kind(sp[-2], OBJ_INSTANCE))) {
        struct instance *instance = AS(instance, sp[-2]);
        struct cache cache = caches[name];
        if (LIKELY(instance->shape->n == cache.class_number && cache.position < instance->head.small)) {
            mem_store_value(instance, &instance->fields[cache.position], sp[-1]);
            sp[-2] = sp[-1];
            sp--;
            NEXT();
        }
    }
    HELPER(set_property(AS(string, constants[name]), &caches[name]));
}
do_GET_SUPER : {
    struct string *name = AS(string, constants[BYTE()]);
    struct class *superclass = AS(class, *--sp);
    HELPER(bind_method(superclass, name));
}

do_EQUAL:
    sp[-2] = value_from_bool(value_equal(sp[-2], sp[-1]));
    sp--;
    NEXT();
do_GREATER:
    COMPARISON(>);
do_LESS:
    COMPARISON(<);
do_ADD:
    if (UNLIKELY(!NUMBERS())) HELPER(add());
    sp[-2] = value_from_number(value_to_number(sp[-2]) + value_to_number(sp[-1]));
    sp--;
    NEXT();
do_SUBTRACT:
    ARITHMETIC(-);
do_MULTIPLY:
    ARITHMETIC(*);
do_DIVIDE:
    ARITHMETIC(/);
do_NOT:
    sp[-1] = value_from_bool(value_is_falsey(sp[-1]));
    NEXT();
do_NEGATE:
    if (UNLIKELY(!value_is_number(sp[-1]))) FAIL("Operand must be a number.");
    sp[-1] = value_from_number(-value_to_number(sp[-1]));
    NEXT();
do_PRINT:
    value_print(*--sp);
    putchar('\n');
    NEXT();

do_JUMP : {
    size_t distance = DISTANCE();
    ip += distance;
    NEXT();
}
do_JUMP_IF_FALSE : {
    size_t distance = DISTANCE();
    if (value_is_falsey(sp[-1])) ip += distance;
    NEXT();
}
do_LOOP : {
    size_t distance = DISTANCE();
    ip -= distance;
    if (mem_wanted()) {
        SAVE();
        mem_poll();
    }
    NEXT();
}

do_CALL : {
    uint32_t argc = BYTE();
    value callee = sp[-1 - (int)argc];
    if (LIKELY(value_is_kind(callee, OBJ_CLOSURE))) ENTER(call_closure(AS(closure, callee), argc));
    ENTER(vm_call(callee, argc));
}
do_INVOKE : {
    uint32_t name = BYTE(), argc = BYTE();
    value receiver = sp[-1 - (int)argc];
    if (LIKELY(value_is_kind(receiver, OBJ_INSTANCE))) {
        struct cache cache = caches[name];
        struct obj *shape = AS(instance, receiver)->shape;
        if (LIKELY(shape->n == cache.class_number)) {
            value method = ((struct class *)shape)->methods.entries->at[cache.position].val;
            ENTER(call_closure(AS(closure, method), argc));
        }
    }
    ENTER(invoke(AS(string, constants[name]), argc, &caches[name]));
}
do_SUPER_INVOKE : {
    struct string *name = AS(string, constants[BYTE()]);
    uint32_t argc = BYTE();
    struct class *superclass = AS(class, *--sp);
    ENTER(call_method(superclass, name, argc));
}

do_CLOSURE : {
    struct function *function = AS(function, constants[BYTE()]);
    SAVE();
    push_closure(function, frame, ip);
    ip += 2 * function->nupvalues;
    sp = vm.top;
    NEXT();
}
do_CLOSE_UPVALUE:
    vm_close_upvalues(--sp);
    NEXT();
do_RETURN : {
    value result = sp[-1];
    if (UNLIKELY(vm.open != NULL)) vm_close_upvalues(slots);
    vm.nframes--;
    if (UNLIKELY(vm.nframes == 0)) {
        vm.top = vm.stack;
        return true;
    }
    slots[0] = result;
    vm.top = slots + 1;
    LOAD_FRAME();
    NEXT();
}

do_CLASS : {
    struct string *name = class_name(constants[BYTE()]);
    SAVE();
    *sp++ = value_from_obj(class_new(name));
    NEXT();
}
do_INHERIT:
    HELPER(inherit());
do_METHOD : {
    struct string *name = AS(string, constants[BYTE()]);
    SAVE();
    define_method(name);
    sp = vm.top;
    NEXT();
}
}
