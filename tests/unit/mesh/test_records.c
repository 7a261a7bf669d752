#include "node/mesh/records.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/scope.h"
#include "tests/test.h"

/* A store in a directory of its own, and jobs that run when the test says so. */
struct rig {
    char dir[32];
    struct store *store;
    struct records *records;
    struct dht_storage storage;
    job_work_cb work;
    job_done_cb done;
    void *arg;
    unsigned jobs;
};

static void submit(void *ctx, job_work_cb work, job_done_cb done, void *arg)
{
    struct rig *rig = ctx;
    assert_null(rig->work); /* one at a time */
    rig->work = work;
    rig->done = done;
    rig->arg = arg;
    rig->jobs++;
}

static bool run_job(struct rig *rig)
{
    job_work_cb work = STEAL(rig->work);
    if (!work)
        return false;
    work(rig->arg);
    rig->done(rig->arg);
    return true;
}

static void open_all(struct rig *rig)
{
    struct err err = {0};
    struct store_options options = {.dir = rig->dir, .clock = clock_system()};
    struct jobs jobs = {.submit = submit, .ctx = rig};
    if (store_open(&options, &rig->store, &err) < 0 || records_new(rig->store, jobs, &rig->records, &err) < 0)
        fail_msg("%s", err.text);
    rig->storage = records_storage(rig->records);
}

static void close_all(struct rig *rig)
{
    records_close(rig->records);
    while (run_job(rig)) {
    }
    assert_true(records_clean(rig->records));
    records_free(rig->records);
    store_close(rig->store);
}

static void setup(struct rig *rig)
{
    *rig = (struct rig){.dir = "/tmp/cmig-records-XXXXXX"};
    assert_non_null(mkdtemp(rig->dir));
    open_all(rig);
}

static void teardown(struct rig *rig)
{
    close_all(rig);
    file_remove_tree(rig->dir, NULL);
}

static struct id id_of(uint8_t number)
{
    return (struct id){.b = {number}};
}

static int put(struct rig *rig, uint8_t key, uint8_t member, const char *text)
{
    struct id ids[] = {id_of(key), id_of(member)};
    return rig->storage.put(rig->storage.ctx, &ids[0], &ids[1], (const uint8_t *)text, strlen(text));
}

struct sought {
    struct id ids[2];
    struct buf bytes;
    bool found;
};

static bool seek(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes, size_t len_bytes)
{
    struct sought *sought = ctx;
    if (!id_equal(key, &sought->ids[0]) || !id_equal(member, &sought->ids[1]))
        return true;
    sought->found = true;
    buf_add(&sought->bytes, bytes, len_bytes);
    return false;
}

/* As a node would find it at its next start. */
static void assert_record(struct rig *rig, uint8_t key, uint8_t member, const char *text)
{
    struct sought sought = {.ids = {id_of(key), id_of(member)}, .bytes = BUF(8192)};
    assert_int_equal(rig->storage.each(rig->storage.ctx, seek, &sought), 0);
    assert_int_equal(sought.found, text != NULL);
    if (text)
        assert_string_equal(buf_str(&sought.bytes), text);
    buf_release(&sought.bytes);
}

static void assert_blob(struct rig *rig, const char *name, const char *text)
{
    OWNED(buf_release) struct buf bytes = BUF(8192);
    assert_int_equal(rig->storage.load(rig->storage.ctx, name, &bytes), text != NULL);
    if (text)
        assert_string_equal(buf_str(&bytes), text);
}

static void test_records__survive_a_restart(void **state)
{
    (void)state;
    struct rig rig;
    struct id ids[] = {id_of(1), id_of(3)};
    setup(&rig);
    assert_int_equal(put(&rig, 1, 2, "old"), 0);
    assert_int_equal(put(&rig, 1, 2, "new"), 0);
    assert_int_equal(put(&rig, 1, 3, "gone"), 0);
    assert_int_equal(rig.storage.remove(rig.storage.ctx, &ids[0], &ids[1]), 0);
    assert_int_equal(rig.storage.save(rig.storage.ctx, "contacts", "c", 1), 0);
    assert_blob(&rig, "contacts", "c"); /* at once, before any disk has seen it */
    assert_false(records_clean(rig.records));
    close_all(&rig);
    open_all(&rig);
    assert_record(&rig, 1, 2, "new");
    assert_record(&rig, 1, 3, NULL);
    assert_blob(&rig, "contacts", "c");
    assert_blob(&rig, "other", NULL);
    teardown(&rig);
}

