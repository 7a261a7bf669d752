#include <errno.h>
#include <sys/mount.h>
#include <unistd.h>

#include "fixture.h"
#include "store/gone.h"

enum { BYTES = 300000 };

static struct id put(struct fixture *f, enum store_kind kind, uint64_t seed)
{
    uint8_t *bytes = fixture_bytes(seed, BYTES);
    struct store_object_info info;
    fixture_put(f->store, kind, bytes, BYTES, &info);
    free(bytes);
    f->wall_ms += 1000;
    return info.digest;
}

static bool is_here(struct fixture *f, const struct id *digest)
{
    struct err err = {0};
    int got = store_object_stat(f->store, digest, NULL, &err);
    must(got);
    return got;
}

static uint64_t evict_one(struct fixture *f)
{
    struct err err = {0};
    uint64_t freed;
    must(store_evict(f->store, 1, &freed, &err));
    return freed;
}

static void test_evict__cheapest_kind_first_then_longest_unused(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct id order[6] = {
        [4] = put(f, STORE_BLOB, 1),       [5] = put(f, STORE_LAYER, 2),      [3] = put(f, STORE_VOLUME, 3),
        [1] = put(f, STORE_CHECKPOINT, 4), [2] = put(f, STORE_CHECKPOINT, 5), [0] = put(f, STORE_CACHE, 6),
    };
    for (int i = 0; i < 6; i++)
        must(store_object_set_replicas(f->store, &order[i], 2, &err));
    f->wall_ms += STORE_USED_STEP_MS;
    struct id swap = order[1]; /* touched: now the other checkpoint is the older one */
    assert_int_equal(store_object_touch(f->store, &swap, &err), 1);
    order[1] = order[2];
    order[2] = swap;
    for (int i = 0; i < 6; i++) {
        assert_true(is_here(f, &order[i]));
        assert_true(evict_one(f) > BYTES);
        assert_false(is_here(f, &order[i]));
    }
    assert_int_equal(evict_one(f), 0);
    assert_int_equal(fixture_pack_bytes(f->store), 0);
}

/* Whoever told others of it learns that it is gone, whichever way it went. */
static void test_evict__what_has_gone_is_named(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct id gone[4];
    struct id evicted = put(f, STORE_CACHE, 1), removed = put(f, STORE_BLOB, 2), stays = put(f, STORE_BLOB, 3);
    assert_int_equal(store_gone_take(f->store, gone, 4), 0);
    assert_true(evict_one(f) > BYTES);
    assert_int_equal(store_object_remove(f->store, &removed, &err), 1);
    assert_int_equal(store_object_remove(f->store, &removed, &err), 0);
    struct store_recipe *recipe = fixture_recipe(f->store, &stays);
    assert_int_equal(store_object_remove(f->store, &stays, &err), 1);
    struct store_assembly *assembly = NULL; /* what has begun to come */
    must(store_assembly_new(f->store, &stays, STORE_BLOB, recipe, &assembly, &err));
    must(store_assembly_sync(assembly, &err));
    store_assembly_free(assembly);
    store_recipe_free(recipe);
    assert_int_equal(store_partial_drop(f->store, &stays, &err), 1);
    assert_int_equal(store_gone_take(f->store, gone, 3), 3);
    assert_true(id_equal(&gone[0], &evicted) && id_equal(&gone[1], &removed) && id_equal(&gone[2], &stays));
    assert_int_equal(store_gone_take(f->store, gone, 4), 1);
    assert_true(id_equal(&gone[0], &stays));
    assert_int_equal(store_gone_take(f->store, gone, 4), 0);
}

/* The last so many: what was forgotten is found to be gone by who asks for it. */
static void test_evict__who_never_asks_what_has_gone_is_told_the_latest(void **state)
{
    struct fixture *f = *state;
    static struct id gone[STORE_GONE_MAX + 1];
    for (uint32_t i = 0; i < STORE_GONE_MAX + 10; i++)
        store_gone_note(f->store, &(struct id){{(uint8_t)i, (uint8_t)(i >> 8)}});
    assert_int_equal(store_gone_take(f->store, gone, STORE_GONE_MAX + 1), STORE_GONE_MAX);
    for (uint32_t i = 0; i < STORE_GONE_MAX; i++)
        assert_true(id_equal(&gone[i], &(struct id){{(uint8_t)(i + 10), (uint8_t)((i + 10) >> 8)}}));
}

static void test_evict__never_what_is_wanted_or_the_only_copy(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct id pinned = put(f, STORE_CHECKPOINT, 1);
    struct id kept = put(f, STORE_CHECKPOINT, 2);
    struct id only = put(f, STORE_LAYER, 3);
    must(store_pin(f->store, &pinned, "container a", &err));
    must(store_pin(f->store, &pinned, "container b", &err));
    struct store_ref ref = {.kind = 2, .name = "service", .digest = kept, .keep = true};
    must(store_ref_set(f->store, &ref, &err));
    assert_int_equal(evict_one(f), 0);

    must(store_unpin(f->store, &pinned, "container a", &err));
    assert_int_equal(evict_one(f), 0);
    must(store_unpin(f->store, &pinned, "container b", &err));
    assert_true(evict_one(f) > 0);
    assert_false(is_here(f, &pinned));

    ref.keep = false; /* a reference that does not insist */
    must(store_ref_set(f->store, &ref, &err));
    assert_true(evict_one(f) > 0);
    assert_false(is_here(f, &kept));

    assert_int_equal(evict_one(f), 0);
    must(store_object_set_replicas(f->store, &only, 1, &err));
    assert_true(evict_one(f) > 0);
    assert_false(is_here(f, &only));
}

