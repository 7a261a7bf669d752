#include <dirent.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture.h"

/* faults 58 */
static void test_open__second_opener_is_told_who_has_it(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct store *second = NULL;
    assert_int_equal(store_open(&f->options, &second, &err), ERR_BUSY);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "store in use by pid %d", (int)getpid());
    assert_non_null(strstr(err.text, wanted));

    pid_t child = fork(); /* another process fares no better */
    if (child == 0)
        _exit(store_open(&f->options, &second, &err) == ERR_BUSY && strstr(err.text, wanted) ? 0 : 1);
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_true(WIFEXITED(outcome) && WEXITSTATUS(outcome) == 0);

    fixture_put(f->store, STORE_BLOB, "abc", 3, NULL); /* and the first is none the worse */
    fixture_reopen(f);
}

static void test_open__two_stores_in_one_process(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    void *other;
    fixture_setup(&other);
    struct fixture *g = other;
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, "only here", 9, &info);
    assert_int_equal(store_object_stat(g->store, &info.digest, NULL, &err), 0);
    fixture_teardown(&other);
}

/* faults 57 */
static void test_open__what_cannot_be_a_store_is_refused(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    OWNED(owned_free) char *file = file_path("%s/file", f->dir);
    must(file_write_atomic(file, "x", 1, 0600, &err));
    struct store_options options = f->options;
    options.dir = file;
    struct store *none = NULL;
    assert_true(store_open(&options, &none, &err) < 0);
    assert_non_null(strstr(err.text, file));
    options.dir = "/proc/nowhere";
    assert_true(store_open(&options, &none, &err) < 0);
    assert_null(none);
}

/* faults 54 */
static void test_open__index_of_another_version_is_refused(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    store_close(f->store);
    f->store = NULL;
    OWNED(owned_free) char *data = file_path("%s/index/data.mdb", f->dir);
    struct buf bytes = BUF(1u << 20);
    must(file_read(data, &bytes, &err));
    uint32_t *version = (uint32_t *)(void *)(bytes.data + 20); /* behind the page header and the magic of both metas */
    uint32_t *version2 = (uint32_t *)(void *)(bytes.data + 4096 + 20);
    *version = *version2 = 999;
    must(file_write_atomic(data, bytes.data, bytes.len, 0600, &err));
    assert_int_equal(store_open(&f->options, &f->store, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "cmig-node fsck"));
    buf_release(&bytes);
    must(file_remove_tree(f->dir, &err));
    fixture_open(f);
}

static void test_open__garbage_in_the_lock_files_does_no_harm(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    fixture_put(f->store, STORE_BLOB, "abc", 3, NULL);
    store_close(f->store);
    f->store = NULL;
    OWNED(owned_free) char *lock = file_path("%s/lock", f->dir);
    OWNED(owned_free) char *index_lock = file_path("%s/index/lock.mdb", f->dir);
    uint8_t *noise = fixture_bytes(1, 8192);
    must(file_write_atomic(lock, noise, 100, 0600, &err));
    must(file_write_atomic(index_lock, noise, 8192, 0600, &err));
    free(noise);
    fixture_open(f);
    struct store_usage usage;
    must(store_usage(f->store, &usage, &err));
    assert_int_equal(usage.objects, 1);
    assert_int_equal(usage.object_bytes, 3);
    assert_true(usage.disk_free_bytes > 0);
}

static int count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void test_open__closing_gives_everything_back(void **state)
{
    struct fixture *f = *state;
    int before = count_fds();
    for (int i = 0; i < 3; i++) {
        fixture_reopen(f);
        fixture_put(f->store, STORE_BLOB, &i, sizeof i, NULL);
        fixture_reopen(f);
    }
    assert_int_equal(count_fds(), before);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_open__second_opener_is_told_who_has_it),
        on_store(test_open__two_stores_in_one_process),
        on_store(test_open__what_cannot_be_a_store_is_refused),
        on_store(test_open__index_of_another_version_is_refused),
        on_store(test_open__garbage_in_the_lock_files_does_no_harm),
        on_store(test_open__closing_gives_everything_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
