#include "tests/unit/api/fixture.h"

#define END "Host: localhost\r\nConnection: close\r\n\r\n"

static char text[65536];

static void assert_error(int status, int want_status, const char *code)
{
    if (status != want_status || !strstr(text, code))
        fail_msg("expected %d with %s, got %d: %.300s", want_status, code, status, text);
}

static void test_http__answers_json(void **state)
{
    int status = raw_request(*state, "GET /v1/status HTTP/1.1\r\n" END, text, sizeof text);
    assert_int_equal(status, 200);
    assert_non_null(strstr(text, "Content-Type: application/json"));
    assert_non_null(strstr(text, "{\"node\":\"n1\"}"));
}

static void test_http__takes_a_request_byte_by_byte(void **state)
{
    struct fixture *f = *state;
    const char *request = "POST /v1/containers HTTP/1.1\r\nContent-Length: 9\r\n" END "{\"a\": 12}";
    int fd = raw_connect(f->path);
    for (const char *at = request; *at; at++)
        assert_int_equal(send(fd, at, 1, MSG_NOSIGNAL), 1);
    assert_int_equal(raw_status(fd, text, sizeof text), 201);
    assert_non_null(strstr(text, "{\"a\":12}"));
    close(fd);
}

static void test_http__serves_several_requests_on_one_connection(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f->path);
    raw_send(fd, "GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
                 "POST /v1/containers HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
                 "GET /v1/containers/last HTTP/1.1\r\n" END);
    assert_int_equal(raw_status(fd, text, sizeof text), 200);
    assert_non_null(strstr(text, "201 Created"));
    assert_non_null(strstr(text, "\"last\""));
    close(fd);
}

static void test_http__answers_a_client_that_has_finished_sending(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f->path);
    raw_send(fd, "POST /v1/containers HTTP/1.1\r\nContent-Length: 2\r\n" END "{}");
    shutdown(fd, SHUT_WR);
    assert_int_equal(raw_status(fd, text, sizeof text), 201);
    close(fd);
}

static void test_http__decodes_names_and_queries(void **state)
{
    int status = raw_request(*state, "GET /v1/containers/a%2Fb%20c?q=1%2B+2&n=9 HTTP/1.1\r\n" END, text, sizeof text);
    assert_int_equal(status, 200);
    assert_non_null(strstr(text, "{\"name\":\"a/b c\",\"q\":\"1+ 2\",\"n\":9}"));
}

static void test_http__refuses_unknown_paths_and_methods(void **state)
{
    assert_error(raw_request(*state, "GET /v2/status HTTP/1.1\r\n" END, text, sizeof text), 404, "not-found");
    assert_error(raw_request(*state, "PATCH /v1/objects/x HTTP/1.1\r\n" END, text, sizeof text), 405, "unsupported");
    assert_non_null(strstr(text, "Allow: GET, DELETE"));
}

/* faults 93 */
static void test_http__refuses_browsers_and_proxies_before_routing(void **state)
{
    static const char *const headers[] = {"Host: evil.com", "Host: localhost\r\nOrigin: http://localhost",
                                          "Host: localhost\r\nX-Forwarded-Host: localhost", "Host: 10.0.0.1:80",
                                          "Host: localhost.evil.com"};
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        char request[256];
        snprintf(request, sizeof request, "GET /nowhere HTTP/1.1\r\n%s\r\nConnection: close\r\n\r\n", headers[i]);
        assert_error(raw_request(*state, request, text, sizeof text), 403, "denied");
    }
}

