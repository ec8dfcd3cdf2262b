/* json_load.c - what the tiny allocator saves: a JSON document parsed into small objects, with tiny=off and tiny=on.
 *
 * The document is an array of generated records, like the answers of a web service: numbers, short words, words as
 * keys, a sentence, nested objects and arrays. It becomes what a generic decoder makes of it: an object or array is one
 * block of values, a value is a kind and a reference; each key, each string and each number (8 bytes) is an object of
 * its own. Keys are not shared. The tree is kept, printed and compared with the document, so nothing can be lost.
 *
 *   requests   calls that allocated
 *   slots      what they took, by tri_walk after a collection: requests that shared a slot count once
 *   live       bytes of those slots, as the collector marked them
 *   resident   pages in spans, after the collection
 *
 * Each round parses with both settings, each in a heap of its own; cpu ms is the processor time of the process for it,
 * the collector's thread included, and the least of the rounds. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <trigc.h>

enum kind { KIND_NULL, KIND_FALSE, KIND_TRUE, KIND_NUMBER, KIND_STRING, KIND_ARRAY, KIND_OBJECT };
enum { MOST_MEMBERS = 32, TEXT_ROOM = 256, WORDS = 24 };

struct value {
    uint64_t kind;
    void *data; /* a double, text, or a block */
};
struct member {
    struct value value;
    char *key; /* NULL in arrays */
};
struct block {
    uint64_t count;
    struct member members[];
};
static const uint32_t member_slots[] = {offsetof(struct member, value.data), offsetof(struct member, key)};
static tri_type block_type = {.struct_size = sizeof(tri_type),
                              .name = "struct block",
                              .size = sizeof(struct block),
                              .elem_size = sizeof(struct member),
                              .elem_pointers = {.noffsets = 2, .offsets = member_slots}};
TRI_POINTER_ARRAY_TYPE(records_type, 0);

/* ---------------------------------------------------------------------------------------------- the document */

struct text {
    char *bytes;
    size_t size, room;
};

static void text_add(struct text *t, const char *bytes, size_t size) {
    if (t->size + size + 1 > t->room) {
        t->room = (t->size + size + 1) * 2;
        t->bytes = realloc(t->bytes, t->room);
        if (!t->bytes) exit(1);
    }
    memcpy(t->bytes + t->size, bytes, size);
    t->size += size;
    t->bytes[t->size] = '\0';
}

static void text_say(struct text *t, const char *words) {
    text_add(t, words, strlen(words));
}

static uint64_t seed = 20261121;

static uint64_t random_below(uint64_t n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (seed >> 11) % n;
}

static const char *const words[WORDS] = {
    "heap",       "a",  "collector", "of", "en",    "objects", "Oslo", "in",     "Anna", "span",   "page",  "Bo",
    "concurrent", "is", "marked",    "de", "swept", "it",      "hour", "Zagreb", "Ida",  "paused", "ready", "done"};

static void make_number(struct text *t, uint64_t most, unsigned decimals) {
    char number[40];
    snprintf(number, sizeof number, "%.10g", (double)random_below(most) / (decimals ? 4.0 : 1.0));
    text_say(t, number);
}

static void make_words(struct text *t, uint64_t count) {
    text_say(t, "\"");
    for (uint64_t i = 0; i < count; i++) {
        if (i) text_say(t, " ");
        text_say(t, words[random_below(WORDS)]);
    }
    text_say(t, "\"");
}

static void make_array(struct text *t, bool of_words) {
    uint64_t n = random_below(5);
    text_say(t, "[");
    for (uint64_t i = 0; i < n; i++) {
        if (i) text_say(t, ",");
        if (of_words)
            make_words(t, 1);
        else
            make_number(t, 1000, 0);
    }
    text_say(t, "]");
}

static void make_record(struct text *t) {
    text_say(t, "{\"id\":");
    make_number(t, 1000000, 0);
    text_say(t, ",\"user\":");
    make_words(t, 1);
    text_say(t, ",\"lang\":");
    make_words(t, 1);
    text_say(t, random_below(2) ? ",\"active\":true" : ",\"active\":false");
    text_say(t, ",\"score\":");
    make_number(t, 4000, 1);
    text_say(t, ",\"title\":");
    make_words(t, 2 + random_below(3));
    text_say(t, ",\"text\":");
    make_words(t, 6 + random_below(8));
    text_say(t, ",\"place\":{\"city\":");
    make_words(t, 1);
    text_say(t, ",\"x\":");
    make_number(t, 720, 1);
    text_say(t, ",\"y\":");
    make_number(t, 360, 1);
    text_say(t, "},\"tags\":");
    make_array(t, true);
    text_say(t, ",\"counts\":");
    make_array(t, false);
    text_say(t, ",\"parent\":null}");
}

