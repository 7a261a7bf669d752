#include "tests/unit/api/fixture.h"

#include <fcntl.h>
#include <sys/mman.h>

static void assert_code(const struct err *err, int got, int want)
{
    if (got != want)
        fail_msg("expected %s, got %d (%s)", err_name(want), got, err->text);
}

static void test_client__calls_with_json_both_ways(void **state)
{
    struct fixture *f = *state;
    OWNED(owned_json) json_t *body = json_pack("{s:s, s:[i, i]}", "image", "app:1", "list", 1, 2);
    OWNED(owned_json) json_t *reply = NULL;
    struct api_call call = {.route = API_ROUTE_container_run, .body = body};
    assert_code(&f->err, api_client_call(f->client, &call, &reply, &f->err), 0);
    assert_true(json_equal(reply, body));
}

static void test_client__encodes_any_name(void **state)
{
    struct fixture *f = *state;
    OWNED(owned_json) json_t *reply = NULL;
    struct api_call call = {.route = API_ROUTE_container_get, .name = "a/b?c#d %41\xc3\xa9", .query = "q=%26"};
    assert_code(&f->err, api_client_call(f->client, &call, &reply, &f->err), 0);
    assert_string_equal(api_json_text(reply, "name"), "a/b?c#d %41\xc3\xa9");
    assert_string_equal(api_json_text(reply, "q"), "&");
}

static void test_client__brings_the_daemon_s_errors(void **state)
{
    struct fixture *f = *state;
    struct api_call call = {.route = API_ROUTE_volume_list};
    assert_code(&f->err, api_client_call(f->client, &call, NULL, &f->err), ERR_UNSUPPORTED);
    assert_string_equal(f->err.text, "not in this fixture");
    const json_t *error = json_object_get(api_client_error(f->client), "error");
    assert_string_equal(api_json_text(error, "code"), "unsupported");
    assert_string_equal(api_json_text(error, "remedy"), "use another");
    /* and forgets them */
    call = (struct api_call){.route = API_ROUTE_status};
    assert_code(&f->err, api_client_call(f->client, &call, NULL, &f->err), 0);
    assert_null(api_client_error(f->client));
}

static void test_client__says_what_to_do_when_nobody_answers(void **state)
{
    (void)state;
    struct err err;
    OWNED(owned_api_client) struct api_client *client = NULL;
    assert_int_equal(api_client_new("/tmp/no-such/node.sock", &client, &err), 0);
    assert_code(&err, api_client_call(client, &(struct api_call){.route = API_ROUTE_status}, NULL, &err),
                ERR_UNAVAILABLE);
    assert_string_equal(err.text, "no cmig-node answers at /tmp/no-such/node.sock: start it with 'cmig-node start', or "
                                  "give --socket");
}

/* ---- uploads ---- */

static int pattern_file(size_t len, struct id *ret_digest)
{
    int fd = memfd_create("pattern", MFD_CLOEXEC);
    uint8_t *data = malloc(len + 1);
    for (size_t i = 0; i < len; i++)
        data[i] = PATTERN(i);
    assert_int_equal(write(fd, data, len), len);
    crypto_sha256(data, len, ret_digest);
    free(data);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static void note_progress(void *ctx, uint64_t done, uint64_t total)
{
    (void)total;
    *(uint64_t *)ctx = done;
}

static void assert_uploads(struct fixture *f, size_t len, int64_t declared)
{
    struct id digest;
    char text[DIGEST_TEXT_SIZE];
    uint64_t progress = 0;
    OWNED(owned_fd) int fd = pattern_file(len, &digest);
    OWNED(owned_json) json_t *reply = NULL;
    struct api_call call = {.route = API_ROUTE_object_put};
    assert_code(&f->err, api_client_upload(f->client, &call, fd, declared, note_progress, &progress, &reply, &f->err),
                0);
    assert_int_equal(api_json_number(reply, "size_bytes"), len);
    assert_string_equal(api_json_text(reply, "digest"), digest_text(&digest, text));
    assert_true(len == 0 || progress > 0);
}

static void test_client__uploads_with_and_without_a_length(void **state)
{
    static const size_t lengths[] = {0, 1, 2, 3, 7, 15, 4096, 65536, 5000000};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        assert_uploads(*state, lengths[i], (int64_t)lengths[i]);
        assert_uploads(*state, lengths[i], -1);
    }
    struct fixture *f = *state;
    assert_true(atomic_load(&f->resumed) > 0); /* the handler did pause */
}

static void test_client__hears_why_an_upload_was_refused(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *query;
        int code;
    } cases[] = {{"kind=deny", ERR_DENIED}, {"kind=refuse", ERR_NOSPACE}};
    for (size_t i = 0; i < 4; i++) {
        struct id digest;
        OWNED(owned_fd) int fd = pattern_file(i < 2 ? 500000 : 5000000, &digest);
        struct api_call call = {.route = API_ROUTE_object_put, .query = cases[i % 2].query};
        int code = api_client_upload(f->client, &call, fd, i < 2 ? 500000 : -1, NULL, NULL, NULL, &f->err);
        assert_code(&f->err, code, cases[i % 2].code);
    }
}

/* ---- downloads ---- */

struct sink {
    uint64_t bytes, total;
    bool wrong;
    uint64_t fail_at;
};

static int check_pattern(void *ctx, const void *data, size_t len, uint64_t total, struct err *err)
{
    struct sink *sink = ctx;
    for (size_t i = 0; i < len; i++)
        sink->wrong = sink->wrong || ((const uint8_t *)data)[i] != PATTERN(sink->bytes + i);
    sink->bytes += len;
    sink->total = total;
    return sink->bytes >= sink->fail_at ? err_set(err, ERR_NOSPACE, "enough") : 0;
}

