#include <fcntl.h>
#include <pthread.h>

#include "fixture.h"
#include "store/pack.h"

static struct id digest_of(const void *data, size_t len)
{
    struct id id;
    crypto_sha256(data, len, &id);
    return id;
}

static void test_ingest__object_reads_back_after_a_restart(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    static const size_t sizes[] = {0, 1, 16383, 16384, 65536, 262144, 262145, 3000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *bytes = fixture_bytes(i, sizes[i]);
        struct store_object_info info;
        fixture_put(f->store, STORE_BLOB, bytes, sizes[i], &info);
        struct id digest = digest_of(bytes, sizes[i]);
        assert_true(id_equal(&info.digest, &digest));
        assert_int_equal(info.size_bytes, sizes[i]);
        assert_int_equal(info.kind, STORE_BLOB);
        fixture_reopen(f);
        struct store_object_info again;
        assert_int_equal(store_object_stat(f->store, &digest, &again, &err), 1);
        assert_memory_equal(&again.root, &info.root, sizeof again.root);
        assert_int_equal(again.chunk_count, info.chunk_count);
        fixture_expect(f->store, &digest, bytes, sizes[i]);
        free(bytes);
    }
}

static void test_ingest__recipe_does_not_depend_on_write_sizes(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    size_t len = 600000;
    uint8_t *bytes = fixture_bytes(7, len);
    memset(bytes + 200000, 0, 150000);
    static const size_t steps[] = {1, 2, 3, 7, 15, 4096, 600000};
    for (enum store_chunking chunking = STORE_CHUNKING_ARCHIVE; chunking <= STORE_CHUNKING_PAGES; chunking++) {
        struct id root = {0};
        for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
            struct store_ingest *ingest;
            must(store_ingest_new(f->store, STORE_BLOB, chunking, &ingest, &err));
            for (size_t at = 0; at < len; at += steps[s])
                must(store_ingest_write(ingest, bytes + at, len - at < steps[s] ? len - at : steps[s], &err));
            struct store_object_info info;
            must(store_ingest_finish(ingest, &info, &err));
            store_ingest_free(ingest);
            if (s > 0)
                assert_true(id_equal(&root, &info.root));
            root = info.root;
            fixture_expect(f->store, &info.digest, bytes, len);
            assert_int_equal(store_object_remove(f->store, &info.digest, &err), 1);
            assert_int_equal(fixture_pack_bytes(f->store), 0);
        }
    }
    free(bytes);
}

static void test_ingest__equal_bytes_are_stored_once(void **state)
{
    struct fixture *f = *state;
    size_t len = 2000000;
    uint8_t *bytes = fixture_bytes(9, len);
    fixture_put(f->store, STORE_BLOB, bytes, len, NULL);
    uint64_t once = fixture_pack_bytes(f->store);
    assert_in_range(once, len, len + len / 100);
    fixture_put(f->store, STORE_BLOB, bytes, len, NULL);
    assert_int_equal(fixture_pack_bytes(f->store), once);
    /* a byte put in front changes a chunk or two and the recipe */
    uint8_t *shifted = malloc(len + 1);
    shifted[0] = 'x';
    memcpy(shifted + 1, bytes, len);
    fixture_put(f->store, STORE_BLOB, shifted, len + 1, NULL);
    assert_in_range(fixture_pack_bytes(f->store), once + 1, once + 2 * LIMIT_CHUNK_BYTES + 10000);
    free(shifted);
    free(bytes);
}

static void test_ingest__shrinkable_bytes_are_compressed(void **state)
{
    struct fixture *f = *state;
    size_t len = 1000000;
    char *text = malloc(len);
    for (size_t i = 0; i < len; i++)
        text[i] = "lorem ipsum dolor sit amet "[(i * i / 1000 + i) % 27];
    struct store_object_info info;
    fixture_put(f->store, STORE_LAYER, text, len, &info);
    assert_in_range(fixture_pack_bytes(f->store), 1, len / 2);
    fixture_expect(f->store, &info.digest, text, len);
    free(text);
}