/* ------------------------------------------------------------------------------------------------- the parser */

struct parser {
    const char *at;
    tri_thread *thread;
    uint64_t nrequests;
};

static void *must(struct parser *p, void *obj) {
    if (!obj) {
        fprintf(stderr, "%s\n", tri_last_error());
        exit(1);
    }
    p->nrequests++;
    return obj;
}

static void expect(struct parser *p, char c) {
    if (*p->at++ != c) {
        fprintf(stderr, "\"%c\" was expected before \"%.20s\"\n", c, p->at);
        exit(1);
    }
}

static char *parse_string(struct parser *p) {
    expect(p, '"');
    size_t size = strcspn(p->at, "\""); /* the generator needs no escapes */
    char *string = must(p, tri_new_bytes(p->thread, size + 1));
    memcpy(string, p->at, size);
    string[size] = '\0';
    p->at += size + 1;
    return string;
}

static struct value parse_value(struct parser *p);

/* An object or an array: its members lie on this thread's stack, a root, until it is known how many there are. */
static struct value parse_block(struct parser *p, bool has_keys) {
    struct member members[MOST_MEMBERS];
    uint64_t n = 0;
    char end = has_keys ? '}' : ']';
    for (p->at++; *p->at != end && n < MOST_MEMBERS; n++) {
        if (n) expect(p, ',');
        members[n].key = has_keys ? parse_string(p) : NULL;
        if (has_keys) expect(p, ':');
        members[n].value = parse_value(p);
    }
    expect(p, end);
    struct block *block = must(p, tri_new_n(p->thread, &block_type, n));
    block->count = n;
    for (uint64_t i = 0; i < n; i++) {
        block->members[i].value.kind = members[i].value.kind;
        tri_init(p->thread, block, &block->members[i].value.data, members[i].value.data);
        tri_init(p->thread, block, &block->members[i].key, members[i].key);
    }
    return (struct value){has_keys ? KIND_OBJECT : KIND_ARRAY, block};
}

static struct value parse_number(struct parser *p) {
    char *end;
    double *number = must(p, tri_new_bytes(p->thread, sizeof *number));
    *number = strtod(p->at, &end);
    p->at = end;
    return (struct value){KIND_NUMBER, number};
}

static struct value parse_value(struct parser *p) {
    switch (*p->at) {
    case '"': return (struct value){KIND_STRING, parse_string(p)};
    case '{': return parse_block(p, true);
    case '[': return parse_block(p, false);
    case 't': return p->at += 4, (struct value){KIND_TRUE, NULL};
    case 'f': return p->at += 5, (struct value){KIND_FALSE, NULL};
    case 'n': return p->at += 4, (struct value){KIND_NULL, NULL};
    default: return parse_number(p);
    }
}

/* ------------------------------------------------------------------------------------------------ and back again */

static void print_value(struct text *t, struct value v) {
    char number[40];
    const struct block *block = v.data;
    switch ((enum kind)v.kind) {
    case KIND_NULL: text_say(t, "null"); return;
    case KIND_FALSE: text_say(t, "false"); return;
    case KIND_TRUE: text_say(t, "true"); return;
    case KIND_NUMBER:
        snprintf(number, sizeof number, "%.10g", *(double *)v.data);
        text_say(t, number);
        return;
    case KIND_STRING:
        text_say(t, "\"");
        text_say(t, v.data);
        text_say(t, "\"");
        return;
    case KIND_ARRAY:
    case KIND_OBJECT:
        text_say(t, v.kind == KIND_OBJECT ? "{" : "[");
        for (uint64_t i = 0; i < block->count; i++) {
            if (i) text_say(t, ",");
            if (v.kind == KIND_OBJECT) print_value(t, (struct value){KIND_STRING, block->members[i].key});
            if (v.kind == KIND_OBJECT) text_say(t, ":");
            print_value(t, block->members[i].value);
        }
        text_say(t, v.kind == KIND_OBJECT ? "}" : "]");
        return;
    }
}