/* faults 50 */
static void test_evict__quota_is_kept_and_caches_make_room(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    f->options.quota_bytes = 1000000;
    fixture_reopen(f);
    struct id lasting = put(f, STORE_BLOB, 1);
    struct id cache = put(f, STORE_CACHE, 2);
    struct id next = put(f, STORE_BLOB, 3);
    assert_true(is_here(f, &cache));
    struct id third = put(f, STORE_BLOB, 4); /* now the cache has to go */
    assert_false(is_here(f, &cache));
    assert_true(is_here(f, &lasting) && is_here(f, &next) && is_here(f, &third));

    uint8_t *bytes = fixture_bytes(5, BYTES);
    struct store_ingest *ingest;
    must(store_ingest_new(f->store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, &err));
    int status = store_ingest_write(ingest, bytes, BYTES, &err);
    assert_int_equal(status < 0 ? status : store_ingest_finish(ingest, NULL, &err), ERR_NOSPACE);
    store_ingest_free(ingest);
    assert_true(fixture_pack_bytes(f->store) <= f->options.quota_bytes);
    fixture_expect(f->store, &lasting, (free(bytes), bytes = fixture_bytes(1, BYTES)), BYTES);
    free(bytes);
    assert_int_equal(store_object_remove(f->store, &third, &err), 1); /* room again */
    put(f, STORE_BLOB, 6);
}

static void test_evict__an_assembly_that_cannot_fit_is_refused_at_once(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    void *other;
    fixture_setup(&other);
    struct fixture *from = other;
    struct id digest = put(from, STORE_BLOB, 1);
    struct store_recipe *recipe = fixture_recipe(from->store, &digest);
    f->options.quota_bytes = BYTES / 2;
    fixture_reopen(f);
    struct store_assembly *assembly;
    assert_int_equal(store_assembly_new(f->store, &digest, STORE_BLOB, recipe, &assembly, &err), ERR_NOSPACE);
    assert_int_equal(fixture_pack_bytes(f->store), 0);
    store_recipe_free(recipe);
    fixture_teardown(&other);
}

static void test_evict__floor_of_free_disk(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    f->options.floor_bytes = 1ull << 60;
    fixture_reopen(f);
    struct store_ingest *ingest;
    uint8_t *bytes = fixture_bytes(1, 6000000);
    must(store_ingest_new(f->store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, &err));
    assert_int_equal(store_ingest_write(ingest, bytes, 6000000, &err), ERR_NOSPACE);
    store_ingest_free(ingest);
    free(bytes);
}

/* faults 50, 51: a disk that others filled; packs or index, whichever meets it first */
static void test_evict__a_full_disk_is_an_error_and_no_more(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    store_close(f->store);
    f->store = NULL;
    if (mount("none", f->dir, "tmpfs", 0, "size=4m") < 0) {
        fixture_open(f);
        skip();
    }
    fixture_open(f);
    struct id first = put(f, STORE_BLOB, 1);
    int status = 0;
    struct id cache = {0};
    for (uint64_t seed = 2; status == 0; seed++) {
        uint8_t *bytes = fixture_bytes(seed, BYTES);
        struct store_ingest *ingest;
        must(store_ingest_new(f->store, STORE_LAYER, STORE_CHUNKING_ARCHIVE, &ingest, &err));
        status = store_ingest_write(ingest, bytes, BYTES, &err);
        struct store_object_info info;
        if (status == 0)
            status = store_ingest_finish(ingest, &info, &err);
        if (status == 0)
            cache = info.digest;
        store_ingest_free(ingest);
        free(bytes);
        assert_true(seed < 30);
    }
    assert_int_equal(status, ERR_NOSPACE);
    uint8_t *bytes = fixture_bytes(1, BYTES);
    fixture_expect(f->store, &first, bytes, BYTES); /* reads go on */
    assert_int_equal(store_object_remove(f->store, &cache, &err), 1);
    put(f, STORE_BLOB, 100); /* and so do writes, when there is room again */
    fixture_reopen(f);
    fixture_expect(f->store, &first, bytes, BYTES);
    free(bytes);
    store_close(f->store);
    f->store = NULL;
    assert_int_equal(umount(f->dir), 0);
    fixture_open(f);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_evict__cheapest_kind_first_then_longest_unused),
        on_store(test_evict__what_has_gone_is_named),
        on_store(test_evict__who_never_asks_what_has_gone_is_told_the_latest),
        on_store(test_evict__never_what_is_wanted_or_the_only_copy),
        on_store(test_evict__quota_is_kept_and_caches_make_room),
        on_store(test_evict__an_assembly_that_cannot_fit_is_refused_at_once),
        on_store(test_evict__floor_of_free_disk),
        on_store(test_evict__a_full_disk_is_an_error_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
