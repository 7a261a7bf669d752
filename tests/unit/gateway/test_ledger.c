#include "node/gateway/ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/test.h"
#include "tests/unit/gateway/disk.h"

#define MEMBERS 64

/* The ledger, and what it has to keep: the last version of each member. */
struct fixture {
    struct disk *disk;
    struct ledger *ledger;
    struct set *set;
    uint64_t versions[MEMBERS]; /* 0: forgotten */
    uint64_t read[MEMBERS];     /* as found after a restart */
    uint64_t read_expires;
    size_t done;
    int done_status;
};

static int index_of(const struct set_change *change)
{
    char text[8] = "";
    memcpy(text, change->name, change->name_len < 7 ? change->name_len : 7);
    return atoi(text + 1);
}

static void on_done(void *ctx, int status, const struct err *err)
{
    struct fixture *f = ctx;
    (void)err;
    f->done++;
    f->done_status = status;
}

static bool is_live(void *ctx, const struct ledger_entry *entry)
{
    const struct fixture *f = ctx;
    if (entry->change.meta)
        return entry->change.version.epoch == f->set->meta_version.epoch;
    return f->versions[index_of(&entry->change)] == entry->change.version.epoch;
}

static int on_entry(void *ctx, const struct ledger_entry *entry)
{
    struct fixture *f = ctx;
    assert_int_equal(entry->set_len, 3);
    assert_memory_equal(entry->set, "set", 3);
    if (entry->change.meta)
        f->read_expires = entry->change.expires_ms;
    else
        f->read[index_of(&entry->change)] = entry->forgotten ? 0 : entry->change.version.epoch;
    return 0;
}

static size_t start(struct fixture *f)
{
    struct err err;
    size_t bad = 0;
    struct ledger_config config = {disk_of(f->disk), disk_jobs(f->disk), on_done, is_live, f};
    memset(f->read, 0, sizeof f->read);
    f->read_expires = 0;
    assert_int_equal(ledger_new(&config, &f->ledger, &err), 0);
    assert_int_equal(ledger_read(f->ledger, on_entry, f, &bad, &err), 0);
    return bad;
}

static void begin(struct fixture *f)
{
    *f = (struct fixture){.disk = calloc(1, sizeof *f->disk), .set = set_new("set", 3, 1)};
    assert_int_equal(start(f), 0);
}

static void restart(struct fixture *f)
{
    ledger_free(f->ledger);
    assert_int_equal(start(f), 0);
}

static void end(struct fixture *f)
{
    ledger_free(f->ledger);
    set_free(f->set);
    disk_free(f->disk);
}

static void put(struct fixture *f, int index, uint64_t version)
{
    char name[8];
    snprintf(name, sizeof name, "m%d", index);
    struct set_change change = {.name = name, .name_len = strlen(name), .score = 1.5, .version = {version, 0}};
    assert_int_equal(ledger_put_member(f->ledger, f->set, &change), 0);
    set_join(f->set, &change);
    f->versions[index] = version;
}

static void forget(struct fixture *f, int index)
{
    char name[8];
    snprintf(name, sizeof name, "m%d", index);
    struct set_member *member = set_find(f->set, name, strlen(name));
    assert_int_equal(ledger_drop_member(f->ledger, member), 0);
    set_forget(f->set, member);
    f->versions[index] = 0;
}

static void commit(struct fixture *f)
{
    ledger_write(f->ledger, false);
    disk_run(f->disk);
}

static void test_ledger__keeps_what_was_committed(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    put(&f, 1, 10);
    put(&f, 2, 11);
    f.set->meta_version.epoch = 12;
    f.set->expires_ms = 99;
    assert_int_equal(ledger_put_set(f.ledger, f.set), 0);
    assert_int_equal(ledger_gathering(f.ledger), 1);
    commit(&f);
    assert_int_equal(ledger_durable(f.ledger), 1);
    put(&f, 1, 13);
    forget(&f, 2);
    commit(&f);
    put(&f, 3, 14); /* not committed */
    f.versions[3] = 0;
    restart(&f);
    assert_memory_equal(f.read, f.versions, sizeof f.read);
    assert_int_equal(f.read_expires, 99);
    end(&f);
}