static int download(struct fixture *f, const char *digest, struct sink *sink)
{
    *sink = (struct sink){.fail_at = sink->fail_at ? sink->fail_at : UINT64_MAX};
    struct api_call call = {.route = API_ROUTE_object_get, .name = digest};
    return api_client_download(f->client, &call, check_pattern, sink, &f->err);
}

static void test_client__downloads_with_and_without_a_length(void **state)
{
    struct fixture *f = *state;
    static const char *const digests[] = {"pattern-0", "pattern-1", "pattern-65536", "pattern-3000000",
                                          "open-0",    "open-1",    "open-3000000"};
    struct sink sink = {0};
    for (size_t i = 0; i < sizeof digests / sizeof digests[0]; i++) {
        assert_code(&f->err, download(f, digests[i], &sink), 0);
        assert_int_equal(sink.bytes, strtoull(strchr(digests[i], '-') + 1, NULL, 10));
        assert_false(sink.wrong);
        assert_int_equal(sink.total, digests[i][0] == 'o' ? 0 : sink.bytes);
        assert_true(await(&f->done));
    }
}

static void test_client__notices_a_download_cut_short(void **state)
{
    struct fixture *f = *state;
    struct sink sink = {0};
    assert_code(&f->err, download(f, "cut", &sink), ERR_CLOSED);
    assert_true(await(&f->done));
}

static void test_client__ends_a_download_that_its_caller_cannot_take(void **state)
{
    struct fixture *f = *state;
    struct sink sink = {.fail_at = 100000};
    assert_code(&f->err, download(f, "pattern-100000000", &sink), ERR_NOSPACE);
    assert_true(await(&f->done)); /* the daemon's side was told */
}

static void test_client__gives_no_bytes_of_an_error(void **state)
{
    struct fixture *f = *state;
    struct sink sink = {0};
    assert_code(&f->err, download(f, "none", &sink), ERR_NOTFOUND);
    assert_int_equal(sink.bytes, 0);
}

/* ---- events ---- */

struct seen {
    uint64_t progress, results, events, next;
};

static int count_event(void *ctx, const json_t *event, struct err *err)
{
    (void)err;
    struct seen *seen = ctx;
    const char *name = api_json_text(event, "event");
    seen->events++;
    seen->results += strcmp(name, API_EVENT_RESULT) == 0;
    if (strcmp(name, API_EVENT_PROGRESS) == 0) {
        assert_true(api_json_number(event, "done_bytes") >= seen->next); /* in order */
        seen->next = api_json_number(event, "done_bytes") + 1;
        seen->progress++;
    }
    return 0;
}

static int fetch(struct fixture *f, const char *how, struct seen *seen)
{
    *seen = (struct seen){0};
    struct api_call call = {.route = API_ROUTE_object_fetch, .name = how};
    return api_client_events(f->client, &call, API_EVENT_RESULT, count_event, seen, &f->err);
}

static void test_client__gives_every_event_in_order(void **state)
{
    struct fixture *f = *state;
    struct seen seen;
    assert_code(&f->err, fetch(f, "count-3000", &seen), 0);
    assert_int_equal(seen.progress, 3000);
    assert_int_equal(seen.results, 1);
}

static void test_client__turns_the_error_event_into_an_error(void **state)
{
    struct fixture *f = *state;
    struct seen seen;
    assert_code(&f->err, fetch(f, "fail", &seen), ERR_UNAVAILABLE);
    assert_int_equal(seen.progress, 2);
    assert_string_equal(f->err.text, "no provider of 'fail'");
    assert_non_null(json_object_get(api_client_error(f->client), "error"));
}

static void test_client__takes_no_stream_without_its_last_event(void **state)
{
    struct fixture *f = *state;
    struct seen seen;
    assert_code(&f->err, fetch(f, "cut", &seen), ERR_CLOSED);
    assert_code(&f->err, fetch(f, "silent", &seen), ERR_CLOSED);
}

static void test_client__gets_all_of_a_stream_larger_than_its_queue(void **state)
{
    struct fixture *f = *state;
    struct seen seen;
    assert_code(&f->err, fetch(f, "flood", &seen), 0);
    assert_int_equal(seen.events, FLOOD_BYTES / 1024 + 1);
    assert_true(atomic_load(&f->limits) > 0);
}

static bool after_start(void *ctx)
{
    struct fixture *f = ctx;
    return sem_trywait(&f->started) == 0;
}

static void test_client__cancels_by_leaving(void **state)
{
    struct fixture *f = *state;
    api_client_set_cancel(f->client, after_start, f);
    struct api_call call = {.route = API_ROUTE_container_stop, .name = "c"};
    assert_code(&f->err, api_client_call(f->client, &call, NULL, &f->err), ERR_CANCELLED);
    assert_true(await(&f->closed));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    crypto_init(NULL);
    const struct CMUnitTest tests[] = {
        TEST(test_client__calls_with_json_both_ways),
        TEST(test_client__encodes_any_name),
        TEST(test_client__brings_the_daemon_s_errors),
        cmocka_unit_test(test_client__says_what_to_do_when_nobody_answers),
        TEST(test_client__uploads_with_and_without_a_length),
        TEST(test_client__hears_why_an_upload_was_refused),
        TEST(test_client__downloads_with_and_without_a_length),
        TEST(test_client__notices_a_download_cut_short),
        TEST(test_client__ends_a_download_that_its_caller_cannot_take),
        TEST(test_client__gives_no_bytes_of_an_error),
        TEST(test_client__gives_every_event_in_order),
        TEST(test_client__turns_the_error_event_into_an_error),
        TEST(test_client__takes_no_stream_without_its_last_event),
        TEST(test_client__gets_all_of_a_stream_larger_than_its_queue),
        TEST(test_client__cancels_by_leaving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
