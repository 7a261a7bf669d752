#include "node/gateway/resp.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "tests/test.h"

struct fixture {
    struct resp_reader *reader;
    struct resp_command command;
    struct err err;
};

static void begin(struct fixture *f)
{
    *f = (struct fixture){0};
    assert_int_equal(resp_reader_new(&f->reader, &f->err), 0);
}

static int feed(struct fixture *f, const char *bytes, size_t len)
{
    assert_int_equal(resp_feed(f->reader, bytes, len, &f->err), 0);
    return resp_next(f->reader, &f->command, &f->err);
}

#define FEED(f, literal) feed((f), (literal), sizeof(literal) - 1)

static void check_words(const struct fixture *f, const char *expected)
{
    char text[256] = "";
    for (size_t i = 0; i < f->command.count; i++) {
        const struct resp_arg *arg = &f->command.args[i];
        assert_int_equal(arg->data[arg->len], 0);
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%zu:%s", i ? " " : "", arg->len, arg->data);
    }
    assert_string_equal(text, expected);
}

static void test_resp__commands(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    assert_int_equal(FEED(&f, "*3\r\n$4\r\nZADD\r\n$0\r\n\r\n$5\r\na\r\nbc\r\n"), 1);
    check_words(&f, "4:ZADD 0: 5:a\r\nbc");
    assert_int_equal(FEED(&f, "PING\r\n*1\r\n$4\r\nQUIT\r\n  ECHO  \"a b\\x41\" 'c d'\n\r\n*0\r\n"), 1);
    check_words(&f, "4:PING");
    assert_int_equal(resp_next(f.reader, &f.command, &f.err), 1);
    check_words(&f, "4:QUIT");
    assert_int_equal(resp_next(f.reader, &f.command, &f.err), 1);
    check_words(&f, "4:ECHO 4:a bA 3:c d");
    assert_int_equal(resp_next(f.reader, &f.command, &f.err), 0);
    assert_false(resp_is_amid(f.reader));
    resp_reader_free(f.reader);
}

/* Cut anywhere, they are the same commands. */
static void test_resp__in_pieces(void **state)
{
    (void)state;
    static const char bytes[] = "*2\r\n$4\r\nECHO\r\n$11\r\nhello world\r\nPING x\r\n*1\r\n$4\r\nPING\r\n";
    static const size_t steps[] = {1, 2, 3, 7, 15};
    for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
        struct fixture f;
        size_t found = 0;
        begin(&f);
        for (size_t at = 0; at < sizeof bytes - 1; at += steps[s]) {
            size_t left = sizeof bytes - 1 - at;
            for (int status = feed(&f, bytes + at, left < steps[s] ? left : steps[s]); status == 1;
                 status = resp_next(f.reader, &f.command, &f.err)) {
                static const char *const expected[] = {"4:ECHO 11:hello world", "4:PING 1:x", "4:PING"};
                check_words(&f, expected[found++]);
            }
        }
        assert_int_equal(found, 3);
        resp_reader_free(f.reader);
    }
}

/* faults 91: what redis-server 7.0.15 says of the same bytes, but for "*-1", which it passes over */
static void test_resp__malformed(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *why;
    } cases[] = {
        {"*-1\r\n", "invalid multibulk length"},
        {"*2147483648\r\n", "invalid multibulk length"},
        {"*99999999999999999999\r\n", "invalid multibulk length"},
        {"*65537\r\n", "invalid multibulk length"},
        {"*x\r\n", "invalid multibulk length"},
        {"*01\r\n", "invalid multibulk length"},
        {"*1\r\n$-5\r\n", "invalid bulk length"},
        {"*1\r\n$-1\r\n", "invalid bulk length"},
        {"*1\r\n$1e9\r\n", "invalid bulk length"},
        {"*1\r\n$1000000000\r\n", "invalid bulk length"},
        {"*1\r\n$65537\r\n", "invalid bulk length"},
        {"*1\r\n*1\r\n", "expected '$', got '*'"},
        {"*1\r\n:1\r\n", "expected '$', got ':'"},
        {"*1\r\n+PING\r\n", "expected '$', got '+'"},
        {"*1\r\n-ERR\r\n", "expected '$', got '-'"},
        {"*1\r\nx\r\n", "expected '$', got 'x'"},
        {"*111111111111111111111111111111111111111", "too big mbulk count string"},
        {"*1\r\n$11111111111111111111111111111111111", "too big bulk count string"},
        {"PING \"abc\r\n", "unbalanced quotes in request"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        begin(&f);
        assert_int_equal(feed(&f, cases[i].bytes, strlen(cases[i].bytes)), ERR_PROTOCOL);
        assert_string_equal(f.err.text, cases[i].why);
        /* It stays so, whatever comes. */
        assert_int_equal(FEED(&f, "PING\r\n"), ERR_PROTOCOL);
        resp_reader_free(f.reader);
    }
}

/* faults 91 */
static void test_resp__endless(void **state)
{
    (void)state;
    struct fixture f;
    size_t len = LIMIT_RESP_INLINE_BYTES + 1;
    char *line = malloc(len);
    assert_non_null(line);
    memset(line, 'a', len);
    begin(&f);
    assert_int_equal(feed(&f, line, len), ERR_PROTOCOL);
    assert_string_equal(f.err.text, "too big inline request");
    resp_reader_free(f.reader);

    /* Many words, each allowed, that together are too much. */
    begin(&f);
    int status = FEED(&f, "*1000\r\n");
    for (int i = 0; i < 1000 && status == 0; i++) {
        assert_int_equal(resp_feed(f.reader, "$65536\r\n", 8, &f.err), 0);
        assert_int_equal(resp_feed(f.reader, line, 65536, &f.err), 0);
        status = FEED(&f, "\r\n");
        assert_true(i <= (int)(LIMIT_RESP_COMMAND_BYTES / 65536));
    }
    assert_int_equal(status, ERR_PROTOCOL);
    resp_reader_free(f.reader);
    free(line);
}

