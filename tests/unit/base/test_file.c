#include "tests/test.h"

#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/log.h"
#include "node/base/scope.h"

static char dir[] = "/tmp/cmig-file-XXXXXX";

static void test_file__atomic_write_replaces_whole_files(void **state)
{
    (void)state;
    OWNED(owned_free) char *path = file_path("%s/f", dir);
    struct err err;
    assert_int_equal(file_write_atomic(path, "one", 3, 0600, &err), 0);
    assert_int_equal(file_write_atomic(path, "second", 6, 0600, &err), 0);
    OWNED(buf_release) struct buf buf = BUF(6);
    assert_int_equal(file_read(path, &buf, &err), 0);
    assert_string_equal(buf_str(&buf), "second");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    OWNED(buf_release) struct buf small = BUF(5);
    assert_int_equal(file_read(path, &small, &err), ERR_LIMIT);
    OWNED(owned_free) char *none = file_path("%s/none", dir);
    assert_int_equal(file_read(none, &small, &err), ERR_NOTFOUND);
    assert_non_null(strstr(err.text, none));
    OWNED(owned_free) char *lost = file_path("%s/none/f", dir);
    assert_int_equal(file_write_atomic(lost, "x", 1, 0600, &err), ERR_NOTFOUND);
}

static void test_file__remove_tree_stays_inside(void **state)
{
    (void)state;
    struct err err;
    OWNED(owned_free) char *deep = file_path("%s/tree/a/b", dir);
    OWNED(owned_free) char *tree = file_path("%s/tree", dir);
    OWNED(owned_free) char *outside = file_path("%s/outside", dir);
    OWNED(owned_free) char *canary = file_path("%s/outside/canary", dir);
    OWNED(owned_free) char *link = file_path("%s/tree/a/link", dir);
    assert_int_equal(file_make_dirs(deep, 0700, &err), 0);
    assert_int_equal(file_make_dirs(outside, 0700, &err), 0);
    assert_int_equal(file_write_atomic(canary, "c", 1, 0600, &err), 0);
    assert_int_equal(symlink(outside, link), 0);
    assert_int_equal(file_remove_tree(tree, &err), 0);
    assert_false(file_exists(tree));
    assert_true(file_exists(canary));
    assert_int_equal(file_remove_tree(tree, &err), 0);
    assert_int_equal(file_make_dirs(canary, 0700, &err), ERR_EXISTS);
}

/* A bind mount of the same file system has the same st_dev, and is somebody else's all the same. */
static void test_file__remove_tree_leaves_mounts(void **state)
{
    (void)state;
    struct err err = {0};
    OWNED(owned_free) char *tree = file_path("%s/mounted", dir);
    OWNED(owned_free) char *point = file_path("%s/mounted/a/b", dir);
    OWNED(owned_free) char *outside = file_path("%s/elsewhere", dir);
    OWNED(owned_free) char *canary = file_path("%s/elsewhere/canary", dir);
    assert_int_equal(file_make_dirs(point, 0700, &err), 0);
    assert_int_equal(file_make_dirs(outside, 0700, &err), 0);
    assert_int_equal(file_write_atomic(canary, "c", 1, 0600, &err), 0);
    if (geteuid() != 0 || mount(outside, point, NULL, MS_BIND, NULL) < 0) {
        print_message("SKIPPED test_file__remove_tree_leaves_mounts: cannot mount\n");
        skip();
    }
    int beneath = file_remove_tree(tree, &err), itself = file_remove_tree(point, &err);
    assert_int_equal(umount(point), 0);
    assert_int_equal(beneath, ERR_BUSY);
    assert_int_equal(itself, ERR_BUSY);
    assert_true(file_exists(canary));
    assert_int_equal(file_remove_tree(tree, &err), 0);
}

static void test_file__errors_carry_context(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(err_set(&err, ERR_BUSY, "store '%s' is in use", "/x"), ERR_BUSY);
    assert_int_equal(err_wrap(&err, "cannot start"), ERR_BUSY);
    assert_string_equal(err.text, "cannot start: store '/x' is in use");
    assert_string_equal(err_name(err.code), "busy");
    assert_int_equal(err_code_of_name("busy"), ERR_BUSY);
    assert_int_equal(err_code_of_name("no such"), 0);
    assert_true(err_set(&err, 5, "a caller's bug still fails") < 0);
    assert_int_equal(err_errno(NULL, 28, "x"), ERR_NOSPACE);
    char text[32];
    assert_string_equal(log_text("a\n\x1b[2J\\", 6, text, sizeof text), "a\\x0a\\x1b[2J");
    assert_string_equal(log_text("abcdefgh", 8, text, 8), "abcd");
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return file_remove_tree(dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file__atomic_write_replaces_whole_files),
        cmocka_unit_test(test_file__remove_tree_stays_inside),
        cmocka_unit_test(test_file__remove_tree_leaves_mounts),
        cmocka_unit_test(test_file__errors_carry_context),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