/* faults 94: the credential of this API is the right to open its socket */
static void test_http__socket_is_for_owner_and_group_only(void **state)
{
    struct fixture *f = *state;
    struct stat status;
    assert_int_equal(stat(f->path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0660);
}

/* faults 95 */
static void test_http__refuses_paths_and_numbers_out_of_bounds(void **state)
{
    assert_error(raw_request(*state, "GET /v1/containers/x?n=2147483647 HTTP/1.1\r\n" END, text, sizeof text), 400,
                 "'n' is not a whole number");
    assert_error(raw_request(*state, "GET /v1/containers/../status HTTP/1.1\r\n" END, text, sizeof text), 400,
                 "invalid");
    assert_error(raw_request(*state, "GET /v1/containers/%2e%2E HTTP/1.1\r\n" END, text, sizeof text), 400, "invalid");
    char request[8192];
    snprintf(request, sizeof request, "GET /v1/containers/%05000d HTTP/1.1\r\n" END, 1);
    assert_error(raw_request(*state, request, text, sizeof text), 414, "limit");
}

/* faults 95: ranges are not served, so no number of them costs anything */
static void test_http__ignores_ranges(void **state)
{
    char request[8192];
    size_t used = (size_t)snprintf(request, sizeof request, "GET /v1/objects/pattern-10 HTTP/1.1\r\nRange: bytes=");
    for (int i = 0; i < 1000; i++)
        used += (size_t)snprintf(request + used, sizeof request - used, "0-9,");
    snprintf(request + used, sizeof request - used, "0-9\r\n" END);
    assert_int_equal(raw_request(*state, request, text, sizeof text), 200);
    assert_non_null(strstr(text, "Content-Length: 10\r\n"));
}

/* faults 98 */
static void test_http__refuses_bodies_without_one_length(void **state)
{
    static const char *const framings[] = {
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Content-Length: 2\r\nContent-Length: 2",
        "Content-Length:",
        "Transfer-Encoding: xchunked",
        "Content-Length: +2",
        "Content-Length: 99999999999999999999",
    };
    for (size_t i = 0; i < sizeof framings / sizeof framings[0]; i++) {
        char request[256];
        snprintf(request, sizeof request, "POST /v1/containers HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n{}",
                 framings[i]);
        int status = raw_request(*state, request, text, sizeof text); /* returns: the connection was closed */
        if (status != 400 && status != 413)
            fail_msg("%s: %d %.200s", framings[i], status, text);
    }
}

/* faults 98 */
static void test_http__refuses_a_header_of_a_megabyte(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f->path);
    raw_send(fd, "GET /v1/status HTTP/1.1\r\nX: ");
    static char filler[65536];
    memset(filler, 'x', sizeof filler);
    for (int i = 0; i < 16; i++) {
        if (send(fd, filler, sizeof filler, MSG_NOSIGNAL) < 0)
            break;
    }
    int status = raw_status(fd, text, sizeof text);
    assert_true(status == 431 || status == 413 || status == -1);
    close(fd);
    assert_int_equal(raw_request(f, "GET /v1/status HTTP/1.1\r\n" END, text, sizeof text), 200);
}

static void test_http__refuses_malformed_json(void **state)
{
    static const char *const bodies[] = {"{", "[]", "{\"a\":1,\"a\":2}", "{} {}", "\"x\"", "nul"};
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        char request[256];
        snprintf(request, sizeof request, "POST /v1/containers HTTP/1.1\r\nContent-Length: %zu\r\n" END "%s",
                 strlen(bodies[i]), bodies[i]);
        assert_error(raw_request(*state, request, text, sizeof text), 400, "invalid");
    }
}

static void test_http__takes_no_body_as_an_empty_object(void **state)
{
    assert_int_equal(raw_request(*state, "POST /v1/containers HTTP/1.1\r\n" END, text, sizeof text), 201);
    assert_non_null(strstr(text, "\r\n\r\n{}"));
}

static void test_http__refuses_a_body_where_none_belongs(void **state)
{
    assert_error(raw_request(*state, "GET /v1/status HTTP/1.1\r\nContent-Length: 2\r\n" END "{}", text, sizeof text),
                 400, "takes no body");
}

static void test_http__refuses_long_json_by_its_length(void **state)
{
    char request[256];
    snprintf(request, sizeof request,
             "POST /v1/containers HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %u\r\n" END,
             LIMIT_API_BODY_BYTES + 1);
    assert_error(raw_request(*state, request, text, sizeof text), 413, "limit");
}