static void test_ingest__abandoned_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    size_t len = 3000000;
    uint8_t *bytes = fixture_bytes(11, len);
    struct store_ingest *ingest;
    must(store_ingest_new(f->store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, &err));
    must(store_ingest_write(ingest, bytes, len, &err));
    assert_true(fixture_pack_bytes(f->store) > 0);
    store_ingest_free(ingest);
    assert_int_equal(fixture_pack_bytes(f->store), 0);
    struct id digest = digest_of(bytes, len);
    assert_int_equal(store_object_stat(f->store, &digest, NULL, &err), 0);
    free(bytes);
}

static void test_ingest__more_lasting_kind_stays(void **state)
{
    struct fixture *f = *state;
    struct store_object_info info;
    fixture_put(f->store, STORE_LAYER, "abc", 3, &info);
    fixture_put(f->store, STORE_CACHE, "abc", 3, &info);
    assert_int_equal(info.kind, STORE_LAYER);
    fixture_put(f->store, STORE_BLOB, "abc", 3, &info);
    assert_int_equal(info.kind, STORE_BLOB);
}

static void test_ingest__many_leaves(void **state)
{
    struct fixture *f = *state;
    /* Zero pages and short runs between them: many chunks of few bytes, several leaves, equal leaves even. */
    size_t pages = 20000;
    size_t len = pages * 4096;
    uint8_t *bytes = calloc(pages, 4096);
    for (size_t i = 0; i < pages; i += 8)
        for (size_t j = 0; j < 4; j++)
            bytes[(i + j) * 4096] = (uint8_t)(1 + i / 8 % 250);
    struct err err = {0};
    struct store_ingest *ingest;
    must(store_ingest_new(f->store, STORE_CHECKPOINT, STORE_CHUNKING_PAGES, &ingest, &err));
    must(store_ingest_write(ingest, bytes, len, &err));
    struct store_object_info info;
    must(store_ingest_finish(ingest, &info, &err));
    store_ingest_free(ingest);
    assert_in_range(info.chunk_count, 2000, 6000);
    struct store_recipe *recipe = fixture_recipe(f->store, &info.digest);
    assert_true(recipe->root.leaf_count > 2);
    assert_true(id_equal(&recipe->root_id, &info.root));
    store_recipe_free(recipe);
    fixture_expect(f->store, &info.digest, bytes, len);
    fixture_reopen(f);
    fixture_expect(f->store, &info.digest, bytes, len);
    assert_int_equal(store_object_remove(f->store, &info.digest, &err), 1);
    assert_int_equal(fixture_pack_bytes(f->store), 0);
    free(bytes);
}

struct worker {
    struct store *store;
    const uint8_t *bytes;
    size_t len;
};

static void *ingest_same(void *arg)
{
    struct worker *worker = arg;
    for (int i = 0; i < 3; i++)
        fixture_put(worker->store, STORE_BLOB, worker->bytes, worker->len, NULL);
    return NULL;
}

/* faults 43 */
static void test_ingest__two_of_the_same_object_at_once(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    size_t len = 4000000;
    uint8_t *bytes = fixture_bytes(13, len);
    struct worker worker = {f->store, bytes, len};
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, ingest_same, &worker);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    struct id digest = digest_of(bytes, len);
    fixture_expect(f->store, &digest, bytes, len);
    assert_in_range(fixture_pack_bytes(f->store), len, len + len / 100);
    assert_int_equal(store_object_remove(f->store, &digest, &err), 1);
    assert_int_equal(fixture_pack_bytes(f->store), 0);
    free(bytes);
}

struct churner {
    struct store *store;
    uint64_t seed;
};

