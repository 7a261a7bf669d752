#include "fixture.h"

#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

struct seen {
    char text[256];
    int stop_after;
};

static int note(const void *key, size_t key_len, const void *value, size_t value_len, void *ctx)
{
    struct seen *seen = ctx;
    size_t len = strlen(seen->text);
    snprintf(seen->text + len, sizeof seen->text - len, "%.*s=%.*s ", (int)key_len, (const char *)key, (int)value_len,
             (const char *)value);
    return --seen->stop_after == 0 ? 42 : 0;
}

static void expect_walk(struct store *store, const char *table, const char *prefix, const char *from,
                        const char *wanted)
{
    struct err err = {0};
    struct seen seen = {.text = ""};
    must(store_table_each(store, table, prefix, strlen(prefix), from, strlen(from), note, &seen, &err));
    assert_string_equal(seen.text, wanted);
}

static void test_tables__prefixes_and_ranges(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    static const char *const keys[] = {"b", "a", "ab", "aa", "b2", "c"};
    for (size_t i = 0; i < 6; i++)
        must(store_table_put(f->store, "t", keys[i], strlen(keys[i]), "v", 1, &err));
    must(store_table_put(f->store, "t2", "x", 1, "", 0, &err));
    fixture_reopen(f);
    expect_walk(f->store, "t", "", "", "a=v aa=v ab=v b=v b2=v c=v ");
    expect_walk(f->store, "t", "a", "", "a=v aa=v ab=v ");
    expect_walk(f->store, "t", "a", "aa", "aa=v ab=v ");
    expect_walk(f->store, "t", "b", "a", "b=v b2=v ");
    expect_walk(f->store, "t", "b", "c", "");
    expect_walk(f->store, "t", "", "b1", "b2=v c=v ");
    expect_walk(f->store, "t2", "", "", "x= ");
    expect_walk(f->store, "none", "", "", "");
    struct seen seen = {.stop_after = 2};
    assert_int_equal(store_table_each(f->store, "t", NULL, 0, NULL, 0, note, &seen, &err), 42);
    assert_string_equal(seen.text, "a=v aa=v ");
}

static void test_tables__a_batch_is_all_or_nothing(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    must(store_table_put(f->store, "t", "old", 3, "1", 1, &err));
    struct store_table_op ops[] = {
        {"new", 3, "2", 1}, {"old", 3, NULL, 0}, {"absent", 6, NULL, 0}, {"", 0, "3", 1}, /* no key */
    };
    assert_int_equal(store_table_apply(f->store, "t", ops, 4, &err), ERR_INVALID);
    expect_walk(f->store, "t", "", "", "old=1 ");
    must(store_table_apply(f->store, "t", ops, 3, &err));
    expect_walk(f->store, "t", "", "", "new=2 ");
}

static void test_tables__limits(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *large = calloc(1, STORE_TABLE_VALUE_MAX_BYTES + 1);
    char key[STORE_TABLE_KEY_MAX_BYTES + 1];
    memset(key, 'k', sizeof key);
    assert_int_equal(store_table_put(f->store, "t", key, sizeof key, "", 0, &err), ERR_INVALID);
    assert_int_equal(store_table_put(f->store, "t", "k", 1, large, STORE_TABLE_VALUE_MAX_BYTES + 1, &err), ERR_INVALID);
    assert_int_equal(store_table_put(f->store, "", "k", 1, "", 0, &err), ERR_INVALID);
    assert_int_equal(store_table_put(f->store, "a table with a name that is too long", "k", 1, "", 0, &err),
                     ERR_INVALID);
    must(store_table_put(f->store, "t", key, sizeof key - 1, large, STORE_TABLE_VALUE_MAX_BYTES, &err));
    struct buf value = BUF(STORE_TABLE_VALUE_MAX_BYTES);
    assert_int_equal(store_table_get(f->store, "t", key, sizeof key - 1, &value, &err), 1);
    assert_int_equal(value.len, STORE_TABLE_VALUE_MAX_BYTES);
    assert_int_equal(store_table_get(f->store, "t", key, sizeof key - 2, &value, &err), 0);
    buf_release(&value);
    free(large);
}

