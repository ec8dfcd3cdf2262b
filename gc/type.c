/* type.c - checking and compiling descriptors; see type.h. */
#include "gc/type.h"
#include <string.h>
#include "alloc/base/atomic.h"
#include "alloc/base/bits.h"
#include "alloc/base/check.h"
#include "alloc/base/os.h"
#include "alloc/fixalloc.h"
#include "gc/error.h"
#include "gc/fork.h"
#include "gc/rules.h"

struct layout tri__layouts[65536];

static uint32_t next_layout = LAYOUT_FIRST; /* [atomic] */
static const tri_enc identity = {0, 0, ~0ull, ~0ull};

/* While a descriptor is being compiled its layout word holds this. */
enum { LAYOUT_CLAIMED = 0xffffffff };

/* Where a complaint is put together: which descriptor, which field. */
struct checker {
    const tri_type *type;
    const char *call;
    int err;
};

static bool refuse(struct checker *c, const char *field, size_t number, const char *why) {
    const char *name = c->type->name ? c->type->name : "(no name)";
    c->err = tri__error(TRI_ETYPE, c->call, "type %s: field %s (%zu): %s", name, field, number, why);
    return false;
}

static bool check_slots(struct checker *c, const char *field, const tri_slots *slots, size_t size_bytes) {
    if (slots->nbits && !slots->bitmap) return refuse(c, field, slots->nbits, "nbits is set but bitmap is NULL");
    if (slots->noffsets && !slots->offsets)
        return refuse(c, field, slots->noffsets, "noffsets is set but offsets is NULL");
    if (slots->nbits > size_bytes / 8)
        return refuse(c, field, slots->nbits, "the bitmap is longer than the object; give size / 8 bits at most");
    for (uint32_t i = 0; i < slots->noffsets; i++) {
        if (slots->offsets[i] % 8)
            return refuse(c, field, slots->offsets[i], "the offset is not a multiple of 8: a slot must be aligned");
        if (size_bytes < 8 || slots->offsets[i] > size_bytes - 8)
            return refuse(c, field, slots->offsets[i], "the offset is past the size");
    }
    return true;
}

/* What is wrong with an encoding: the field, and why; NULL: nothing. */
static const char *enc_fault(const tri_enc *enc, const char **field, uint64_t *number) {
    *field = "enc.tag", *number = enc->tag;
    if (enc->tag & ~enc->mask) return "tag has bits outside mask, so no word can match";
    *field = "enc.tags", *number = enc->tags;
    if (enc->tags == 0) return "no tag names a reference; set the bits of the low-bit tags that do, or all ones";
    bool possible = false;
    for (unsigned k = 0; k < 64; k++) possible |= (enc->tags >> k & 1) && (k & enc->mask) == (enc->tag & 63);
    if (!possible) return "no word can match both tag and tags: their low bits differ";
    *field = "enc.ptr_mask", *number = enc->ptr_mask;
    if (enc->ptr_mask == 0) return "ptr_mask is 0, so every reference would decode to NULL";
    if (enc->mask & enc->tag & enc->ptr_mask) return "ptr_mask keeps bits of the tag, so the address would be wrong";
    return NULL;
}

static bool check_enc(struct checker *c, const tri_enc *enc) {
    const char *field;
    uint64_t number;
    const char *why = enc_fault(enc, &field, &number);
    return why ? refuse(c, field, number, why) : true;
}

int tri__enc_check(const tri_enc *enc, const char *call) {
    const char *field;
    uint64_t number;
    const char *why = enc ? enc_fault(enc, &field, &number) : NULL;
    return why ? tri__error(TRI_EINVAL, call, "field %s (%zu): %s", field, (size_t)number, why) : TRI_OK;
}

static bool has_slots(const tri_slots *s) {
    return s->nbits != 0 || s->noffsets != 0;
}

