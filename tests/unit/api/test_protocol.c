#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/api/protocol.h"
#include "node/base/file.h"
#include "node/base/scope.h"

static void test_protocol__makes_paths(void **state)
{
    (void)state;
    OWNED(owned_free) char *plain = api_route_path(API_ROUTE_status, NULL, NULL);
    OWNED(owned_free) char *image = api_route_path(API_ROUTE_image_export, "reg/app:1 %", NULL);
    OWNED(owned_free) char *logs = api_route_path(API_ROUTE_container_logs, "c-1", "follow=1&tail=5");
    OWNED(owned_free) char *text = api_path_encode("a-b.c_d~/\xc3\xa9+&=");
    assert_string_equal(plain, "/v1/status");
    assert_string_equal(image, "/v1/images/reg%2Fapp%3A1%20%25/export");
    assert_string_equal(logs, "/v1/containers/c-1/logs?follow=1&tail=5");
    assert_string_equal(text, "a-b.c_d~%2F%C3%A9%2B%26%3D");
}

/* docs/api.md speaks of each route as "METHOD /path" and of each field in backquotes or quotes. */
static void test_protocol__is_what_the_document_says(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf doc = BUF(1 << 20);
    assert_int_equal(file_read("../docs/api.md", &doc, NULL), 0);
    const char *text = buf_str(&doc);
    for (size_t i = 0; i < API_ROUTE_COUNT; i++) {
        char route[128];
        snprintf(route, sizeof route, "%s %s`", api_route_specs[i].method, api_route_specs[i].path);
        if (!strstr(text, route))
            fail_msg("docs/api.md has no '%s'", route);
    }
    char fields[] = API_FIELDS_ERROR
        " " API_FIELDS_STATUS " " API_FIELDS_STATUS_DHT " " API_FIELDS_STATUS_REGISTRY " " API_FIELDS_STATUS_STORE
        " " API_FIELDS_STATUS_RUNTIME " " API_FIELDS_PEER " " API_FIELDS_INVITATION " " API_FIELDS_OBJECT
        " " API_FIELDS_FETCH_PROGRESS " " API_FIELDS_FETCH_RESULT " " API_FIELDS_WHY " " API_FIELDS_CANDIDATE
        " " API_FIELDS_REGISTRY " " API_FIELDS_MEMBER " " API_FIELDS_WRITTEN " " API_FIELDS_CHANGE " " API_FIELDS_IMAGE
        " " API_FIELDS_CONTAINER " " API_FIELDS_CONTAINER_SPEC " " API_FIELDS_MIGRATE_PHASE
        " " API_FIELDS_MIGRATE_REPORT " " API_FIELDS_VOLUME;
    for (char *field = strtok(fields, " "); field; field = strtok(NULL, " ")) {
        char quoted[64];
        snprintf(quoted, sizeof quoted, "\"%s\"", field);
        if (!strstr(text, quoted))
            fail_msg("docs/api.md has no field %s", quoted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_protocol__makes_paths),
        cmocka_unit_test(test_protocol__is_what_the_document_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
