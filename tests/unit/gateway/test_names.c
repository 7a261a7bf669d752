#include "node/gateway/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

#define ITEMS 2000

struct item {
    struct name name;
    unsigned seen;
    char text[16];
};

static struct item *make_items(void)
{
    struct item *items = calloc(ITEMS, sizeof *items);
    assert_non_null(items);
    for (int i = 0; i < ITEMS; i++) {
        int len = snprintf(items[i].text, sizeof items[i].text, "name-%d", i);
        items[i].name = (struct name){.bytes = items[i].text, .len = (uint32_t)len};
    }
    return items;
}

static void see(void *ctx, struct name *name)
{
    (void)ctx;
    ((struct item *)name)->seen++;
}

static void test_names__finds_what_is_there(void **state)
{
    (void)state;
    struct names names;
    struct item *items = make_items();
    names_init(&names, 7);
    assert_null(names_find(&names, "name-1", 6));
    for (int i = 0; i < ITEMS; i++)
        assert_int_equal(names_add(&names, &items[i].name), 0);
    for (int i = 0; i < ITEMS; i += 2)
        names_remove(&names, &items[i].name);
    assert_int_equal(names.count, ITEMS / 2);
    for (int i = 0; i < ITEMS; i++)
        assert_ptr_equal(names_find(&names, items[i].text, items[i].name.len), i % 2 ? &items[i].name : NULL);
    assert_null(names_find(&names, "name-", 5));
    names_each(&names, see, NULL);
    for (int i = 0; i < ITEMS; i++)
        assert_int_equal(items[i].seen, i % 2);
    names_release(&names);
    free(items);
}

static void test_names__bytes_are_not_text(void **state)
{
    (void)state;
    struct names names;
    struct name a = {.bytes = "a\0b", .len = 3}, b = {.bytes = "a\0c", .len = 3}, empty = {.bytes = "", .len = 0};
    names_init(&names, 7);
    names_add(&names, &a);
    names_add(&names, &b);
    names_add(&names, &empty);
    assert_ptr_equal(names_find(&names, "a\0c", 3), &b);
    assert_ptr_equal(names_find(&names, "", 0), &empty);
    assert_null(names_find(&names, "a", 1));
    names_release(&names);
}

/* What is there all the time is seen, though the table doubles several times while it is scanned. */
static void test_names__scan_misses_nothing(void **state)
{
    (void)state;
    struct names names;
    struct item *items = make_items();
    uint64_t cursor = 0;
    int added = 100;
    names_init(&names, 7);
    for (int i = 0; i < added; i++)
        names_add(&names, &items[i].name);
    do {
        cursor = names_scan(&names, cursor, see, NULL);
        for (int i = 0; i < 40 && added < ITEMS; i++)
            names_add(&names, &items[added++].name);
    } while (cursor != 0);
    assert_true(names.bucket_count > 256);
    for (int i = 0; i < 100; i++)
        assert_true(items[i].seen >= 1);
    names_release(&names);
    assert_int_equal(names_scan(&names, 0, see, NULL), 0);
    free(items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names__finds_what_is_there),
        cmocka_unit_test(test_names__bytes_are_not_text),
        cmocka_unit_test(test_names__scan_misses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