static bool check_shape(struct checker *c) {
    const tri_type *t = c->type;
    if (t->struct_size != sizeof(tri_type))
        return refuse(c, "struct_size", t->struct_size, "is not sizeof(tri_type); use the TRI_TYPE macros or set it");
    if (t->flags & ~(uint32_t)(TRI_TYPE_LEAF | TRI_TYPE_ZEROED)) return refuse(c, "flags", t->flags, "unknown flag");
    if (!t->name) return refuse(c, "name", 0, "is NULL; messages need it");
    if (t->size == 0 && t->elem_size == 0)
        return refuse(c, "size", 0, "neither size nor elem_size: there is nothing to allocate");
    if (t->size > (size_t)1 << 40 || t->elem_size > (size_t)1 << 30)
        return refuse(c, "size", t->size, "is larger than any object can be");
    if (t->align != 0 && t->align != 8 && t->align != 16) return refuse(c, "align", t->align, "must be 0, 8 or 16");
    bool any = has_slots(&t->pointers) || has_slots(&t->values) || has_slots(&t->maybes);
    bool any_elem = has_slots(&t->elem_pointers) || has_slots(&t->elem_values) || has_slots(&t->elem_maybes);
    bool weak = has_slots(&t->weaks), weak_elem = has_slots(&t->elem_weaks);
    if ((any_elem || weak_elem) && t->elem_size == 0)
        return refuse(c, "elem_size", 0, "element slots are given but elem_size is 0");
    if ((any_elem || weak_elem) && (t->size % 8 || t->elem_size % 8))
        return refuse(c, "elem_size", t->elem_size, "elements with slots need size and elem_size to be multiples of 8");
    if ((t->flags & TRI_TYPE_LEAF) && (any || any_elem || weak || weak_elem || t->trace))
        return refuse(c, "flags", t->flags, "TRI_TYPE_LEAF contradicts slots or a trace callback");
    if (t->trace && (any || any_elem))
        return refuse(c, "trace", 0, "a traced type visits all its slots itself; give none but weak ones beside");
    if ((has_slots(&t->values) || has_slots(&t->elem_values)) && !t->enc)
        return refuse(c, "enc", 0, "value slots need an encoding");
    return true;
}

static bool check_type(struct checker *c) {
    const tri_type *t = c->type;
    return check_shape(c) && check_slots(c, "pointers", &t->pointers, t->size) &&
           check_slots(c, "values", &t->values, t->size) && check_slots(c, "maybes", &t->maybes, t->size) &&
           check_slots(c, "elem_pointers", &t->elem_pointers, t->elem_size) &&
           check_slots(c, "elem_values", &t->elem_values, t->elem_size) &&
           check_slots(c, "elem_maybes", &t->elem_maybes, t->elem_size) &&
           check_slots(c, "weaks", &t->weaks, t->size) && check_slots(c, "elem_weaks", &t->elem_weaks, t->elem_size) &&
           (!t->enc || check_enc(c, t->enc));
}

/* Descriptor data lives as long as the process: bumped from chunks, by one atomic addition. */
enum { CHUNK_BYTES = 64 << 10, CHUNK_HEADER_BYTES = 64 };
struct chunk {
    size_t used; /* [atomic] */
};
static struct chunk *current_chunk; /* [atomic] */

static void *permanent(size_t size_bytes) {
    size_bytes = align_up(size_bytes, 64);
    if (size_bytes > CHUNK_BYTES / 4) return tri__os_map(align_up(size_bytes, tri__os_page_size()));
    struct chunk *chunk = atomic_load_acquire(&current_chunk); /* pairs with the swap below */
    for (;;) {
        if (chunk) {
            size_t offset = atomic_add_relaxed(&chunk->used, size_bytes); /* memory is zeroed and nobody else's */
            if (offset + size_bytes <= CHUNK_BYTES) return (char *)chunk + offset;
        }
        struct chunk *fresh = tri__os_map(CHUNK_BYTES);
        if (!fresh) return NULL;
        fresh->used = CHUNK_HEADER_BYTES;
        if (atomic_cas_acqrel(&current_chunk, &chunk, fresh))
            chunk = fresh;
        else
            tri__os_release(fresh, CHUNK_BYTES); /* somebody was faster: chunk is theirs */
    }
}

static void set_bits(uint64_t *bits, const tri_slots *slots) {
    for (uint32_t i = 0; i < slots->nbits; i++)
        if (slots->bitmap[i / 64] >> (i % 64) & 1) bits[i / 64] |= 1ull << (i % 64);
    for (uint32_t i = 0; i < slots->noffsets; i++)
        bits[slots->offsets[i] / 512] |= 1ull << (slots->offsets[i] / 8 % 64);
}

