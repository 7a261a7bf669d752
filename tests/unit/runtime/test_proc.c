#include "tests/test.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "node/base/clock.h"
#include "node/base/scope.h"
#include "node/runtime/proc.h"

static int run(const char *const *argv, uint64_t timeout_ms, struct buf *out, struct buf *messages, int *ret_exit_code,
               struct err *err)
{
    const struct runtime_proc proc = {
        .argv = argv, .keep_fd = -1, .timeout_ms = timeout_ms, .out = out, .messages = messages};
    return runtime_proc_run(&proc, ret_exit_code, err);
}

static int run_shell(const char *script, struct buf *out, int *ret_exit_code)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    struct err err;
    return run(argv, 10000, out, NULL, ret_exit_code, &err);
}

static void test_proc__arguments_arrive_as_they_are(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf out = BUF(4096), messages = BUF(4096);
    const char *const argv[] = {"printf", "%s|", "a b", "$(id)", "'\"", "", "-n", NULL};
    int exit_code = -1;
    struct err err;
    assert_int_equal(run(argv, 10000, &out, &messages, &exit_code, &err), 0);
    assert_int_equal(exit_code, 0);
    assert_string_equal(buf_str(&out), "a b|$(id)|'\"||-n|");
    assert_int_equal(messages.len, 0);
}

static void test_proc__exit_codes_and_both_streams(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf out = BUF(4096), messages = BUF(4096);
    const char *const argv[] = {"sh", "-c", "echo one; echo two >&2; exit 7", NULL};
    int exit_code = -1;
    struct err err;
    assert_int_equal(run(argv, 10000, &out, &messages, &exit_code, &err), 0);
    assert_int_equal(exit_code, 7);
    assert_string_equal(buf_str(&out), "one\n");
    assert_string_equal(buf_str(&messages), "two\n");
    assert_int_equal(run_shell("kill -TERM $$", NULL, &exit_code), 0);
    assert_int_equal(exit_code, 128 + SIGTERM);
}

static void test_proc__output_is_capped_and_read_on(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf out = BUF(1000);
    int exit_code = -1;
    assert_int_equal(run_shell("head -c 300000 /dev/zero", &out, &exit_code), 0);
    assert_int_equal(exit_code, 0); /* more than a pipe holds: it was not left waiting */
    assert_int_equal(out.len, 1000);
}

static void test_proc__nothing_is_inherited(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf out = BUF(4096);
    int exit_code = -1;
    assert_int_equal(setenv("CMIG_SECRET", "x", 1), 0);
    int leak = dup(STDERR_FILENO); /* not close-on-exec */
    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    int status = run_shell("env; ls /proc/self/fd; grep Sig[BI] /proc/self/status; cat", &out, &exit_code);
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(leak);
    assert_int_equal(status, 0);
    const char *text = buf_str(&out);
    assert_null(strstr(text, "CMIG_SECRET"));
    assert_non_null(strstr(text, "PATH="));
    assert_non_null(strstr(text, "0\n1\n2\n3\n")); /* 3 is ls's own */
    assert_null(strstr(text, "\n4\n"));
    assert_non_null(strstr(text, "SigBlk:\t0000000000000000"));
    const char *ignored = strstr(text, "SigIgn:\t");
    assert_non_null(ignored);
    assert_int_equal(strtoul(ignored + 8, NULL, 16) & 0x7fffffff, 0); /* but for those that the C library keeps */
}

static void test_proc__time_is_limited_for_the_whole_group(void **state)
{
    (void)state;
    struct clock clock = clock_system();
    uint64_t from_ms = clock_mono_ms(&clock);
    OWNED(buf_release) struct buf out = BUF(64);
    const char *const argv[] = {"sh", "-c", "sleep 1000 & echo $!; wait", NULL};
    int exit_code = -1;
    struct err err;
    assert_int_equal(run(argv, 300, &out, NULL, &exit_code, &err), ERR_TIMEOUT);
    assert_true(clock_mono_ms(&clock) - from_ms < 5000);
    pid_t child = (pid_t)atoi(buf_str(&out));
    assert_true(child > 0);
    assert_int_equal(kill(child, 0), -1); /* not even a zombie */
}

static void test_proc__a_grandchild_is_not_waited_for(void **state)
{
    (void)state;
    struct clock clock = clock_system();
    uint64_t from_ms = clock_mono_ms(&clock);
    OWNED(buf_release) struct buf out = BUF(64);
    int exit_code = -1;
    assert_int_equal(run_shell("sleep 3 & echo done", &out, &exit_code), 0);
    assert_true(clock_mono_ms(&clock) - from_ms < 2500);
    assert_string_equal(buf_str(&out), "done\n");
}

static void test_proc__a_missing_program_has_a_name(void **state)
{
    (void)state;
    const char *const argv[] = {"/nonexistent/runc", NULL};
    int exit_code = -1;
    struct err err;
    assert_int_equal(run(argv, 1000, NULL, NULL, &exit_code, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "/nonexistent/runc"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_proc__arguments_arrive_as_they_are),
        cmocka_unit_test(test_proc__exit_codes_and_both_streams),
        cmocka_unit_test(test_proc__output_is_capped_and_read_on),
        cmocka_unit_test(test_proc__nothing_is_inherited),
        cmocka_unit_test(test_proc__time_is_limited_for_the_whole_group),
        cmocka_unit_test(test_proc__a_grandchild_is_not_waited_for),
        cmocka_unit_test(test_proc__a_missing_program_has_a_name),
    };
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* as runtime_open does */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
