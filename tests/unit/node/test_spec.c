#include "node/spec.h"

#include <string.h>

#include "node/api/json.h"
#include "node/api/protocol.h"
#include "tests/test.h"

#define GUID_A "6f1c0d5e-0000-4000-8000-000000000001"

static int build(const char *text, struct runtime_spec *ret_spec, struct err *err)
{
    OWNED(owned_json) json_t *body = NULL;
    assert_int_equal(api_json_parse(text, strlen(text), &body, err), 0);
    return spec_from_request(body, ret_spec, err);
}

static void test_spec__everything(void **state)
{
    (void)state;
    struct runtime_spec spec = {0};
    struct err err = {0};
    const char *body = "{\"name\": \"web\", \"image\": \"team/app:1\", \"args\": [\"sh\", \"-c\", \"echo =\"],"
                       " \"env\": {\"MODE\": \"a=b\", \"EMPTY\": \"\"}, \"labels\": {\"tier\": \"edge\"},"
                       " \"user\": \"alice\", \"as\": \"1000:50\", \"workdir\": \"/srv\","
                       " \"volumes\": [{\"guid\": \"" GUID_A "\", \"path\": \"/data\", \"mode\": \"ro\"}]}";
    assert_int_equal(build(body, &spec, &err), 0);
    assert_string_equal(spec.name, "web");
    assert_string_equal(spec.image, "team/app:1");
    assert_string_equal(spec.user, "alice");
    assert_string_equal(spec.workdir, "/srv");
    assert_int_equal(spec.uid, 1000);
    assert_int_equal(spec.gid, 50);
    assert_int_equal(spec.args.count, 3);
    assert_string_equal(spec.args.items[2], "echo =");
    assert_int_equal(spec.env.count, 2);
    assert_string_equal(spec.env.items[0], "MODE=a=b");
    assert_string_equal(spec.env.items[1], "EMPTY=");
    assert_string_equal(spec.labels.items[0], "tier=edge");
    assert_int_equal(spec.volume_count, 1);
    assert_string_equal(spec.volumes[0].path, "/data");
    assert_true(spec.volumes[0].read_only);
    runtime_spec_release(&spec);
}

static void test_spec__least(void **state)
{
    (void)state;
    struct runtime_spec spec = {0};
    struct err err = {0};
    assert_int_equal(build("{\"image\": \"reg/team/app:1\"}", &spec, &err), 0);
    assert_int_equal(strncmp(spec.name, "app-", 4), 0); /* a name was made from the image's */
    assert_int_equal(strlen(spec.name), 4 + 6);
    assert_int_equal(spec.args.count, 0);
    assert_int_equal(spec.uid, 0);
    runtime_spec_release(&spec);
    assert_int_equal(build("{\"image\": \"app\", \"as\": \"7\", \"name\": null, \"volumes\": [{\"guid\": \"" GUID_A
                           "\", \"path\": \"/d\"}]}",
                           &spec, &err),
                     0);
    assert_int_equal(spec.gid, 7);
    assert_false(spec.volumes[0].read_only);
    runtime_spec_release(&spec);
}

/* faults 47: names that would become paths or arguments are refused, and every misspelt field is an error. */
static void test_spec__refuses(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{}",
        "{\"image\": \"\"}",
        "{\"image\": 1}",
        "{\"image\": \"../../etc/passwd\"}",
        "{\"image\": \"-oProxyCommand\"}",
        "{\"image\": \"a\", \"name\": \"../x\"}",
        "{\"image\": \"a\", \"name\": \"a\\nb\"}",
        "{\"image\": \"a\", \"imgae\": \"a\"}",
        "{\"image\": \"a\", \"args\": \"sh\"}",
        "{\"image\": \"a\", \"args\": [1]}",
        "{\"image\": \"a\", \"env\": [\"A=1\"]}",
        "{\"image\": \"a\", \"env\": {\"A=B\": \"1\"}}",
        "{\"image\": \"a\", \"env\": {\"\": \"1\"}}",
        "{\"image\": \"a\", \"env\": {\"A\": 1}}",
        "{\"image\": \"a\", \"as\": \"root\"}",
        "{\"image\": \"a\", \"as\": \"1:\"}",
        "{\"image\": \"a\", \"as\": \"1:2:3\"}",
        "{\"image\": \"a\", \"as\": \"-1\"}",
        "{\"image\": \"a\", \"as\": \"4294967296\"}",
        "{\"image\": \"a\", \"as\": \"70000\"}",
        "{\"image\": \"a\", \"workdir\": \"srv\"}",
        "{\"image\": \"a\", \"user\": \"a/b\"}",
        "{\"image\": \"a\", \"volumes\": {}}",
        "{\"image\": \"a\", \"volumes\": [\"" GUID_A ":/data\"]}",
        "{\"image\": \"a\", \"volumes\": [{\"guid\": \"" GUID_A "\"}]}",
        "{\"image\": \"a\", \"volumes\": [{\"guid\": \"../x\", \"path\": \"/d\"}]}",
        "{\"image\": \"a\", \"volumes\": [{\"guid\": \"" GUID_A "\", \"path\": \"/d/../../etc\"}]}",
        "{\"image\": \"a\", \"volumes\": [{\"guid\": \"" GUID_A "\", \"path\": \"/d\", \"mode\": \"rx\"}]}",
        "{\"image\": \"a\", \"volumes\": [{\"guid\": \"" GUID_A "\", \"path\": \"/d\", \"size\": 1}]}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct runtime_spec spec = {0};
        struct err err = {0};
        if (build(bad[i], &spec, &err) != ERR_INVALID)
            fail_msg("taken: %s", bad[i]);
        assert_true(err.text[0] != '\0');
    }
}

/* What is shown of a container has all the fields that the API promises. */
static void test_spec__shows_container(void **state)
{
    (void)state;
    struct runtime_spec spec = {0};
    struct err err = {0};
    assert_int_equal(
        build("{\"name\": \"web\", \"image\": \"a\", \"labels\": {\"x\": \"1=2\"}, \"volumes\": [{\"guid\":"
              " \"" GUID_A "\", \"path\": \"/d\", \"mode\": \"ro\"}]}",
              &spec, &err),
        0);
    struct runtime_container container = {.spec = spec, .state = RUNTIME_EXITED, .exit_code = 3, .epoch = 2};
    OWNED(owned_json) json_t *json = spec_container_to_json(&container);
    assert_non_null(json);
    assert_int_equal(api_json_has(json, API_FIELDS_CONTAINER, &err), 0);
    assert_int_equal(api_json_only(json, API_FIELDS_CONTAINER, &err), 0);
    assert_string_equal(api_json_text(json, "state"), "exited");
    assert_int_equal(api_json_number(json, "exit_code"), 3);
    assert_string_equal(api_json_text(json_object_get(json, "labels"), "x"), "1=2");
    const json_t *volume = json_array_get(json_object_get(json, "volumes"), 0);
    assert_string_equal(api_json_text(volume, "guid"), GUID_A);
    assert_string_equal(api_json_text(volume, "mode"), "ro");
    runtime_spec_release(&spec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spec__everything),
        cmocka_unit_test(test_spec__least),
        cmocka_unit_test(test_spec__refuses),
        cmocka_unit_test(test_spec__shows_container),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