/* The slots of a type's fixed part or of an element, by kind. */
struct kinds {
    const tri_slots *slots[SLOT_KINDS]; /* pointers, values, maybes, weaks */
};

static struct kinds fixed_kinds(const tri_type *t) {
    return (struct kinds){{&t->pointers, &t->values, &t->maybes, &t->weaks}};
}

static struct kinds elem_kinds(const tri_type *t) {
    return (struct kinds){{&t->elem_pointers, &t->elem_values, &t->elem_maybes, &t->elem_weaks}};
}

/* Words of storage for each 64 words of a map: the kinds, and all of them together. */
enum { MAP_WORDS = SLOT_KINDS + 1 };

/* Fills map from the kinds; `storage` has MAP_WORDS x nwords64 words, the last for all kinds together. */
static bool compile_map(struct checker *c, struct slot_map *map, uint64_t *storage, size_t nwords64,
                        const struct kinds *kinds) {
    uint64_t *all = storage + SLOT_KINDS * nwords64;
    for (size_t k = 0; k < SLOT_KINDS; k++) {
        uint64_t *bits = storage + k * nwords64;
        set_bits(bits, kinds->slots[k]);
        for (size_t i = 0; i < nwords64; i++) {
            if (all[i] & bits[i])
                return refuse(c, "pointers/values/maybes/weaks", i * 64,
                              "a word is given as two kinds of slot"); /* I-TYPE2 */
            all[i] |= bits[i];
        }
    }
    for (size_t i = 0; i < nwords64; i++)
        if (all[i]) map->nwords = (uint32_t)(i * 64 + bit_highest(all[i]) + 1);
    map->pointers = storage;
    map->values = storage + nwords64;
    map->maybes = storage + 2 * nwords64;
    map->weaks = storage + 3 * nwords64;
    return true;
}

static bool all_of_kind(const struct slot_map *map, const uint64_t *kind, size_t nwords) {
    if (map->nwords != nwords) return false;
    for (size_t i = 0; i < nwords; i++)
        if (!(kind[i / 64] >> (i % 64) & 1)) return false;
    return true;
}

static uint64_t hash_bytes(uint64_t h, const void *data, size_t n) {
    const unsigned char *p = data; /* FNV-1a */
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3ull;
    return h;
}

/* Words that the slots reach to, in all kinds. */
static size_t words_reached(const struct kinds *kinds) {
    size_t n = 0;
    for (int k = 0; k < SLOT_KINDS; k++) {
        const tri_slots *slots = kinds->slots[k];
        n = max_size(n, slots->nbits);
        for (uint32_t i = 0; i < slots->noffsets; i++) n = max_size(n, slots->offsets[i] / 8 + 1);
    }
    return n;
}

struct desc_size {
    size_t fixed64, elem64, bytes;
};

static struct desc_size desc_size_of(const tri_type *t) {
    struct kinds fixed = fixed_kinds(t), elem = elem_kinds(t);
    struct desc_size z = {ceil_div(words_reached(&fixed), 64) + 1, ceil_div(words_reached(&elem), 64) + 1, 0};
    z.bytes = sizeof(struct type_desc) + (z.fixed64 + z.elem64) * MAP_WORDS * 8;
    return z;
}

static bool is_empty(const uint64_t *bits, uint32_t nwords) {
    for (uint32_t i = 0; i < nwords; i += 64)
        if (bits[i / 64]) return false;
    return true;
}

/* Compiles into zeroed memory of desc_size_of's size. */
static bool compile_into(struct checker *c, struct type_desc *desc, const struct desc_size *z) {
    const tri_type *t = c->type;
    uint64_t *storage = (uint64_t *)(desc + 1);
    struct kinds fixed = fixed_kinds(t), elem = elem_kinds(t);
    desc->type = t;
    desc->size = t->size;
    desc->elem_size = t->elem_size;
    desc->enc = t->enc ? *t->enc : identity;
    if (!compile_map(c, &desc->fixed, storage, z->fixed64, &fixed) ||
        !compile_map(c, &desc->elem, storage + z->fixed64 * MAP_WORDS, z->elem64, &elem))
        return false;
    desc->has_weak = !is_empty(desc->fixed.weaks, desc->fixed.nwords) || !is_empty(desc->elem.weaks, desc->elem.nwords);
    desc->gcdata = storage + z->fixed64 * SLOT_KINDS;
    uint64_t h = hash_bytes(0xcbf29ce484222325ull, t->name, strlen(t->name));
    h = hash_bytes(h, &t->size, sizeof t->size);
    h = hash_bytes(h, &t->elem_size, sizeof t->elem_size);
    desc->hash = hash_bytes(h, storage, (z->fixed64 + z->elem64) * MAP_WORDS * 8);
    return true;
}

