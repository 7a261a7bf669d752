#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/runtime/spec.h"

OWNED_DEFINE(owned_json, json_t, json_decref)
OWNED_DEFINE(owned_container, struct runtime_container, runtime_container_free)

#define MANIFEST "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define GUID "8e3f7c1a-0b1d-4c55-9f00-0123456789ab"
#define SPEC                                                                                                           \
    "{\"name\":\"web-1\",\"image\":\"shop/web:1.2\",\"manifest\":\"" MANIFEST "\",\"user\":\"alice\","                 \
    "\"workdir\":\"/srv\",\"uid\":1000,\"gid\":100,\"args\":[\"/bin/web\",\"-x\",\"\"],\"env\":[\"A=b=c\",\"E=\"],"    \
    "\"labels\":[\"tier=front\"],\"volumes\":[{\"guid\":\"" GUID "\",\"path\":\"/data\",\"read_only\":true}]}"
#define CONTAINER                                                                                                      \
    "{\"id\":\"" GUID "\",\"spec\":" SPEC ",\"state\":\"running\",\"pid\":42,\"exit_code\":-1,\"epoch\":3,"            \
    "\"counter\":7,\"created_ms\":1000,\"started_ms\":2000}"

static json_t *parse(const char *text)
{
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    return json;
}

/* The spec above with `value` (JSON, or NULL to take it away) for `key`. */
static int try_with(const char *key, const char *value, struct err *err)
{
    OWNED(owned_json) json_t *json = parse(SPEC);
    if (value)
        json_object_set_new(json, key, json_loads(value, JSON_DECODE_ANY, NULL));
    else
        json_object_del(json, key);
    OWNED(runtime_spec_release) struct runtime_spec spec = {0};
    return runtime_spec_from_json(json, &spec, err);
}

static int try_string(const char *key, const char *text)
{
    OWNED(owned_json) json_t *json = parse(SPEC);
    json_object_set_new(json, key, json_string(text));
    OWNED(runtime_spec_release) struct runtime_spec spec = {0};
    return runtime_spec_from_json(json, &spec, NULL);
}

static int try_volume(const char *guid, const char *path)
{
    OWNED(owned_json) json_t *json = parse(SPEC);
    json_object_set_new(json, "volumes", json_pack("[{s:s, s:s}]", "guid", guid, "path", path));
    OWNED(runtime_spec_release) struct runtime_spec spec = {0};
    return runtime_spec_from_json(json, &spec, NULL);
}

static void test_spec__json_and_back_is_the_same(void **state)
{
    (void)state;
    OWNED(owned_json) json_t *json = parse(SPEC);
    OWNED(runtime_spec_release) struct runtime_spec spec = {0};
    struct err err;
    assert_int_equal(runtime_spec_from_json(json, &spec, &err), 0);
    assert_string_equal(spec.name, "web-1");
    assert_int_equal(spec.uid, 1000);
    assert_int_equal(spec.args.count, 3);
    assert_string_equal(spec.args.items[2], "");
    assert_true(spec.volumes[0].read_only);
    OWNED(owned_json) json_t *back = runtime_spec_to_json(&spec);
    assert_true(json_equal(json, back));

    OWNED(runtime_spec_release) struct runtime_spec copy = {0};
    assert_int_equal(runtime_spec_copy(&spec, &copy, &err), 0);
    OWNED(owned_json) json_t *copied = runtime_spec_to_json(&copy);
    assert_true(json_equal(json, copied));
}

static void test_spec__container_json_and_back_is_the_same(void **state)
{
    (void)state;
    OWNED(owned_json) json_t *json = parse(CONTAINER);
    OWNED(owned_container) struct runtime_container *container = NULL;
    struct err err;
    assert_int_equal(runtime_container_from_json(json, &container, &err), 0);
    assert_int_equal(container->state, RUNTIME_RUNNING);
    assert_int_equal(container->exit_code, -1);
    assert_int_equal(container->epoch, 3);
    OWNED(owned_json) json_t *back = runtime_container_to_json(container);
    assert_true(json_equal(json, back));
}

static void test_spec__containers_are_whole(void **state)
{
    (void)state;
    static const char *const needed[] = {"id", "spec", "state"};
    static const char *const needed_of_spec[] = {"manifest", "args", "workdir"};
    for (size_t i = 0; i < 6; i++) {
        OWNED(owned_json) json_t *json = parse(CONTAINER);
        OWNED(owned_container) struct runtime_container *container = NULL;
        if (i < 3)
            json_object_del(json, needed[i]);
        else
            json_object_del(json_object_get(json, "spec"), needed_of_spec[i - 3]);
        assert_int_equal(runtime_container_from_json(json, &container, NULL), ERR_INVALID);
    }
    static const char *const wrong[] = {"{\"state\":\"flying\"}", "{\"epoch\":-1}",    "{\"exit_code\":-2}",
                                        "{\"exit_code\":256}",    "{\"pid\":4194305}", "{\"more\":1}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        OWNED(owned_json) json_t *json = parse(CONTAINER);
        OWNED(owned_json) json_t *change = parse(wrong[i]);
        OWNED(owned_container) struct runtime_container *container = NULL;
        json_object_update(json, change);
        assert_int_equal(runtime_container_from_json(json, &container, NULL), ERR_INVALID);
    }
}

