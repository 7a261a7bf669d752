#include "node/gateway/view.h"

#include <string.h>

#include "dht/dht.h"
#include "tests/test.h"

#define HEX "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static bool parse(const char *name, struct view *view)
{
    return view_parse(name, strlen(name), view);
}

static void test_view__names(void **state)
{
    (void)state;
    struct view view;
    struct id digest;
    struct guid guid;
    id_parse_hex(HEX, &digest);
    guid_parse("00112233-4455-6677-8899-aabbccddeeff", &guid);

    assert_true(parse("cmig:object:sha256:" HEX, &view));
    struct id key = dht_key(DHT_OBJECT, digest.b, sizeof digest.b);
    assert_true(id_equal(&view.key, &key) && !view.by_version);
    assert_true(parse("cmig:volume:00112233-4455-6677-8899-aabbccddeeff", &view));
    key = dht_key(DHT_VOLUME, guid.b, sizeof guid.b);
    assert_true(id_equal(&view.key, &key) && view.by_version);
    assert_true(parse("cmig:app:reg/app:1", &view));
    key = dht_key(DHT_APP, "reg/app:1", 9);
    assert_true(id_equal(&view.key, &key) && !view.by_version);
    assert_true(parse("cmig:service:reg/app:1 alice", &view));
    key = dht_key(DHT_SERVICE, "reg/app:1\0alice", 15);
    assert_true(id_equal(&view.key, &key) && view.by_version);
}

static void test_view__is_strict(void **state)
{
    (void)state;
    struct view view;
    static const char *const odd[] = {"cmig:",         "cmig:object:sha256:00", "cmig:object:" HEX,   "cmig:volume:1",
                                      "cmig:app:",     "cmig:app:../x",         "cmig:service:app:1", "cmig:service:a ",
                                      "cmig:service:", "cmig:other:x",          "object:sha256:" HEX, "CMIG:app:a"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        assert_false(parse(odd[i], &view));
    assert_false(view_parse("cmig:app:a\0b", 12, &view));
    assert_true(view_is_meant("cmig:x", 6));
    assert_false(view_is_meant("cmig", 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_view__names),
        cmocka_unit_test(test_view__is_strict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