/* faults 90 */
static void test_resp__other_protocols(void **state)
{
    (void)state;
    static const char *const first[] = {"POST / HTTP/1.1\r\n",   "GET / HTTP/1.1\r\n",     "GET /x",
                                        "HEAD / HTTP/1.0\r\n",   "Host: evil.example\r\n", "OPTIONS * HTTP/1.1\r\n",
                                        "x y HTTP/1.1\r\n",      "PRI * HTTP/2.0\r\n",     "\x16\x03\x01\x02\x40\x01",
                                        "delete /a HTTP/1.1\r\n"};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
        struct fixture f;
        begin(&f);
        assert_int_equal(feed(&f, first[i], strlen(first[i])), ERR_DENIED);
        resp_reader_free(f.reader);
    }
    /* Not at all like that. */
    struct fixture f;
    begin(&f);
    assert_int_equal(FEED(&f, "GET key\r\n"), 1);
    assert_int_equal(FEED(&f, "*2\r\n$7\r\nPUBLISH\r\n$15\r\nGET / HTTP/1.1\n\r\n"), 1);
    resp_reader_free(f.reader);
}

static void check_written(struct buf *out, const char *expected)
{
    assert_string_equal(buf_str(out), expected);
    buf_clear(out);
}

static void test_resp__replies(void **state)
{
    (void)state;
    struct buf out = BUF(4096);
    resp_put(&out, RESP_OK);
    resp_put_array(&out, 2);
    resp_put_integer(&out, INT64_MIN);
    resp_put_bulk(&out, "", 0);
    check_written(&out, "+OK\r\n*2\r\n:-9223372036854775808\r\n$0\r\n\r\n");
    resp_put_error(&out, "ERR a%sb", "\r\n+OK\r\n");
    check_written(&out, "-ERR a  +OK  b\r\n");
    buf_release(&out);
    out = BUF(8);
    resp_put_text(&out, "too long for it");
    assert_true(out.failed);
    buf_release(&out);
}

/* What redis-server 7.0.15 answers to ZADD k SCORE m and ZSCORE k m. */
static void test_resp__scores(void **state)
{
    (void)state;
    static const struct {
        double score;
        const char *text;
    } cases[] = {{0, "0"},
                 {-0.0, "-0"},
                 {1, "1"},
                 {-17, "-17"},
                 {0.1, "0.10000000000000001"},
                 {3.5, "3.5"},
                 {INFINITY, "inf"},
                 {-INFINITY, "-inf"},
                 {99999999999999984.0, "99999999999999984"},
                 {1e17, "1e+17"},
                 {123456789012345678.0, "1.2345678901234568e+17"},
                 {DBL_MAX, "1.7976931348623157e+308"},
                 {1e-9, "1.0000000000000001e-09"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[RESP_SCORE_TEXT_SIZE] = "";
        text[resp_score_text(cases[i].score, text)] = 0;
        assert_string_equal(text, cases[i].text);
    }
}

static struct resp_arg arg(const char *text)
{
    return (struct resp_arg){text, strlen(text)};
}

/* faults 92 */
static void test_resp__parses_scores(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "nan", "-nan", "1e400", "-1e400", "1e-400", " 1", "1 ", "abc", "1,5", "0x"};
    double score;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct resp_arg text = arg(bad[i]);
        assert_false(resp_parse_score(&text, &score));
    }
    struct resp_arg text = arg("+inf");
    assert_true(resp_parse_score(&text, &score) && score == INFINITY);
    text = arg("-Infinity");
    assert_true(resp_parse_score(&text, &score) && score == -INFINITY);
    text = arg("0x10");
    assert_true(resp_parse_score(&text, &score) && score == 16);
    text = (struct resp_arg){"1\0002", 3};
    assert_false(resp_parse_score(&text, &score));
}

static void test_resp__parses_integers(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "-",
                                      "-0",
                                      "01",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1.0",
                                      "9223372036854775808",
                                      "-9223372036854775809",
                                      "99999999999999999999"};
    int64_t value;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct resp_arg text = arg(bad[i]);
        assert_false(resp_parse_integer(&text, &value));
    }
    struct resp_arg text = arg("-9223372036854775808");
    assert_true(resp_parse_integer(&text, &value) && value == INT64_MIN);
    text = arg("9223372036854775807");
    assert_true(resp_parse_integer(&text, &value) && value == INT64_MAX);
    text = arg("0");
    assert_true(resp_parse_integer(&text, &value) && value == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resp__commands),        cmocka_unit_test(test_resp__in_pieces),
        cmocka_unit_test(test_resp__malformed),       cmocka_unit_test(test_resp__endless),
        cmocka_unit_test(test_resp__other_protocols), cmocka_unit_test(test_resp__replies),
        cmocka_unit_test(test_resp__scores),          cmocka_unit_test(test_resp__parses_scores),
        cmocka_unit_test(test_resp__parses_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
