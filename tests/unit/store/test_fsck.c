#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fixture.h"

enum { BYTES = 700000 };

static char *pack_path(const struct fixture *f)
{
    return file_path("%s/packs/%016x.pack", f->dir, 1);
}

static size_t size_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (size_t)st.st_size;
}

static void flip_byte(const char *path, size_t at)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

static void shut(struct fixture *f)
{
    store_close(f->store);
    f->store = NULL;
}

static void say(const char *finding, void *ctx)
{
    (void)finding;
    ++*(int *)ctx;
}

static int check(const struct fixture *f, bool repair, struct store_fsck_report *ret_report)
{
    struct err err = {0};
    int findings = 0;
    int sound = store_fsck(f->dir, repair, f->options.clock, ret_report, say, &findings, &err);
    must(sound);
    if (!sound)
        assert_true(findings > 0);
    return sound;
}

static void test_fsck__a_sound_store_is_found_sound(void **state)
{
    struct fixture *f = *state;
    uint8_t *bytes = fixture_bytes(1, BYTES);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
    shut(f);
    struct store_fsck_report report;
    assert_int_equal(check(f, false, &report), 1);
    assert_int_equal(report.objects, 1);
    assert_int_equal(report.packs, 1);
    assert_int_equal(report.records, info.chunk_count + 2);
    assert_int_equal(report.records_unused + report.records_bad + report.rows_wrong, 0);
    assert_true(report.index_usable);
    assert_false(report.repaired);
    fixture_open(f);
    fixture_expect(f->store, &info.digest, bytes, BYTES);
    free(bytes);
}

static void test_fsck__an_open_store_is_left_alone(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct store_fsck_report report;
    assert_int_equal(store_fsck(f->dir, true, f->options.clock, &report, NULL, NULL, &err), ERR_BUSY);
}

/* faults 54 */
static void test_fsck__the_index_is_rebuilt_from_the_packs(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(2, 2 * BYTES);
    struct store_object_info whole;
    struct store_object_info half;
    fixture_put(f->store, STORE_VOLUME, bytes, 2 * BYTES, &whole);
    fixture_put(f->store, STORE_LAYER, bytes, BYTES, &half);
    OWNED(owned_free) char *data = file_path("%s/index/data.mdb", f->dir);
    for (int way = 0; way < 5; way++) {
        shut(f);
        size_t size = size_of(data);
        if (way == 0)
            assert_int_equal(truncate(data, 0), 0);
        else if (way == 1)
            assert_int_equal(truncate(data, (off_t)size / 2), 0);
        else if (way == 2)
            assert_int_equal(unlink(data), 0);
        else
            for (size_t at = 16; at < size; at += way == 3 ? 4096 : 100) /* the metas as well, or all of it */
                flip_byte(data, at);
        assert_int_equal(store_open(&f->options, &f->store, &err), ERR_CORRUPT);
        assert_non_null(strstr(err.text, "cmig-node fsck"));
        struct store_fsck_report report;
        assert_int_equal(check(f, true, &report), 0);
        assert_false(report.index_usable);
        assert_true(report.repaired);
        assert_int_equal(report.objects, 2);
        assert_int_equal(report.records_bad + report.records_unused, 0);
        assert_int_equal(check(f, false, &report), 1);
        fixture_open(f);
        fixture_expect(f->store, &whole.digest, bytes, 2 * BYTES);
        fixture_expect(f->store, &half.digest, bytes, BYTES);
        struct store_object_info info;
        assert_int_equal(store_object_stat(f->store, &whole.digest, &info, &err), 1);
        assert_int_equal(info.kind, STORE_VOLUME);
        assert_int_equal(info.created_ms, whole.created_ms);
    }
    must(store_object_remove(f->store, &whole.digest, &err));
    fixture_expect(f->store, &half.digest, bytes, BYTES);
    must(store_object_remove(f->store, &half.digest, &err));
    assert_int_equal(fixture_pack_bytes(f->store), 0);
    free(bytes);
}

