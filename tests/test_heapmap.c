/* test_heapmap.c - the picture's data (bench/heapmap_read.c) from files of looks that are written here.
 *
 * Every kind of page, occupancy by eighths, a heap that is larger than the picture has rows (against a plain array of
 * pages), and files that hold nothing. */
#include "tests/plain.h"

#include "bench/heapmap_read.h"

/* The JSON of a file with that text; the caller frees it. */
static char *json_of(const char *text, bool *any) {
    char path[] = "/tmp/heapmap-XXXXXX", *json = NULL;
    size_t size = 0;
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK_EQ(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    FILE *out = open_memstream(&json, &size);
    *any = heapmap_json(out, path);
    fclose(out);
    unlink(path);
    return json;
}

TEST(heapmap, every_kind_of_page_has_its_character) {
    bool any;
    char *json = json_of("@ 0.000 0 0 7\n"
                         "0 1 small 0 512\n"
                         "1 1 small 256 512\n"
                         "2 2 small 7 7\n"
                         "@ 25.500 1000 2000 3000\n"
                         "# a line that means nothing\n"
                         "0 2 free\n"
                         "2 1 returned\n"
                         "3 3 large\n"
                         "6 1 manual 3 4\n"
                         "7 1 taken\n"
                         "9 1 small 1 16\n",
                         &any);
    CHECK(any);
    CHECK_STR_EQ(json, "{\"page_bytes\":8192,\"pages_per_row\":1,\"rows\":10,\"looks\":[\n"
                       "{\"ms\":0.0,\"live\":0,\"heap\":0,\"resident\":7,"
                       "\"free\":0,\"returned\":0,\"taken\":0,\"small\":4,\"large\":0,\"manual\":0,"
                       "\"cells\":\"0488......\"},\n"
                       "{\"ms\":25.5,\"live\":1000,\"heap\":2000,\"resident\":3000,"
                       "\"free\":2,\"returned\":1,\"taken\":1,\"small\":1,\"large\":3,\"manual\":1,"
                       "\"cells\":\"ffrLLLMt.1\"}]}");
    free(json);
}

/* A page's character, by the array of pages that the runs fill. */
static char page_character(const char *pages, size_t npages, size_t page) {
    return page < npages ? pages[page] : '.';
}

TEST(heapmap, a_large_heap_shows_one_page_of_every_so_many) {
    enum { PAGES = 5003, ROWS = 556, PER_ROW = 9 }; /* the least number of pages a row that needs at most 600 rows */
    static char pages[PAGES], text[PAGES * 40];
    static const char *const names[] = {"free", "returned", "large", "manual", "small 8 8", "small 0 8"};
    static const char characters[] = "frLM80";
    size_t at = (size_t)sprintf(text, "@ 1 2 3 4\n");
    uint32_t random = 12345;
    for (size_t page = 0; page < PAGES;) {
        random = random * 1664525u + 1013904223u;
        size_t npages = 1 + (random >> 16) % 20, kind = (random >> 8) % 6;
        if (npages > PAGES - page) npages = PAGES - page;
        at += (size_t)sprintf(text + at, "%zu %zu %s\n", page, npages, names[kind]);
        memset(pages + page, characters[kind], npages);
        page += npages;
    }
    bool any;
    char *json = json_of(text, &any);
    CHECK(any);
    CHECK(strstr(json, "\"pages_per_row\":9,\"rows\":556") != NULL);
    const char *cells = strstr(json, "\"cells\":\"");
    CHECK(cells != NULL);
    cells += strlen("\"cells\":\"");
    for (size_t row = 0; row < ROWS; row++)
        CHECK_MSG(cells[row] == page_character(pages, PAGES, row * PER_ROW + PER_ROW / 2), "row %zu is %c", row,
                  cells[row]);
    CHECK_EQ(cells[ROWS], '"');
    free(json);
}

TEST(heapmap, a_file_without_looks_is_null) {
    static const char *const texts[] = {"", "nothing\n", "@ 1 2 3 4\n", "0 5 free\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        bool any;
        char *json = json_of(texts[i], &any);
        CHECK(!any);
        CHECK_STR_EQ(json, "null");
        free(json);
    }
    char *json = NULL;
    size_t size;
    FILE *out = open_memstream(&json, &size);
    CHECK(!heapmap_json(out, "/nowhere/heapmap.txt"));
    fclose(out);
    CHECK_STR_EQ(json, "null");
    free(json);
}
