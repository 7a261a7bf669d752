/* What nobody needs any more is freed, even where what led to it has rotted. */
#include <fcntl.h>
#include <sys/stat.h>

#include "fixture.h"
#include "store/pack.h"

#define BYTES 400000u

static void flip(const char *path, uint64_t at)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

/* A leaf that cannot be read cannot be followed either, until it is here again: then nothing is counted twice, and what
 * it lists goes with it. */
static void test_gc__a_lost_leaf_costs_no_room_for_good(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(70, BYTES);
    OWNED(owned_free) char *path = file_path("%s/packs/%016x.pack", f->dir, 1);
    for (int with_root = 0; with_root < 2; with_root++) {
        struct store_object_info info;
        fixture_put(f->store, STORE_LAYER, bytes, BYTES, &info);
        struct store_recipe *recipe = fixture_recipe(f->store, &info.digest);
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        uint64_t root_bytes = STORE_RECORD_HEAD_BYTES + STORE_ROOT_HEAD_BYTES + STORE_ROOT_ENTRY_BYTES;
        assert_int_equal(recipe->root.leaf_count, 1);
        flip(path, (uint64_t)st.st_size - 1 - (with_root ? 0 : root_bytes));
        store_recipe_free(recipe);
        uint8_t byte;
        size_t len;
        if (with_root) /* found by somebody, or by whoever frees it */
            assert_int_equal(store_object_read(f->store, &info.digest, 0, &byte, 1, &len, &err), ERR_CORRUPT);
        must(with_root ? store_partial_drop(f->store, &info.digest, &err)
                       : store_object_remove(f->store, &info.digest, &err));
        fixture_put(f->store, STORE_LAYER, bytes, BYTES, &info);
        fixture_expect(f->store, &info.digest, bytes, BYTES);
        must(store_object_remove(f->store, &info.digest, &err));
        assert_int_equal(fixture_pack_bytes(f->store), 0);
    }
    free(bytes);
}

/* Nobody could repair them for long: a cache goes, what may be the only copy of most of it stays. */
static void test_gc__what_was_to_stay_stays_until_it_is_repaired(void **state)
{
    struct fixture *f = *state;
    static const enum store_kind kinds[] = {STORE_CACHE, STORE_LAYER, STORE_CACHE};
    struct store_object_info info[3];
    struct err err = {0};
    OWNED(owned_free) char *path = file_path("%s/packs/%016x.pack", f->dir, 1);
    for (unsigned i = 0; i < 3; i++) {
        struct stat st = {0};
        stat(path, &st); /* nothing yet */
        uint64_t at = (uint64_t)st.st_size + STORE_RECORD_HEAD_BYTES;
        uint8_t *bytes = fixture_bytes(60 + i, 300000);
        fixture_put(f->store, kinds[i], bytes, 300000, &info[i]);
        free(bytes);
        flip(path, at);
        uint8_t byte;
        size_t len;
        assert_int_equal(store_object_read(f->store, &info[i].digest, 0, &byte, 1, &len, &err), ERR_CORRUPT);
    }
    struct store_ref ref = {.kind = 1, .name = "kept", .version = {1, 1}, .digest = info[2].digest, .keep = true};
    must(store_ref_set(f->store, &ref, &err));
    f->wall_ms += STORE_PARTIAL_KEEP_MS + 1;
    must(store_maintain(f->store, &err));
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(store_partial_drop(f->store, &info[i].digest, &err), i > 0);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_gc__what_was_to_stay_stays_until_it_is_repaired),
        on_store(test_gc__a_lost_leaf_costs_no_room_for_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