/* What changes while a write is under way is written by the next one, also when the end has come meanwhile. */
static void test_records__one_write_at_a_time(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    records_flush(rig.records);
    assert_int_equal(rig.jobs, 0); /* nothing to do */
    assert_int_equal(put(&rig, 1, 1, "first"), 0);
    records_flush(rig.records);
    assert_int_equal(put(&rig, 1, 1, "second"), 0);
    records_flush(rig.records);
    assert_int_equal(rig.jobs, 1);
    records_close(rig.records);
    assert_int_equal(put(&rig, 1, 9, "too late"), 0);
    assert_true(run_job(&rig));
    assert_false(records_clean(rig.records));
    assert_true(run_job(&rig));
    assert_false(run_job(&rig));
    assert_true(records_clean(rig.records));
    records_free(rig.records);
    store_close(rig.store);
    open_all(&rig);
    assert_record(&rig, 1, 1, "second");
    assert_record(&rig, 1, 9, NULL);
    teardown(&rig);
}

/* faults 50, 51: a write that fails is tried again, later, in order with what came after it. */
static void test_records__full_disk(void **state)
{
    (void)state;
    struct rig rig;
    char large[4096];
    struct rlimit unlimited, none;
    setup(&rig);
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    assert_int_equal(put(&rig, 1, 1, "before"), 0);
    for (uint8_t i = 2; i < 200; i++)
        assert_int_equal(put(&rig, i, i, large), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
    none = unlimited;
    none.rlim_cur = 0;
    signal(SIGXFSZ, SIG_IGN);
    records_flush(rig.records);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    assert_true(run_job(&rig));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    assert_false(records_clean(rig.records));
    assert_int_equal(put(&rig, 1, 1, "after"), 0);
    records_flush(rig.records);
    assert_int_equal(rig.jobs, 1); /* not at once again */
    for (int i = 0; i < 100 && rig.jobs == 1; i++)
        records_flush(rig.records);
    assert_int_equal(rig.jobs, 2);
    assert_true(run_job(&rig));
    assert_true(records_clean(rig.records));
    close_all(&rig);
    open_all(&rig);
    assert_record(&rig, 1, 1, "after");
    assert_record(&rig, 199, 199, large);
    teardown(&rig);
}

/* However often a row changes, it is written once a group: a refresh of a thousand records costs a thousand rows. */
static void test_records__only_the_latest_is_written(void **state)
{
    (void)state;
    struct rig rig;
    struct id ids[] = {id_of(1), id_of(1)};
    setup(&rig);
    for (unsigned i = 0; i < 200000; i++) {
        ids[1].b[1] = (uint8_t)i;
        assert_int_equal(rig.storage.put(rig.storage.ctx, &ids[0], &ids[1], (const uint8_t *)&i, sizeof i), 0);
    }
    close_all(&rig); /* 256 rows, so all have found room */
    open_all(&rig);
    struct sought sought = {.bytes = BUF(8)};
    sought.ids[0] = ids[0];
    for (unsigned i = 199999 - 255; i < 200000; i++) {
        unsigned last;
        ids[1].b[1] = (uint8_t)i;
        sought.ids[1] = ids[1];
        buf_clear(&sought.bytes);
        rig.storage.each(rig.storage.ctx, seek, &sought);
        assert_int_equal(sought.bytes.len, sizeof last);
        memcpy(&last, sought.bytes.data, sizeof last);
        assert_int_equal(last, i);
    }
    buf_release(&sought.bytes);
    teardown(&rig);
}

/* The end comes while nothing can be written: it comes all the same. */
static void test_records__end_on_a_full_disk(void **state)
{
    (void)state;
    struct rig rig;
    struct rlimit unlimited, none;
    setup(&rig);
    assert_int_equal(put(&rig, 1, 1, "lost"), 0);
    records_flush(rig.records);
    assert_int_equal(put(&rig, 1, 2, "lost"), 0);
    records_close(rig.records);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
    none = unlimited;
    none.rlim_cur = 0;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    while (run_job(&rig)) {
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    assert_true(records_clean(rig.records));
    teardown(&rig);
}

/* Rows that are not records, of a later version, say, are passed over. */
static void test_records__strange_rows(void **state)
{
    (void)state;
    struct rig rig;
    struct err err = {0};
    char name[200];
    setup(&rig);
    memset(name, 'n', sizeof name);
    assert_int_equal(store_table_put(rig.store, "dht-records", "short", 5, "x", 1, &err), 0);
    assert_int_equal(store_table_put(rig.store, "dht-blobs", name, sizeof name, "x", 1, &err), 0);
    close_all(&rig);
    open_all(&rig);
    teardown(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records__survive_a_restart), cmocka_unit_test(test_records__one_write_at_a_time),
        cmocka_unit_test(test_records__full_disk),         cmocka_unit_test(test_records__end_on_a_full_disk),
        cmocka_unit_test(test_records__strange_rows),      cmocka_unit_test(test_records__only_the_latest_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