static void test_fsck__names_and_tables_are_kept_when_the_index_can_be_read(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(3, BYTES);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
    struct store_ref ref = {.kind = 1, .name = "image", .digest = info.digest, .value = "v", .value_len = 1};
    must(store_ref_set(f->store, &ref, &err));
    must(store_pin(f->store, &info.digest, "me", &err));
    must(store_table_put(f->store, "journal", "k", 1, "value", 5, &err));
    must(store_object_set_replicas(f->store, &info.digest, 3, &err));
    shut(f);
    struct store_fsck_report report;
    assert_int_equal(check(f, true, &report), 1);
    assert_true(report.repaired);
    fixture_open(f);
    struct buf value = BUF(100);
    assert_int_equal(store_ref_latest(f->store, 1, "image", &ref, &value, &err), 1);
    assert_int_equal(store_pinned(f->store, &info.digest, &err), 1);
    assert_int_equal(store_table_get(f->store, "journal", "k", 1, &value, &err), 1);
    assert_string_equal(buf_str(&value), "vvalue");
    buf_release(&value);
    struct store_object_info back;
    assert_int_equal(store_object_stat(f->store, &info.digest, &back, &err), 1);
    assert_int_equal(back.replicas, 3);
    free(bytes);
}

/* faults 56: whichever byte of the pack has flipped, nobody gets wrong bytes, and fsck knows */
static void test_fsck__a_flipped_byte_is_found_wherever_it_is(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(4, BYTES);
    struct store_object_info info;
    OWNED(owned_free) char *path = pack_path(f);
    uint8_t *back = malloc(BYTES);
    size_t step = BYTES / 12;
    for (size_t at = 0; at < BYTES + step; at += step) {
        shut(f);
        must(file_remove_tree(f->dir, &err));
        fixture_open(f);
        fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
        struct store_recipe *recipe = fixture_recipe(f->store, &info.digest);
        shut(f);
        size_t where = at < size_of(path) ? at : size_of(path) - 1;
        flip_byte(path, where);
        struct store_fsck_report report;
        assert_int_equal(check(f, false, &report), 0);
        assert_int_equal(report.records_bad + report.tails_truncated, 1);
        fixture_open(f);
        size_t got = 0;
        int status = store_object_read(f->store, &info.digest, 0, back, BYTES, &got, &err);
        if (status == 0) /* the flip was in a head that reading does not need */
            assert_true(got == BYTES && memcmp(back, bytes, BYTES) == 0);
        else
            assert_int_equal(status, ERR_CORRUPT);
        shut(f);
        check(f, true, &report);
        assert_int_equal(check(f, false, &report), 1);
        /* and what was lost can come again */
        fixture_open(f);
        struct store_assembly *assembly = NULL;
        status = store_assembly_new(f->store, &info.digest, STORE_BLOB, recipe, &assembly, &err);
        must(status);
        assert_int_equal(status, 0);
        uint32_t sent = 0;
        for (uint32_t i = 0; i < recipe->root.chunk_count; i++) {
            if (store_assembly_has(assembly, i))
                continue;
            sent++;
            must(
                store_assembly_add(assembly, i, STORE_RAW, bytes + recipe->offsets[i], recipe->chunks[i].length, &err));
        }
        assert_true(sent <= 1 || where > BYTES); /* one chunk, or the recipe and with it all */
        must(store_assembly_finish(assembly, NULL, &err));
        store_assembly_free(assembly);
        fixture_expect(f->store, &info.digest, bytes, BYTES);
        store_recipe_free(recipe);
    }
    free(back);
    free(bytes);
}

