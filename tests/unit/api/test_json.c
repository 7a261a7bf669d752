#include "tests/test.h"

#include <string.h>

#include "node/api/json.h"
#include "node/base/limits.h"

static json_t *parse(const char *text)
{
    struct err err;
    json_t *object = NULL;
    if (api_json_parse(text, strlen(text), &object, &err) < 0)
        return NULL;
    return object;
}

static void test_json__takes_one_object_and_nothing_else(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "{",
                                      "[]",
                                      "1",
                                      "\"{}\"",
                                      "{}{}",
                                      "{} x",
                                      "{a:1}",
                                      "{'a':1}",
                                      "{\"a\":01}",
                                      "{\"a\":1,}",
                                      "//\n{}",
                                      "{\"a\":1,\"a\":1}",
                                      "{\"a\":NaN}",
                                      "{\"a\":\"\\u0000\"}",
                                      "{\"a\":\"\xff\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse(bad[i]))
            fail_msg("taken: %s", bad[i]);
    }
    OWNED(owned_json) json_t *good = parse(" {\"a\": [1, {\"b\": null}]} \n");
    assert_non_null(good);
}

static void test_json__bounds_the_depth(void **state)
{
    (void)state;
    char text[4096] = "{\"a\":";
    size_t used = strlen(text);
    for (int i = 0; i < LIMIT_JSON_DEPTH - 1; i++)
        text[used++] = '[';
    for (int i = 0; i < LIMIT_JSON_DEPTH - 1; i++)
        text[used++] = ']';
    strcpy(text + used, "}");
    OWNED(owned_json) json_t *good = parse(text);
    assert_non_null(good);
    memmove(text + 6, text + 5, strlen(text + 5) + 1);
    text[5] = '[';
    strcpy(text + strlen(text) - 1, "]}");
    assert_null(parse(text));
    /* brackets in strings are no depth, also behind an escaped quote */
    OWNED(owned_json) json_t *quoted = parse("{\"a\":\"\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"}");
    assert_non_null(quoted);
}

static void test_json__names_unknown_and_missing_fields(void **state)
{
    (void)state;
    struct err err;
    OWNED(owned_json) json_t *object = parse("{\"uses\": 1, \"tl\": 2}");
    assert_int_equal(api_json_only(object, "uses ttl_s tl", &err), 0);
    assert_int_equal(api_json_only(object, "uses ttl_s", &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "'tl'"));
    assert_int_equal(api_json_has(object, "uses tl", &err), 0);
    assert_int_equal(api_json_has(object, "uses ttl_s", &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "'ttl_s'"));
}

static void test_json__reads_typed_fields(void **state)
{
    (void)state;
    struct err err;
    OWNED(owned_json)
    json_t *object = parse("{\"s\":\"x\",\"n\":5,\"b\":true,\"l\":[\"a\"],\"m\":{\"k\":\"v\"},\"z\":null}");
    const char *text;
    uint64_t number;
    bool yes;
    const json_t *array, *map;
    assert_int_equal(api_json_get_str(object, "s", NULL, &text, &err), 0);
    assert_string_equal(text, "x");
    assert_int_equal(api_json_get_str(object, "z", "none", &text, &err), 0);
    assert_string_equal(text, "none");
    assert_int_equal(api_json_get_u64(object, "n", 1, 5, &number, &err), 0);
    assert_int_equal(number, 5);
    assert_int_equal(api_json_get_u64(object, "none", 7, 5, &number, &err), 0);
    assert_int_equal(number, 7);
    assert_int_equal(api_json_get_bool(object, "b", false, &yes, &err), 0);
    assert_true(yes);
    assert_int_equal(api_json_get_strings(object, "l", &array, &err), 0);
    assert_int_equal(json_array_size(array), 1);
    assert_int_equal(api_json_get_strings(object, "none", &array, &err), 0);
    assert_null(array);
    assert_int_equal(api_json_get_map(object, "m", &map, &err), 0);
    assert_string_equal(api_json_text(map, "k"), "v");
}

static void test_json__refuses_other_types(void **state)
{
    (void)state;
    struct err err;
    OWNED(owned_json)
    json_t *object = parse("{\"s\":\"\",\"n\":-1,\"f\":1.5,\"b\":1,\"l\":[1],\"m\":{\"k\":1},\"big\":6}");
    const char *text;
    uint64_t number;
    bool yes;
    const json_t *value;
    assert_int_equal(api_json_get_str(object, "s", NULL, &text, &err), ERR_INVALID);
    assert_int_equal(api_json_get_str(object, "n", NULL, &text, &err), ERR_INVALID);
    assert_int_equal(api_json_get_u64(object, "n", 0, 5, &number, &err), ERR_INVALID);
    assert_int_equal(api_json_get_u64(object, "f", 0, 5, &number, &err), ERR_INVALID);
    assert_int_equal(api_json_get_u64(object, "big", 0, 5, &number, &err), ERR_INVALID);
    assert_int_equal(api_json_get_bool(object, "b", false, &yes, &err), ERR_INVALID);
    assert_int_equal(api_json_get_strings(object, "l", &value, &err), ERR_INVALID);
    assert_int_equal(api_json_get_strings(object, "m", &value, &err), ERR_INVALID);
    assert_int_equal(api_json_get_map(object, "m", &value, &err), ERR_INVALID);
    assert_int_equal(api_json_get_map(object, "l", &value, &err), ERR_INVALID);
}

static void test_json__shows_what_is_there(void **state)
{
    (void)state;
    OWNED(owned_json) json_t *object = parse("{\"n\":-4,\"f\":1e30,\"r\":2.5,\"s\":\"x\"}");
    assert_int_equal(api_json_number(object, "n"), 0);
    assert_int_equal(api_json_number(object, "f"), 0);
    assert_int_equal(api_json_number(object, "r"), 2);
    assert_string_equal(api_json_text(object, "none"), "");
    assert_string_equal(api_json_text(NULL, "none"), "");
}

static void test_json__makes_errors_of_any_text(void **state)
{
    (void)state;
    struct err err;
    err_set(&err, ERR_NOTFOUND, "no object '\xff'");
    OWNED(owned_json) json_t *reply = api_json_error(&err, NULL);
    const json_t *error = json_object_get(reply, "error");
    assert_string_equal(api_json_text(error, "code"), "not-found");
    assert_string_equal(api_json_text(error, "message"), "no object '?'");
    assert_int_equal(api_json_has(error, "code message remedy", &err), 0);
    OWNED(owned_json) json_t *event = api_json_error_event(&err, NULL);
    assert_string_equal(api_json_text(event, "event"), "error");
}

static void test_json__has_a_status_for_every_code(void **state)
{
    (void)state;
#define X(code, value, name, text) assert_in_range(api_error_status(code), 400, 599);
    ERR_LIST(X)
#undef X
    assert_int_equal(api_error_status(ERR_NOTFOUND), 404);
    assert_int_equal(api_error_status(-1000), 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json__takes_one_object_and_nothing_else),
        cmocka_unit_test(test_json__bounds_the_depth),
        cmocka_unit_test(test_json__names_unknown_and_missing_fields),
        cmocka_unit_test(test_json__reads_typed_fields),
        cmocka_unit_test(test_json__refuses_other_types),
        cmocka_unit_test(test_json__shows_what_is_there),
        cmocka_unit_test(test_json__makes_errors_of_any_text),
        cmocka_unit_test(test_json__has_a_status_for_every_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