static void test_spec__alone_it_needs_name_and_image(void **state)
{
    (void)state;
    OWNED(owned_json) json_t *json = parse("{\"name\":\"a\",\"image\":\"b\"}");
    OWNED(runtime_spec_release) struct runtime_spec spec = {0};
    assert_int_equal(runtime_spec_from_json(json, &spec, NULL), 0);
    assert_int_equal(try_with("name", NULL, NULL), ERR_INVALID);
    assert_int_equal(try_with("image", NULL, NULL), ERR_INVALID);
}

static void test_spec__wrong_types_and_unknown_keys_are_refused(void **state)
{
    (void)state;
    struct err err = {0};
    static const char *const keys[] = {"name", "image", "manifest", "workdir", "uid", "args", "env", "volumes"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        assert_int_equal(try_with(keys[i], "{}", &err), ERR_INVALID);
        assert_int_equal(try_with(keys[i], "null", &err), ERR_INVALID);
    }
    assert_int_equal(try_with("args", "[1]", &err), ERR_INVALID);
    assert_int_equal(try_with("volumes", "[1]", &err), ERR_INVALID);
    assert_int_equal(try_with("uid", "-1", &err), ERR_INVALID);
    assert_int_equal(try_with("uid", "65536", &err), ERR_INVALID);
    assert_int_equal(try_with("hooks", "[]", &err), ERR_INVALID);
    assert_int_equal(try_with("volumes", "[{\"guid\":\"" GUID "\",\"path\":\"/d\",\"options\":[]}]", &err),
                     ERR_INVALID);
    assert_int_equal(try_with("env", "[\"=x\"]", &err), ERR_INVALID);
    assert_int_equal(try_with("labels", "[\"x\"]", &err), ERR_INVALID);
}

/* faults 47 */
static void test_spec__names_never_lead_anywhere(void **state)
{
    (void)state;
    char huge[4097];
    memset(huge, 'a', 4096);
    huge[4096] = '\0';
    const char *const bad[] = {"", "a\nb", "-oProxyCommand=x", "..", "a/../b", huge, "a b", "$(id)", ".hidden"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(try_string("name", bad[i]), ERR_INVALID);
        assert_int_equal(try_string("image", bad[i]), ERR_INVALID);
        if (bad[i][0])
            assert_int_equal(try_string("user", bad[i]), ERR_INVALID);
        assert_int_equal(try_volume(bad[i], "/data"), ERR_INVALID);
    }
    assert_null(json_string("\xff\xfe")); /* invalid UTF-8 never becomes JSON text */
    const char *const wrong_manifests[] = {"sha1:00", "sha256:../../x", "sha256:ABCDEF", MANIFEST "0"};
    for (size_t i = 0; i < sizeof wrong_manifests / sizeof *wrong_manifests; i++)
        assert_int_equal(try_string("manifest", wrong_manifests[i]), ERR_INVALID);
}

static void test_spec__paths_are_absolute_and_plain(void **state)
{
    (void)state;
    char huge[LIMIT_PATH_BYTES + 2];
    memset(huge, 'a', sizeof huge - 1);
    huge[0] = '/';
    huge[sizeof huge - 1] = '\0';
    const char *const bad[] = {"",      "data",  "/",     "/a/..",  "/../a", "/./a",        "//a", "/a/",
                               "/a//b", "/a\nb", "/proc", "/dev/x", "/sys",  "/.cmig/exec", huge};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(try_volume(GUID, bad[i]), ERR_INVALID);
    const char *const good[] = {"/data", "/a/..b/c", "/procs", "/a/.b"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(try_volume(GUID, good[i]), 0);
    assert_int_equal(try_string("workdir", "../etc"), ERR_INVALID);
    assert_int_equal(try_string("workdir", "/"), 0);
    /* one volume twice, one path twice */
    assert_int_equal(
        try_with("volumes", "[{\"guid\":\"" GUID "\",\"path\":\"/a\"},{\"guid\":\"" GUID "\",\"path\":\"/b\"}]", NULL),
        ERR_INVALID);
}

static void test_spec__counts_and_sizes_are_bounded(void **state)
{
    (void)state;
    OWNED(owned_json) json_t *json = parse(SPEC);
    json_t *args = json_array();
    for (int i = 0; i < RUNTIME_MAX_STRINGS + 1; i++)
        json_array_append_new(args, json_string("x"));
    json_object_set_new(json, "args", args);
    OWNED(runtime_spec_release) struct runtime_spec spec = {0};
    assert_int_equal(runtime_spec_from_json(json, &spec, NULL), ERR_INVALID);
    json_array_remove(args, 0);
    assert_int_equal(runtime_spec_from_json(json, &spec, NULL), 0);

    OWNED(owned_free) char *large = malloc(LIMIT_RUNTIME_SPEC_BYTES + 1);
    memset(large, 'x', LIMIT_RUNTIME_SPEC_BYTES);
    large[LIMIT_RUNTIME_SPEC_BYTES] = '\0';
    json_object_set_new(json, "args", json_pack("[s]", large));
    OWNED(runtime_spec_release) struct runtime_spec other = {0};
    assert_int_equal(runtime_spec_from_json(json, &other, NULL), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spec__json_and_back_is_the_same),
        cmocka_unit_test(test_spec__container_json_and_back_is_the_same),
        cmocka_unit_test(test_spec__containers_are_whole),
        cmocka_unit_test(test_spec__alone_it_needs_name_and_image),
        cmocka_unit_test(test_spec__wrong_types_and_unknown_keys_are_refused),
        cmocka_unit_test(test_spec__names_never_lead_anywhere),
        cmocka_unit_test(test_spec__paths_are_absolute_and_plain),
        cmocka_unit_test(test_spec__counts_and_sizes_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