/* faults 56: found on read, named, forgotten, and fetched again */
static void test_fsck__a_rotten_chunk_makes_its_object_partial(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(5, BYTES);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
    struct store_recipe *recipe = fixture_recipe(f->store, &info.digest);
    OWNED(owned_free) char *path = pack_path(f);
    flip_byte(path, 64 + 1000); /* in the first chunk */
    uint8_t byte;
    size_t got;
    must(store_object_read(f->store, &info.digest, BYTES - 1, &byte, 1, &got, &err)); /* others read on */
    assert_int_equal(store_object_read(f->store, &info.digest, 0, &byte, 1, &got, &err), ERR_CORRUPT);
    char hex[ID_HEX_SIZE];
    assert_non_null(strstr(err.text, id_hex(&recipe->chunks[0].id, hex)));
    assert_int_equal(store_object_stat(f->store, &info.digest, NULL, &err), 0);

    struct store_assembly *assembly = NULL;
    must(store_assembly_new(f->store, &info.digest, STORE_BLOB, recipe, &assembly, &err));
    uint32_t missing;
    uint64_t missing_bytes;
    store_assembly_missing(assembly, &missing, &missing_bytes);
    assert_int_equal(missing, 1);
    must(store_assembly_add(assembly, 0, STORE_RAW, bytes, recipe->chunks[0].length, &err));
    must(store_assembly_finish(assembly, NULL, &err));
    store_assembly_free(assembly);
    fixture_expect(f->store, &info.digest, bytes, BYTES);
    shut(f);
    struct store_fsck_report report;
    assert_int_equal(check(f, false, &report), 1);
    fixture_open(f);
    store_recipe_free(recipe);
    free(bytes);
}

/* faults 56 */
static void test_fsck__a_pack_that_is_no_file_is_not_followed(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(6, BYTES);
    OWNED(owned_free) char *path = pack_path(f);
    OWNED(owned_free) char *elsewhere = file_path("%s/elsewhere", f->dir);
    for (int way = 0; way < 4; way++) {
        shut(f);
        must(file_remove_tree(f->dir, &err));
        fixture_open(f);
        struct store_object_info info;
        fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
        shut(f);
        assert_int_equal(rename(path, elsewhere), 0);
        if (way == 0)
            assert_int_equal(symlink("../elsewhere", path), 0);
        else if (way == 1)
            assert_int_equal(mkfifo(path, 0600), 0);
        else if (way == 2)
            assert_int_equal(mkdir(path, 0700), 0);
        fixture_open(f);
        uint8_t byte;
        size_t got;
        assert_int_equal(store_object_read(f->store, &info.digest, 0, &byte, 1, &got, &err), ERR_CORRUPT);
        shut(f);
        struct store_fsck_report report;
        assert_int_equal(check(f, false, &report), 0);
        assert_int_equal(report.objects_lost, 1);
        fixture_open(f);
    }
    free(bytes);
}

static void test_fsck__a_truncated_tail_costs_only_what_was_in_it(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(7, 2 * BYTES);
    struct store_object_info first;
    struct store_object_info second;
    fixture_put(f->store, STORE_BLOB, bytes, BYTES, &first);
    fixture_put(f->store, STORE_BLOB, bytes + BYTES, BYTES, &second);
    shut(f);
    OWNED(owned_free) char *path = pack_path(f);
    assert_int_equal(truncate(path, (off_t)size_of(path) - 10), 0);
    struct store_fsck_report report;
    assert_int_equal(check(f, true, &report), 0);
    assert_int_equal(report.tails_truncated, 1);
    assert_int_equal(report.objects, 1);
    assert_int_equal(report.objects_lost, 1); /* its root was the last record */
    fixture_open(f);
    fixture_expect(f->store, &first.digest, bytes, BYTES);
    assert_int_equal(store_object_stat(f->store, &second.digest, NULL, &err), 0);
    fixture_put(f->store, STORE_BLOB, bytes + BYTES, BYTES, &second);
    fixture_expect(f->store, &second.digest, bytes + BYTES, BYTES);
    free(bytes);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_fsck__a_sound_store_is_found_sound),
        on_store(test_fsck__an_open_store_is_left_alone),
        on_store(test_fsck__the_index_is_rebuilt_from_the_packs),
        on_store(test_fsck__names_and_tables_are_kept_when_the_index_can_be_read),
        on_store(test_fsck__a_flipped_byte_is_found_wherever_it_is),
        on_store(test_fsck__a_rotten_chunk_makes_its_object_partial),
        on_store(test_fsck__a_pack_that_is_no_file_is_not_followed),
        on_store(test_fsck__a_truncated_tail_costs_only_what_was_in_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