/* -------------------------------------------------------------------------------------------------- one heap */

struct result {
    uint64_t nrequests, nslots;
    size_t live_bytes, resident_bytes;
    double ms;
};

static double cpu_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void check(int err) {
    if (err == TRI_OK) return;
    fprintf(stderr, "%s\n", tri_last_error());
    exit(1);
}

static void parse_all(struct parser *p, void **records, size_t nrecords) {
    for (size_t i = 0; i < nrecords; i++) {
        struct value v = parse_value(p);
        tri_store(p->thread, records, &records[i], v.data);
        if (i + 1 < nrecords) expect(p, '\n');
    }
}

static struct result measure(const struct text *document, size_t nrecords, bool tiny) {
    tri_config config;
    tri_config_init(&config);
    config.flags = tiny ? TRI_HEAP_TINY : 0;
    tri_heap *heap;
    struct parser p = {.at = document->bytes};
    check(tri_heap_create(&config, &heap));
    check(tri_attach(heap, 0, &p.thread));
    void **records = must(&p, tri_new_n(p.thread, &records_type, nrecords));
    tri_handle handle = tri_global(p.thread, records);
    double start_ms = cpu_ms();
    parse_all(&p, records, nrecords);
    double ms = cpu_ms() - start_ms;
    check(tri_collect(p.thread));
    tri_stats stats = {.struct_size = sizeof stats};
    check(tri_stats_get(heap, &stats));
    struct result r = {p.nrequests, tri_walk(p.thread, NULL, NULL), stats.live_bytes, stats.committed_bytes, ms};
    struct text again = {0};
    for (size_t i = 0; i < nrecords; i++) {
        if (i) text_say(&again, "\n");
        print_value(&again, (struct value){KIND_OBJECT, records[i]});
    }
    if (strcmp(again.bytes, document->bytes) != 0) {
        fprintf(stderr, "the tree does not print as the document\n");
        exit(1);
    }
    free(again.bytes);
    tri_global_free(p.thread, handle);
    check(tri_detach(p.thread));
    check(tri_heap_destroy(heap));
    return r;
}

static double percent_less(double with, double without) {
    return 100 * (1 - with / without);
}

static int usage(void) {
    fprintf(stderr, "usage: bench-json [--quick] [--records=N]\n");
    return 2;
}

int main(int argc, char **argv) {
    size_t nrecords = 40000;
    int nrounds = 5;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0)
            nrecords = 5000, nrounds = 2;
        else if (strncmp(argv[i], "--records=", 10) == 0)
            nrecords = strtoull(argv[i] + 10, NULL, 10);
        else
            return usage();
    }
    if (nrecords == 0) return 2;
    struct text document = {0};
    for (size_t i = 0; i < nrecords; i++) {
        if (i) text_say(&document, "\n");
        make_record(&document);
    }
    struct result best[2];
    for (int round = 0; round < nrounds; round++) {
        for (int tiny = 0; tiny < 2; tiny++) {
            struct result r = measure(&document, nrecords, tiny);
            if (round == 0 || r.ms < best[tiny].ms) best[tiny] = r;
        }
    }
    printf("%zu records, %zu KB of text; cpu ms: the least of %d rounds\n", nrecords, document.size >> 10, nrounds);
    printf("%-10s %10s %10s %10s %12s %8s\n", "", "requests", "slots", "live KB", "resident KB", "cpu ms");
    for (int tiny = 0; tiny < 2; tiny++)
        printf("%-10s %10" PRIu64 " %10" PRIu64 " %10zu %12zu %8.1f\n", tiny ? "tiny=on" : "tiny=off",
               best[tiny].nrequests, best[tiny].nslots, best[tiny].live_bytes >> 10, best[tiny].resident_bytes >> 10,
               best[tiny].ms);
    printf("%-10s %10s %9.1f%% %9.1f%% %11.1f%% %7.1f%%\n", "less by", "",
           percent_less((double)best[1].nslots, (double)best[0].nslots),
           percent_less((double)best[1].live_bytes, (double)best[0].live_bytes),
           percent_less((double)best[1].resident_bytes, (double)best[0].resident_bytes),
           percent_less(best[1].ms, best[0].ms));
    free(document.bytes);
    return 0;
}
