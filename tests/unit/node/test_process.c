#include "node/process.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/test.h"

static void test_process__durations(void **state)
{
    (void)state;
    uint64_t seconds = 0;
    assert_true(process_parse_duration("90", 3600, &seconds));
    assert_int_equal(seconds, 90);
    assert_true(process_parse_duration("90s", 3600, &seconds));
    assert_int_equal(seconds, 90);
    assert_true(process_parse_duration("15m", 3600, &seconds));
    assert_int_equal(seconds, 900);
    assert_true(process_parse_duration("1h", 3600, &seconds));
    assert_int_equal(seconds, 3600);
    assert_true(process_parse_duration("30d", 30 * 86400, &seconds));
    assert_int_equal(seconds, 30 * 86400);
    static const char *const bad[] = {"",    "0", "0m",   "-1",  "+1",   " 1",         "1 ",        "1w",
                                      "1mm", "m", "1.5h", "61m", "0x10", "9999999999", "999999999d"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (process_parse_duration(bad[i], 3600, &seconds))
            fail_msg("taken: '%s'", bad[i]);
}

static void test_process__token_of_environment(void **state)
{
    (void)state;
    OWNED(owned_free) char *token = NULL;
    struct err err = {0};
    setenv("CMIG_TOKEN", "secret", 1);
    assert_int_equal(process_read_token(NULL, &token, &err), 0);
    assert_string_equal(token, "secret");
    assert_null(getenv("CMIG_TOKEN")); /* runc and the containers are not to see it */
    char *none = NULL;
    assert_int_equal(process_read_token(NULL, &none, &err), 0);
    assert_null(none);
}

static void test_process__token_of_file(void **state)
{
    (void)state;
    char path[] = "/tmp/cmig-process-XXXXXX";
    OWNED(owned_fd) int fd = mkstemp(path);
    OWNED(owned_free) char *token = NULL;
    struct err err = {0};
    assert_int_equal(write(fd, "secret\n", 7), 7);
    setenv("CMIG_TOKEN", "other", 1);
    assert_int_equal(process_read_token(path, &token, &err), 0);
    assert_string_equal(token, "secret\n");
    assert_int_equal(ftruncate(fd, 100000), 0); /* too long, and no text */
    assert_true(process_read_token(path, &token, &err) < 0);
    unlink(path);
    assert_int_equal(process_read_token(path, &token, &err), ERR_NOTFOUND);
    assert_non_null(strstr(err.text, path));
}

static void test_process__journal(void **state)
{
    (void)state;
    struct stat st;
    char text[64];
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    snprintf(text, sizeof text, "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    assert_true(process_logs_to_journal(text));
    strcat(text, "x");
    assert_false(process_logs_to_journal(text));
    assert_false(process_logs_to_journal("0:0"));
    assert_false(process_logs_to_journal(""));
    assert_false(process_logs_to_journal(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_process__durations),
        cmocka_unit_test(test_process__token_of_environment),
        cmocka_unit_test(test_process__token_of_file),
        cmocka_unit_test(test_process__journal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