static void test_http__refuses_long_json_that_came_in_chunks(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f->path);
    raw_send(fd, "POST /v1/containers HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END);
    static char chunk[65536 + 1];
    memset(chunk, ' ', 65536);
    for (unsigned sent = 0; sent <= LIMIT_API_BODY_BYTES; sent += 65536) {
        raw_send(fd, "10000\r\n");
        raw_send(fd, chunk);
        raw_send(fd, "\r\n");
    }
    raw_send(fd, "0\r\n\r\n");
    assert_error(raw_status(fd, text, sizeof text), 413, "limit");
    close(fd);
}

static void test_http__takes_json_or_a_stream_by_content_type(void **state)
{
    int status = raw_request(*state,
                             "POST /v1/images HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 13\r\n" END
                             "{\"path\":\"/x\"}",
                             text, sizeof text);
    assert_int_equal(status, 201);
    assert_non_null(strstr(text, "{\"path\":\"/x\"}"));
    status = raw_request(*state, "POST /v1/images HTTP/1.1\r\nContent-Length: 3\r\n" END "tar", text, sizeof text);
    assert_int_equal(status, 200);
    assert_non_null(strstr(text, "\"size_bytes\":3"));
}

static void test_http__serves_part_of_a_file(void **state)
{
    assert_int_equal(raw_request(*state, "GET /v1/objects/file HTTP/1.1\r\n" END, text, sizeof text), 200);
    assert_non_null(strstr(text, "\r\n\r\n234567"));
}

static void test_http__tells_a_handler_that_its_client_went(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f->path);
    raw_send(fd, "POST /v1/containers/c/stop HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_true(await(&f->started));
    close(fd);
    assert_true(await(&f->closed));
}

static void test_http__tells_a_stream_that_its_client_went(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f->path);
    raw_send(fd, "GET /v1/containers/c/logs HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_true(await(&f->started));
    assert_true(recv(fd, text, sizeof text, 0) > 0);
    close(fd);
    assert_true(await(&f->closed));
}

static void test_http__tells_an_upload_that_its_client_went(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f->path);
    raw_send(fd, "POST /v1/objects?kind=hang HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n0123456789");
    assert_true(await(&f->started));
    close(fd);
    assert_true(await(&f->closed));
    /* and one that breaks off while more is wanted */
    fd = raw_connect(f->path);
    raw_send(fd, "POST /v1/objects?kind=open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n0123456789");
    assert_true(await(&f->started));
    close(fd);
    assert_true(await(&f->closed));
}

static void test_http__bounds_the_queue_of_a_slow_client(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f->path);
    raw_send(fd, "POST /v1/objects/flood/fetch HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_true(recv(fd, text, 1, 0) == 1); /* flood_more asserts the bound itself */
    assert_int_equal(atomic_load(&f->limits), 1);
    close(fd);
    assert_true(await(&f->closed));
}

static void test_http__drops_progress_that_a_slow_client_does_not_read(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f->path);
    raw_send(fd, "POST /v1/objects/count-100000/fetch HTTP/1.1\r\n" END);
    size_t total = 0, kept = 0;
    ssize_t got;
    while ((got = recv(fd, text + kept, sizeof text - 1 - kept, 0)) > 0) {
        total += (size_t)got;
        kept += (size_t)got;
        if (kept > sizeof text / 2) { /* the end is what matters */
            memmove(text, text + kept - 64, 64);
            kept = 64;
        }
    }
    text[kept] = '\0';
    assert_true(total > 100000 && total < LIMIT_API_STREAM_BYTES);
    assert_non_null(strstr(text, "{\"event\":\"result\"}\n"));
    assert_string_equal(text + kept - 5, "0\r\n\r\n"); /* the last chunk of all */
    close(fd);
}

