#include "tests/test.h"

#include <string.h>

#include "node/api/route.h"

static void never(void *ctx, struct api_request *req)
{
    (void)ctx, (void)req;
}

static const struct api_route routes[] = {
    {"GET", "/v1/objects", API_BODY_NONE, never},
    {"GET", "/v1/objects/{digest}", API_BODY_NONE, never},
    {"DELETE", "/v1/objects/{digest}", API_BODY_NONE, never},
    {"PUT", "/v1/objects/{digest}/pin", API_BODY_NONE, never},
    {"GET", "/v1/a/{one}/b/{two}", API_BODY_NONE, never},
};

static char allow[API_ALLOW_SIZE];

static int resolve(const char *method, const char *raw, struct api_target *target)
{
    struct err err;
    *target = (struct api_target){0};
    int code = api_target_parse(raw, target, &err);
    return code < 0 ? code : api_target_route(target, method, routes, sizeof routes / sizeof routes[0], allow, &err);
}

static void assert_resolves(const char *method, const char *raw, int want)
{
    struct api_target target;
    int code = resolve(method, raw, &target);
    if (want < 0 ? code != want : code != 0 || target.route != &routes[want])
        fail_msg("%s %s: %d", method, raw, code);
    api_target_release(&target);
}

static void test_route__finds_the_route_of_a_path(void **state)
{
    (void)state;
    assert_resolves("GET", "/v1/objects", 0);
    assert_resolves("GET", "/v1/objects?x=1", 0);
    assert_resolves("GET", "/v1/objects/pin", 1);
    assert_resolves("DELETE", "/v1/objects/sha256:00", 2);
    assert_resolves("PUT", "/v1/objects/x/pin", 3);
    assert_resolves("GET", "/v1/objects/x/pins", ERR_NOTFOUND);
    assert_resolves("GET", "/v1", ERR_NOTFOUND);
    assert_resolves("GET", "/v1/object", ERR_NOTFOUND);
    assert_resolves("get", "/v1/objects", ERR_UNSUPPORTED);
}

static void test_route__names_the_methods_of_a_path(void **state)
{
    (void)state;
    assert_resolves("POST", "/v1/objects/x", ERR_UNSUPPORTED);
    assert_string_equal(allow, "GET, DELETE");
}

static void test_route__decodes_after_splitting(void **state)
{
    (void)state;
    struct api_target target;
    assert_int_equal(resolve("GET", "/v1/a/x%2Fy+z/b/%C3%A9", &target), 0);
    assert_string_equal(api_target_param(&target, "one"), "x/y+z"); /* a plus is a space in queries only */
    assert_string_equal(api_target_param(&target, "two"), "\xc3\xa9");
    assert_null(api_target_param(&target, "three"));
    assert_null(api_target_param(&target, ""));
    api_target_release(&target);
}

static void test_route__reads_queries(void **state)
{
    (void)state;
    struct api_target target;
    assert_int_equal(resolve("GET", "/v1/objects?a=1&b&&a=2&c=x%3Dy=z+%2b&%64=4", &target), 0);
    assert_string_equal(api_target_query(&target, "a"), "1");
    assert_string_equal(api_target_query(&target, "b"), "");
    assert_string_equal(api_target_query(&target, "c"), "x=y=z +");
    assert_string_equal(api_target_query(&target, "d"), "4");
    assert_null(api_target_query(&target, "e"));
    api_target_release(&target);
}

/* faults 95 */
static void test_route__refuses_targets_that_lead_astray(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "v1/objects",
                                      "*",
                                      "http://evil.com/v1/objects",
                                      "/v1//objects",
                                      "/v1/objects/",
                                      "/v1/objects/../status",
                                      "/v1/objects/%2e%2e",
                                      "/v1/objects/.",
                                      "/v1/objects/%",
                                      "/v1/objects/%4",
                                      "/v1/objects/%zz",
                                      "/v1/objects/%00",
                                      "/v1/objects/a%00b",
                                      "/v1/objects?a=%00",
                                      "/v1/objects?%=1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_resolves("GET", bad[i], ERR_INVALID);
}

static void test_route__bounds_what_it_takes_apart(void **state)
{
    (void)state;
    char raw[LIMIT_API_TARGET_BYTES + 2];
    memset(raw, 'a', sizeof raw - 1);
    raw[sizeof raw - 1] = '\0';
    raw[0] = '/';
    assert_resolves("GET", raw, ERR_LIMIT);
    raw[sizeof raw - 2] = '\0';
    assert_resolves("GET", raw, ERR_NOTFOUND);
    assert_resolves("GET", "/1/2/3/4/5/6/7/8", ERR_NOTFOUND);
    assert_resolves("GET", "/1/2/3/4/5/6/7/8/9", ERR_LIMIT);
    assert_resolves("GET", "/v1/objects?1&2&3&4&5&6&7&8&9&10&11&12&13&14&15&16", 0);
    assert_resolves("GET", "/v1/objects?1&2&3&4&5&6&7&8&9&10&11&12&13&14&15&16&17", ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route__finds_the_route_of_a_path),
        cmocka_unit_test(test_route__names_the_methods_of_a_path),
        cmocka_unit_test(test_route__decodes_after_splitting),
        cmocka_unit_test(test_route__reads_queries),
        cmocka_unit_test(test_route__refuses_targets_that_lead_astray),
        cmocka_unit_test(test_route__bounds_what_it_takes_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