/* First into scratch memory, so that a refused descriptor leaves nothing behind. */
static struct type_desc *compile(struct checker *c) {
    struct desc_size z = desc_size_of(c->type);
    size_t scratch_bytes = align_up(z.bytes, tri__os_page_size());
    struct type_desc *scratch = tri__os_map(scratch_bytes), *desc = NULL;
    if (scratch) {
        bool ok = compile_into(c, scratch, &z);
        tri__os_release(scratch, scratch_bytes);
        if (!ok) return NULL;
        desc = permanent(z.bytes);
    }
    if (!desc)
        c->err = tri__error(TRI_ENOMEM, c->call, "no memory for the descriptor of type %s", c->type->name);
    else
        compile_into(c, desc, &z);
    return desc;
}

/* The one kind that every slot has, for the barrier's short way; a traced type has none. */
static enum slot_kind uniform_kind(const struct type_desc *d) {
    bool p = is_empty(d->fixed.pointers, d->fixed.nwords) && is_empty(d->elem.pointers, d->elem.nwords);
    bool v = is_empty(d->fixed.values, d->fixed.nwords) && is_empty(d->elem.values, d->elem.nwords);
    bool m = is_empty(d->fixed.maybes, d->fixed.nwords) && is_empty(d->elem.maybes, d->elem.nwords);
    if (d->type->trace || !m || d->has_weak) return SLOT_NONE;
    return !p && v ? SLOT_POINTER : p && !v ? SLOT_VALUE : SLOT_NONE;
}

/* Nothing in it is traced: no slots, or none but weak ones. */
static bool is_weak_only(const struct slot_map *map) {
    return is_empty(map->pointers, map->nwords) && is_empty(map->values, map->nwords) &&
           is_empty(map->maybes, map->nwords);
}

static struct layout layout_of(const struct type_desc *desc) {
    const tri_type *t = desc->type;
    struct layout l = {SCAN_GENERAL, (uint16_t)uniform_kind(desc), 0, 0, desc};
    bool no_fixed = desc->fixed.nwords == 0, no_elem = desc->elem.nwords == 0;
    bool plain = is_empty(desc->fixed.values, desc->fixed.nwords) && is_empty(desc->fixed.maybes, desc->fixed.nwords);
    if (t->trace) {
        l.scan = SCAN_TRACE;
    } else if (no_fixed && no_elem) {
        l.scan = SCAN_LEAF;
    } else if (is_weak_only(&desc->elem) && plain && desc->fixed.nwords <= 64) {
        l.scan = SCAN_MASK;
        l.mask = desc->fixed.pointers[0];
    } else if (is_weak_only(&desc->elem) && desc->fixed.nwords <= 64 &&
               is_empty(desc->fixed.pointers, desc->fixed.nwords) && is_empty(desc->fixed.maybes, desc->fixed.nwords)) {
        l.scan = SCAN_VALUES;
        l.mask = desc->fixed.values[0];
    } else if (no_fixed && all_of_kind(&desc->elem, desc->elem.pointers, desc->elem_size / 8)) {
        l.scan = SCAN_RUN_POINTERS;
        l.run_from = (uint32_t)desc->size;
    } else if (no_fixed && all_of_kind(&desc->elem, desc->elem.values, desc->elem_size / 8)) {
        l.scan = SCAN_RUN_VALUES;
        l.run_from = (uint32_t)desc->size;
    }
    if (desc->size > UINT32_MAX && (l.scan == SCAN_RUN_POINTERS || l.scan == SCAN_RUN_VALUES)) l.scan = SCAN_GENERAL;
    return l;
}

/* Takes n numbers; 0 when there are none left. */
static uint32_t take_numbers(uint32_t n) {
    uint32_t first = atomic_load_relaxed(&next_layout); /* a counter; entries are published by type->layout */
    do
        if (first + n > LAYOUT_LAST) return 0;
    while (!atomic_cas_relaxed(&next_layout, &first, first + n));
    return first;
}

