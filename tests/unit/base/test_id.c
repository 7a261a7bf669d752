#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/clock.h"
#include "node/base/id.h"
#include "node/base/map.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* faults 40 */
static void test_id__digests_have_one_spelling(void **state)
{
    (void)state;
    struct id id;
    char text[DIGEST_TEXT_SIZE];
    assert_true(digest_parse("sha256:" HEX64, &id));
    assert_string_equal(digest_text(&id, text), "sha256:" HEX64);
    static const char *const bad[] = {"",
                                      "sha256:",
                                      "sha1:" HEX64,
                                      HEX64,
                                      "SHA256:" HEX64,
                                      "sha256:" HEX64 "0",
                                      "sha256:../../x",
                                      "sha256:0123",
                                      " sha256:" HEX64,
                                      "sha256:" HEX64 "\n",
                                      "sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(digest_parse(bad[i], &id));
}

/* faults 47 */
static void test_id__names_never_reach_paths_or_options(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "redis", "a.b-c_d", "9lives"};
    static const char *const bad[] = {"",     "-oProxyCommand=x", "..",    "a..b",    "a/b", "a b",
                                      "a\nb", ".hidden",          "a\xff", "a\x1b[2J"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(name_is_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(name_is_valid(bad[i]));
    char longest[NAME_MAX_BYTES + 2];
    memset(longest, 'a', sizeof longest);
    longest[NAME_MAX_BYTES] = '\0';
    assert_true(name_is_valid(longest));
    longest[NAME_MAX_BYTES] = 'a';
    longest[NAME_MAX_BYTES + 1] = '\0';
    assert_false(name_is_valid(longest));
    assert_true(image_name_is_valid("registry/app:1.2"));
    assert_false(image_name_is_valid("../app"));

    struct guid guid;
    char text[GUID_TEXT_SIZE];
    assert_true(guid_parse("01234567-89ab-cdef-0123-456789abcdef", &guid));
    assert_string_equal(guid_text(&guid, text), "01234567-89ab-cdef-0123-456789abcdef");
    assert_false(guid_parse("01234567-89AB-cdef-0123-456789abcdef", &guid));
    assert_false(guid_parse("0123456789abcdef0123456789abcdef", &guid));
    assert_false(guid_parse("../../../../../etc/passwd-0123456789", &guid));
}

/* Against an array that remembers everything; the seed is printed by cmocka on failure through the message. */
static void test_id__map_agrees_with_an_array(void **state)
{
    (void)state;
    uint64_t seed = 7;
    struct rng rng = rng_seeded(&seed);
    struct map map;
    map_init(&map, 300, 99);
    static int values[512];
    bool there[512] = {false};
    size_t count = 0;
    for (int step = 0; step < 20000; step++) {
        size_t which = (size_t)rng_below(&rng, 512);
        struct id key = {.b = {(uint8_t)which, (uint8_t)(which >> 8)}};
        if (rng_below(&rng, 2)) {
            int status = map_set(&map, &key, &values[which]);
            assert_int_equal(status == 0, there[which] || count < 300);
            count += status == 0 && !there[which];
            there[which] |= status == 0;
        } else {
            assert_ptr_equal(map_remove(&map, &key), there[which] ? &values[which] : NULL);
            count -= there[which];
            there[which] = false;
        }
        assert_int_equal(map.count, count);
    }
    for (size_t which = 0; which < 512; which++) {
        struct id key = {.b = {(uint8_t)which, (uint8_t)(which >> 8)}};
        assert_ptr_equal(map_get(&map, &key), there[which] ? &values[which] : NULL);
    }
    size_t cursor = 0, seen = 0;
    void *value;
    while (map_next(&map, &cursor, NULL, &value))
        seen++;
    assert_int_equal(seen, count);
    map_release(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_id__digests_have_one_spelling),
        cmocka_unit_test(test_id__names_never_reach_paths_or_options),
        cmocka_unit_test(test_id__map_agrees_with_an_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