/* Objects that share a large part, made, read and removed against each other. */
static void *churn(void *arg)
{
    struct churner *churner = arg;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(99, 600000);
    for (unsigned i = 0; i < 12; i++) {
        bytes[churner->seed * 1000] = (uint8_t)i;
        bytes[599999] = (uint8_t)churner->seed;
        struct store_object_info info;
        fixture_put(churner->store, STORE_BLOB, bytes, 600000, &info);
        fixture_expect(churner->store, &info.digest, bytes, 600000);
        assert_int_equal(store_object_remove(churner->store, &info.digest, &err), 1);
    }
    free(bytes);
    return NULL;
}

static void test_ingest__survives_removals_of_what_it_shares(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[3];
    struct churner churners[3];
    for (unsigned i = 0; i < 3; i++) {
        churners[i] = (struct churner){f->store, i + 1};
        pthread_create(&threads[i], NULL, churn, &churners[i]);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    struct err err = {0};
    must(store_maintain(f->store, &err));
    assert_int_equal(fixture_pack_bytes(f->store), 0);
}

/* Runs of zero pages are one chunk, wherever they lie. */
static void test_ingest__zeros_cost_nothing(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *page = fixture_bytes(8, 4096);
    uint8_t *zeros = calloc(1, 1u << 20);
    struct store_ingest *ingest;
    must(store_ingest_new(f->store, STORE_CHECKPOINT, STORE_CHUNKING_PAGES, &ingest, &err));
    for (int i = 0; i < 32; i++) {
        must(store_ingest_write(ingest, zeros, 1u << 20, &err));
        if (i == 16)
            must(store_ingest_write(ingest, page, 4096, &err));
    }
    struct store_object_info info;
    must(store_ingest_finish(ingest, &info, &err));
    store_ingest_free(ingest);
    assert_int_equal(info.size_bytes, (32u << 20) + 4096);
    assert_in_range(fixture_pack_bytes(f->store), 4096, 16384); /* of which 36 a chunk are the recipe */
    free(zeros);
    free(page);
}

/* What was found here rots while the rest comes, and is traced before the object is one. */
static void test_ingest__is_no_object_without_what_has_rotted_meanwhile(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(12, 3u << 20);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, 1u << 20, &info);
    struct store_ingest *ingest;
    must(store_ingest_new(f->store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, &err));
    must(store_ingest_write(ingest, bytes, 2u << 20, &err));

    OWNED(owned_free) char *path = file_path("%s/packs/%016x.pack", f->dir, 1);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "rot", 3, STORE_RECORD_HEAD_BYTES), 3);
    close(fd);
    uint8_t byte;
    size_t len;
    assert_int_equal(store_object_read(f->store, &info.digest, 0, &byte, 1, &len, &err), ERR_CORRUPT);
    assert_int_equal(store_rot_take(f->store, NULL, NULL, &err), 1);

    must(store_ingest_write(ingest, bytes + (2u << 20), 1u << 20, &err));
    assert_int_equal(store_ingest_finish(ingest, &info, &err), ERR_CONFLICT);
    store_ingest_free(ingest);
    struct id digest;
    crypto_sha256(bytes, 3u << 20, &digest);
    assert_int_equal(store_object_stat(f->store, &digest, NULL, &err), 0);
    fixture_put(f->store, STORE_BLOB, bytes, 3u << 20, &info); /* once more */
    fixture_expect(f->store, &digest, bytes, 3u << 20);
    free(bytes);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_ingest__object_reads_back_after_a_restart),
        on_store(test_ingest__recipe_does_not_depend_on_write_sizes),
        on_store(test_ingest__equal_bytes_are_stored_once),
        on_store(test_ingest__shrinkable_bytes_are_compressed),
        on_store(test_ingest__abandoned_leaves_nothing),
        on_store(test_ingest__more_lasting_kind_stays),
        on_store(test_ingest__many_leaves),
        on_store(test_ingest__two_of_the_same_object_at_once),
        on_store(test_ingest__survives_removals_of_what_it_shares),
        on_store(test_ingest__zeros_cost_nothing),
        on_store(test_ingest__is_no_object_without_what_has_rotted_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