/* faults 52 */
static void test_tables__the_map_grows_when_it_is_full(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    f->options.index_map_bytes = 256u << 10;
    fixture_reopen(f);
    uint8_t *large = fixture_bytes(1, 1u << 20);
    for (char key = 'a'; key < 'e'; key++)
        must(store_table_put(f->store, "t", &key, 1, large, 1u << 20, &err));
    fixture_reopen(f); /* also when the map is larger than what is asked for */
    struct buf value = BUF(1u << 20);
    assert_int_equal(store_table_get(f->store, "t", "d", 1, &value, &err), 1);
    assert_memory_equal(value.data, large, value.len);
    must(store_table_put(f->store, "t", "f", 1, large, 1u << 20, &err));
    buf_release(&value);
    free(large);
}

/* Take every place that readers have, and never give one back. */
static void read_until_killed(const char *dir, int told)
{
    char path[96];
    snprintf(path, sizeof path, "%s/index", dir);
    MDB_env *env;
    MDB_txn *txn;
    if (mdb_env_create(&env) || mdb_env_open(env, path, MDB_RDONLY | MDB_NOTLS, 0))
        _exit(1);
    while (mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) == 0)
        ;
    (void)!write(told, "x", 1);
    for (;;)
        pause();
}

/* faults 53 */
static void test_tables__readers_that_were_killed_make_room(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    int told[2];
    char byte;
    assert_int_equal(pipe(told), 0);
    must(store_table_put(f->store, "t", "a", 1, "1", 1, &err));
    pid_t child = fork();
    if (child == 0)
        read_until_killed(f->dir, told[1]);
    assert_int_equal(read(told[0], &byte, 1), 1);

    struct buf value = BUF(16);
    assert_int_equal(store_table_get(f->store, "t", "a", 1, &value, &err), ERR_BUSY);
    for (int i = 0; i < 5; i++)
        must(store_table_put(f->store, "t", "b", 1, &i, sizeof i, &err));
    struct store_usage usage;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_int_equal(store_table_get(f->store, "t", "a", 1, &value, &err), 1);
    must(store_usage(f->store, &usage, &err));
    assert_int_equal(usage.reader_lag, 0);
    buf_release(&value);
    close(told[0]);
    close(told[1]);
}

/* faults 53: who reads an old state for long is noticed. */
static void test_tables__a_long_read_is_told(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    char path[96];
    snprintf(path, sizeof path, "%s/index", f->dir);
    int told[2];
    char byte;
    assert_int_equal(pipe(told), 0);
    pid_t child = fork();
    if (child == 0) {
        MDB_env *env;
        MDB_txn *txn;
        if (mdb_env_create(&env) == 0 && mdb_env_open(env, path, MDB_RDONLY | MDB_NOTLS, 0) == 0 &&
            mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) == 0)
            (void)!write(told[1], "x", 1);
        for (;;)
            pause();
    }
    assert_int_equal(read(told[0], &byte, 1), 1);
    for (int i = 0; i < 5; i++)
        must(store_table_put(f->store, "t", "b", 1, &i, sizeof i, &err));
    struct store_usage usage;
    must(store_usage(f->store, &usage, &err));
    assert_int_equal(usage.reader_lag, 5);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    must(store_maintain(f->store, &err));
    must(store_usage(f->store, &usage, &err));
    assert_int_equal(usage.reader_lag, 0);
    close(told[0]);
    close(told[1]);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_tables__prefixes_and_ranges),
        on_store(test_tables__a_batch_is_all_or_nothing),
        on_store(test_tables__limits),
        on_store(test_tables__the_map_grows_when_it_is_full),
        on_store(test_tables__readers_that_were_killed_make_room),
        on_store(test_tables__a_long_read_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