/* docs/registry.md, "On disk" */
static void test_ledger__bytes(void **state)
{
    (void)state;
    static const uint8_t expected[] = "\x01m\0\3set\0\2m1\0\x3f\xf8\0\0\0\0\0\0\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0\0"
                                      "d\0\3set\0\2m1"
                                      "s\0\3set\0\0\0\0\0\0\0\7\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x0b";
    struct fixture f;
    begin(&f);
    put(&f, 1, 10);
    forget(&f, 1);
    f.set->cleared_ms = 7;
    f.set->expires_ms = 8;
    f.set->meta_version = (struct dht_version){9, 11};
    ledger_put_set(f.ledger, f.set);
    commit(&f);
    assert_int_equal(f.disk->count, 1);
    assert_int_equal(f.disk->rows[0].key_len, 9);
    assert_memory_equal(f.disk->rows[0].key, "l\0\0\0\0\0\0\0\0", 9);
    assert_int_equal(f.disk->rows[0].value_len, sizeof expected - 1);
    assert_memory_equal(f.disk->rows[0].value, expected, sizeof expected - 1);
    end(&f);
}

static void test_ledger__gathers_while_it_writes(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    put(&f, 1, 10);
    ledger_write(f.ledger, false);
    put(&f, 2, 11);
    assert_int_equal(ledger_gathering(f.ledger), 2);
    ledger_write(f.ledger, false);
    assert_int_equal(ledger_durable(f.ledger), 0);
    assert_true(disk_run(f.disk));
    assert_int_equal(ledger_durable(f.ledger), 1);
    ledger_write(f.ledger, false);
    assert_true(disk_run(f.disk));
    assert_int_equal(ledger_durable(f.ledger), 2);
    ledger_write(f.ledger, false);
    assert_false(disk_run(f.disk));
    end(&f);
}

static void test_ledger__tries_again(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    f.disk->status = ERR_NOSPACE;
    put(&f, 1, 10);
    commit(&f);
    assert_int_equal(f.done_status, ERR_NOSPACE);
    assert_string_equal(ledger_failure(f.ledger)->text, "the disk is full");
    assert_int_equal(ledger_durable(f.ledger), 0);
    put(&f, 2, 11);
    commit(&f); /* waits */
    assert_int_equal(f.done, 1);
    f.disk->status = 0;
    ledger_write(f.ledger, true);
    assert_true(disk_run(f.disk));
    assert_null(ledger_failure(f.ledger));
    assert_int_equal(ledger_durable(f.ledger), 1);
    commit(&f);
    restart(&f);
    assert_memory_equal(f.read, f.versions, sizeof f.read);
    end(&f);
}

/* Members that are written over and over: the log stays within a few times what is true, and nothing is lost by that,
 * whenever the node stops. */
static void test_ledger__is_cleaned(void **state)
{
    (void)state;
    struct fixture f;
    uint64_t version = 1;
    size_t most = 0;
    begin(&f);
    for (int i = 0; i < MEMBERS; i += 2)
        put(&f, i, version++);
    f.set->meta_version.epoch = 5;
    f.set->expires_ms = 77;
    ledger_put_set(f.ledger, f.set);
    commit(&f);
    for (int round = 0; round < 1200; round++) {
        for (int n = 0; n < 1000; n++)
            put(&f, (n * 2 + 1) % MEMBERS, version++);
        if (round % 100 == 50)
            forget(&f, 1);
        commit(&f);
        most = disk_bytes(f.disk) > most ? disk_bytes(f.disk) : most;
        if (round % 300 == 299) {
            restart(&f);
            assert_memory_equal(f.read, f.versions, sizeof f.read);
            assert_int_equal(f.read_expires, 77);
        }
    }
    assert_true(f.disk->deleted > 500);
    assert_true(most < (40u << 20));
    assert_true(version * 30 > 36000000); /* what it would have without */
    end(&f);
}

static void test_ledger__damaged_rows(void **state)
{
    (void)state;
    struct fixture f;
    size_t bad;
    begin(&f);
    for (int i = 0; i < 4; i++) {
        put(&f, i, 10);
        commit(&f);
    }
    f.disk->rows[0].value[0] = 9;              /* another format */
    memset(f.disk->rows[1].value + 1, 'x', 3); /* another entry */
    f.disk->rows[2].value_len--;               /* cut */
    struct store_table_op stray = {"?", 1, "x", 1};
    disk_apply_op(f.disk, &stray);
    ledger_free(f.ledger);
    bad = start(&f);
    assert_int_equal(bad, 4);
    assert_int_equal(f.read[0] + f.read[1] + f.read[2], 0);
    assert_int_equal(f.read[3], 10);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ledger__keeps_what_was_committed),
        cmocka_unit_test(test_ledger__bytes),
        cmocka_unit_test(test_ledger__gathers_while_it_writes),
        cmocka_unit_test(test_ledger__tries_again),
        cmocka_unit_test(test_ledger__is_cleaned),
        cmocka_unit_test(test_ledger__damaged_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
