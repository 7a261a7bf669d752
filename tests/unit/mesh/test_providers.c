#include "node/mesh/providers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define HEX "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
#define GUID "6f1c0d5e-0000-4000-8000-000000000001"

static void assert_names(const char *text, enum dht_kind kind, const void *name, size_t len)
{
    struct provider_key key = {0};
    struct err err = {0};
    if (providers_parse(text, &key, &err) < 0)
        fail_msg("'%s': %s", text, err.text);
    struct id expected = dht_key(kind, name, len);
    assert_int_equal(key.kind, kind);
    assert_memory_equal(key.key.b, expected.b, ID_BYTES);
}

static void test_providers__names(void **state)
{
    (void)state;
    struct id digest;
    struct guid guid;
    assert_true(digest_parse("sha256:" HEX, &digest));
    assert_true(guid_parse(GUID, &guid));
    assert_names("sha256:" HEX, DHT_OBJECT, digest.b, ID_BYTES);
    assert_names("cmig:object:sha256:" HEX, DHT_OBJECT, digest.b, ID_BYTES);
    assert_names(GUID, DHT_VOLUME, guid.b, GUID_BYTES);
    assert_names("cmig:volume:" GUID, DHT_VOLUME, guid.b, GUID_BYTES);
    assert_names("shop:1 alice", DHT_SERVICE, "shop:1\0alice", 12);
    assert_names("cmig:service:shop:1 alice", DHT_SERVICE, "shop:1\0alice", 12);
    assert_names("shop:1", DHT_APP, "shop:1", 6);
    assert_names("app:1", DHT_APP, "app:1", 5);
    assert_names("cmig:app:app:1", DHT_APP, "app:1", 5);
    assert_names("cmig:app:reg/shop:1", DHT_APP, "reg/shop:1", 10);
    assert_names("cmig:image:shop:1", DHT_IMAGE, "shop:1", 6);
    assert_names("cmig:route:shop", DHT_ROUTE, "shop", 4);
}

static void test_providers__no_names(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "cmig:",
                                      "cmig:shop:1",
                                      "cmig:sha256:" HEX,
                                      "cmig:set:x",
                                      "sha256:" HEX "0",
                                      "sha256:x",
                                      "cmig:object:x",
                                      "cmig:object:sha256:",
                                      "cmig:object:" GUID,
                                      "cmig:volume:x",
                                      "cmig:volume:" HEX,
                                      "cmig:service:shop:1",
                                      "cmig:app:",
                                      "cmig:app:../x",
                                      "cmig:app:x y",
                                      " alice",
                                      "shop:1 ",
                                      "shop:1 ../x",
                                      "a b c",
                                      "-x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct provider_key key;
        struct err err = {0};
        if (providers_parse(bad[i], &key, &err) != ERR_INVALID)
            fail_msg("'%s' is taken for a name", bad[i]);
    }
    char endless[4096];
    struct provider_key key;
    memset(endless, 'a', sizeof endless - 1);
    endless[sizeof endless - 1] = '\0';
    assert_int_equal(providers_parse(endless, &key, NULL), ERR_INVALID);
    endless[300] = ' ';
    assert_int_equal(providers_parse(endless, &key, NULL), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_providers__names),
        cmocka_unit_test(test_providers__no_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