static int build(tri_type *type, const char *call, uint32_t *first) {
    struct checker c = {type, call, TRI_OK};
    if (!check_type(&c)) return c.err;
    uint32_t n = type->elem_size ? NUM_SIZE_CLASSES : 1;
    struct type_desc *desc = NULL;
    if (atomic_load_relaxed(&next_layout) + n <= LAYOUT_LAST) { /* a first look, so that a refusal takes no memory */
        desc = compile(&c);
        if (!desc) return c.err;
        *first = take_numbers(n);
    }
    if (*first == 0)
        return tri__error(TRI_ELIMIT, call,
                          "too many types: %u layout numbers are taken, type %s needs %u more; "
                          "use fewer array types",
                          (unsigned)(LAYOUT_LAST - LAYOUT_FIRST), type->name, n);
    struct layout layout = layout_of(desc);
    for (uint32_t i = 0; i < n; i++) tri__layouts[*first + i] = layout;
    return TRI_OK;
}

int tri__type_bind(tri_type *type, const char *call) {
    if (!type) return tri__error(TRI_EINVAL, call, "type is NULL");
    for (;;) {
        uint32_t found = atomic_load_acquire(&type->layout); /* pairs with the release below: the entries */
        if (found != 0 && found != LAYOUT_CLAIMED) return TRI_OK;
        if (found == LAYOUT_CLAIMED) { /* another thread compiles it: microseconds */
            tri__os_yield();
            continue;
        }
        NO_FORK_REST(); /* a claim would stay for ever in the child */
        if (!atomic_cas_acqrel(&type->layout, &found, LAYOUT_CLAIMED)) continue;
        uint32_t first = 0;
        int err = build(type, call, &first);
        if (err == TRI_OK) atomic_store_relaxed(&type->hole, first * (uint32_t)sizeof(tri_hole)); /* read by tri_new */
        atomic_store_release(&type->layout, err == TRI_OK ? first : 0); /* publishes tri__layouts[first...] (I-TYPE1) */
        return err;
    }
}

int tri_type_register(tri_type *type) {
    if (tri__callback_calls(NULL, "tri_type_register")) return TRI_ESTATE;
    NO_SAFEPOINT("tri_type_register");
    return tri__type_bind(type, "tri_type_register");
}

int tri_type_describe(tri_type *type, tri_type_data *out) {
    if (tri__callback_calls(NULL, "tri_type_describe")) return TRI_ESTATE;
    NO_SAFEPOINT("tri_type_describe");
    int err = tri__type_bind(type, "tri_type_describe");
    if (err != TRI_OK) return err;
    if (!out || out->struct_size != sizeof *out)
        return tri__error(TRI_EINVAL, "tri_type_describe",
                          "out is NULL or its struct_size is not set to sizeof(tri_type_data)");
    uint32_t number = atomic_load_acquire(&type->layout); /* pairs with tri__type_bind */
    const struct type_desc *desc = tri__layouts[number].desc;
    out->layout = number;
    out->name = type->name;
    out->size = type->size;
    out->ptrdata = (size_t)desc->fixed.nwords * 8;
    out->align = type->align ? type->align : 8;
    out->kind = type->trace ? 3 : type->flags & TRI_TYPE_LEAF ? 2 : type->elem_size ? 1 : 0;
    out->hash = desc->hash;
    out->gcdata = desc->gcdata;
    out->gcdata_nbits = desc->fixed.nwords;
    return TRI_OK;
}

enum slot_kind tri__type_slot_kind(const struct type_desc *desc, size_t offset) {
    const struct slot_map *map = &desc->fixed;
    if (offset >= desc->size && desc->elem_size) {
        map = &desc->elem;
        offset = (offset - desc->size) % desc->elem_size;
    }
    size_t word = offset / 8;
    if (offset % 8 || word >= map->nwords) return SLOT_NONE;
    uint64_t bit = 1ull << (word % 64);
    if (map->pointers[word / 64] & bit) return SLOT_POINTER;
    if (map->values[word / 64] & bit) return SLOT_VALUE;
    if (map->weaks[word / 64] & bit) return SLOT_WEAK;
    return map->maybes[word / 64] & bit ? SLOT_MAYBE : SLOT_NONE;
}