/* faults 24: armed at accept, and not put off by single bytes */
static void test_http__cuts_clients_that_do_not_finish_their_request(void **state)
{
    struct fixture *f = *state;
    int silent = raw_connect(f->path);
    int slow = raw_connect(f->path);
    raw_send(slow, "GET /v1/status HTTP/1.1\r\nX: ");
    struct pollfd state_of_silent = {.fd = silent, .events = POLLIN};
    int64_t waited_ms = 0;
    while (poll(&state_of_silent, 1, 100) == 0 && waited_ms < 10000) {
        send(slow, "x", 1, MSG_NOSIGNAL);
        waited_ms += 100;
    }
    assert_true(waited_ms >= REQUEST_MS - 200 && waited_ms < 10000);
    assert_int_equal(raw_status(silent, text, sizeof text), -1);
    raw_status(slow, text, sizeof text); /* returns: closed */
    close(silent);
    close(slow);
}

static void test_http__answers_connections_past_the_cap_with_busy(void **state)
{
    struct fixture *f = *state;
    int fds[LIMIT_API_CONNECTIONS];
    for (int i = 0; i < LIMIT_API_CONNECTIONS; i++)
        fds[i] = raw_connect(f->path);
    assert_error(raw_request(f, "GET /v1/status HTTP/1.1\r\n" END, text, sizeof text), 503, "busy");
    for (int i = 0; i < LIMIT_API_CONNECTIONS; i++)
        close(fds[i]);
    int status = 503;
    for (int tries = 0; tries < 1000 && status == 503; tries++) /* until the server has seen them go */
        status = raw_request(f, "GET /v1/status HTTP/1.1\r\n" END, text, sizeof text);
    assert_int_equal(status, 200);
}

static void test_http__ends_open_requests_when_freed(void **state)
{
    struct fixture *f = *state;
    int hanging = raw_connect(f->path), following = raw_connect(f->path), uploading = raw_connect(f->path);
    raw_send(hanging, "POST /v1/containers/c/stop HTTP/1.1\r\nHost: localhost\r\n\r\n");
    raw_send(following, "GET /v1/containers/c/logs HTTP/1.1\r\nHost: localhost\r\n\r\n");
    raw_send(uploading, "POST /v1/objects?kind=hang HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n0123");
    for (int i = 0; i < 3; i++)
        assert_true(await(&f->started));
    fixture_stop(f);
    for (int i = 0; i < 3; i++)
        assert_true(await(&f->closed));
    assert_int_equal(raw_status(hanging, text, sizeof text), -1);
    assert_false(file_exists(f->path));
    close(hanging);
    close(following);
    close(uploading);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    crypto_init(NULL);
    const struct CMUnitTest tests[] = {
        TEST(test_http__answers_json),
        TEST(test_http__takes_a_request_byte_by_byte),
        TEST(test_http__serves_several_requests_on_one_connection),
        TEST(test_http__answers_a_client_that_has_finished_sending),
        TEST(test_http__decodes_names_and_queries),
        TEST(test_http__refuses_unknown_paths_and_methods),
        TEST(test_http__refuses_browsers_and_proxies_before_routing),
        TEST(test_http__socket_is_for_owner_and_group_only),
        TEST(test_http__refuses_paths_and_numbers_out_of_bounds),
        TEST(test_http__ignores_ranges),
        TEST(test_http__refuses_bodies_without_one_length),
        TEST(test_http__refuses_a_header_of_a_megabyte),
        TEST(test_http__refuses_malformed_json),
        TEST(test_http__takes_no_body_as_an_empty_object),
        TEST(test_http__refuses_a_body_where_none_belongs),
        TEST(test_http__refuses_long_json_by_its_length),
        TEST(test_http__refuses_long_json_that_came_in_chunks),
        TEST(test_http__takes_json_or_a_stream_by_content_type),
        TEST(test_http__serves_part_of_a_file),
        TEST(test_http__tells_a_handler_that_its_client_went),
        TEST(test_http__tells_a_stream_that_its_client_went),
        TEST(test_http__tells_an_upload_that_its_client_went),
        TEST(test_http__bounds_the_queue_of_a_slow_client),
        TEST(test_http__drops_progress_that_a_slow_client_does_not_read),
        TEST(test_http__cuts_clients_that_do_not_finish_their_request),
        TEST(test_http__answers_connections_past_the_cap_with_busy),
        TEST(test_http__ends_open_requests_when_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
