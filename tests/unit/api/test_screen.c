#include "tests/test.h"

#include "node/api/screen.h"

static struct api_screen screen_of(const char *const headers[][2], size_t count)
{
    struct api_screen screen = {0};
    for (size_t i = 0; i < count; i++)
        api_screen_add(&screen, headers[i][0], headers[i][1]);
    return screen;
}
#define SCREEN(...) screen_of((const char *const[][2]){__VA_ARGS__}, sizeof((const char *[][2]){__VA_ARGS__}) / 16)

/* faults 98 */
static void test_screen__wants_one_length(void **state)
{
    (void)state;
    struct api_screen bad[] = {
        SCREEN({"Content-Length", "1"}, {"content-length", "1"}),
        SCREEN({"Content-Length", "1"}, {"Transfer-Encoding", "chunked"}),
        SCREEN({"Transfer-Encoding", "chunked"}, {"Transfer-Encoding", "chunked"}),
        SCREEN({"Transfer-Encoding", "xchunked"}),
        SCREEN({"Transfer-Encoding", "gzip, chunked"}),
        SCREEN({"Content-Length", ""}),
        SCREEN({"Content-Length", NULL}),
        SCREEN({"Content-Length", "-1"}),
        SCREEN({"Content-Length", "1,1"}),
        SCREEN({"Content-Length", "9999999999999999999"}),
        SCREEN({"", "x"}),
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (api_screen_framing(&bad[i], NULL) != ERR_INVALID)
            fail_msg("case %zu was taken", i);
    }
    struct api_screen none = {0}, counted = SCREEN({"Content-Length", "12"}),
                      chunked = SCREEN({"transfer-encoding", "Chunked"});
    assert_int_equal(api_screen_framing(&none, NULL), 0);
    assert_int_equal(api_screen_framing(&counted, NULL), 0);
    assert_int_equal(api_screen_framing(&chunked, NULL), 0);
    assert_int_equal(none.length, 0);
    assert_int_equal(counted.length, 12);
    assert_int_equal(chunked.length, -1);
}

/* faults 93 */
static void test_screen__knows_local_senders(void **state)
{
    (void)state;
    static const char *const good[] = {"localhost", "localhost:7422", "127.0.0.1", "127.0.0.1:80",
                                       "[::1]",     "[::1]:80",       "cmig",      ""};
    static const char *const bad[] = {"evil.com",   "127.0.0.1.evil.com", "10.0.0.1",  "[::2]",
                                      "localhost.", "[::1].evil.com",     "127.0.0.2", "a.b:80"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct api_screen screen = SCREEN({"Host", good[i]});
        assert_int_equal(api_screen_sender(&screen, NULL), 0);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct api_screen screen = SCREEN({"HOST", bad[i]});
        if (api_screen_sender(&screen, NULL) != ERR_DENIED)
            fail_msg("'%s' was taken", bad[i]);
    }
    struct api_screen two = SCREEN({"Host", "evil.com"}, {"Host", "localhost"});
    assert_int_equal(api_screen_sender(&two, NULL), ERR_DENIED);
    struct api_screen origin = SCREEN({"origin", "null"}), forwarded = SCREEN({"x-forwarded-for", "1.2.3.4"});
    assert_int_equal(api_screen_sender(&origin, NULL), ERR_DENIED);
    assert_int_equal(api_screen_sender(&forwarded, NULL), ERR_DENIED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_screen__wants_one_length),
        cmocka_unit_test(test_screen__knows_local_senders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
