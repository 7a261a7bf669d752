/* How often a received object waits for the disk, and what stands meanwhile. test_kill.c and test_power.c interrupt it.
 */
#include <errno.h>
#include <sys/syscall.h>

#include "fixture.h"
#include "store/core.h"
#include "store/similar.h"

static unsigned syncs;
static int syncs_until_failure = -1;

/* In front of libc's. LMDB's second sync of a commit is the write of its last page (O_DSYNC). */
int fdatasync(int fd)
{
    syncs++;
    if (syncs_until_failure > 0 && --syncs_until_failure == 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

#define OBJECT_BYTES (1u << 20)

struct content {
    uint8_t *bytes; /* owned */
    struct id digest;
    struct store_recipe *recipe; /* owned */
};

/* As another store has it. The store that is to receive it has written something before. */
static void content_make_of(struct content *content, struct fixture *f, size_t bytes)
{
    void *from;
    fixture_setup(&from);
    struct fixture *origin = from;
    content->bytes = fixture_bytes(1, bytes);
    struct store_object_info info;
    fixture_put(origin->store, STORE_BLOB, content->bytes, bytes, &info);
    content->digest = info.digest;
    content->recipe = fixture_recipe(origin->store, &info.digest);
    fixture_teardown(&from);
    fixture_put(f->store, STORE_BLOB, "abc", 3, NULL);
}

static void content_make(struct content *content, struct fixture *f)
{
    content_make_of(content, f, OBJECT_BYTES);
}

static void content_release(struct content *content)
{
    store_recipe_free(content->recipe);
    free(content->bytes);
}

static struct store_assembly *begin(struct fixture *f, const struct content *content)
{
    struct err err = {0};
    struct store_assembly *assembly = NULL;
    must(store_assembly_new(f->store, &content->digest, STORE_BLOB, content->recipe, &assembly, &err));
    assert_non_null(assembly);
    return assembly;
}

static void add_all(struct store_assembly *assembly, const struct content *content)
{
    struct err err = {0};
    const struct store_recipe *recipe = content->recipe;
    for (uint32_t i = 0; i < recipe->root.chunk_count; i++)
        must(store_assembly_add(assembly, i, STORE_RAW, content->bytes + recipe->offsets[i], recipe->chunks[i].length,
                                &err));
}

static int count_partial(const struct store_partial_info *info, void *ctx)
{
    (void)info;
    ++*(int *)ctx;
    return 0;
}

static int partials(struct fixture *f)
{
    struct err err = {0};
    int count = 0;
    must(store_partial_each(f->store, count_partial, &count, &err));
    return count;
}

static bool is_readable(struct fixture *f, enum store_piece_type type, const struct id *id)
{
    struct err err = {0};
    struct store_piece piece;
    OWNED(owned_free) uint8_t *bytes = malloc(STORE_ROOT_MAX_BYTES);
    int got = store_piece_read(f->store, type, id, bytes, STORE_ROOT_MAX_BYTES, &piece, &err);
    must(got);
    if (got == 0)
        return false;
    struct id found;
    crypto_sha256(bytes, piece.stored_bytes, &found);
    assert_true(id_equal(&found, id));
    return true;
}

/* What a node does between the question and the answer: the pack is synced once, the index once. */
static void test_assembly_commit__a_new_object_is_one_commit(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    struct id similar[SIMILAR_MAX];
    content_make(&content, f);
    syncs = 0;
    struct store_assembly *assembly = begin(f, &content);
    must(store_similar_find(f->store, content.recipe, similar, SIMILAR_MAX, &err));
    add_all(assembly, &content);
    assert_int_equal(syncs, 0);
    must(store_assembly_finish(assembly, NULL, &err));
    assert_int_equal(syncs, 2);
    store_assembly_free(assembly);
    assert_int_equal(syncs, 2);
    fixture_reopen(f);
    fixture_expect(f->store, &content.digest, content.bytes, OBJECT_BYTES);
    content_release(&content);
}

/* Who receives serves: the recipe too, from the beginning. */
static void test_assembly_commit__a_recipe_that_waits_is_read_by_others(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    content_make(&content, f);
    const struct id *leaf = &content.recipe->root.leaves[0].id;
    const struct id *root = &content.recipe->root_id;
    assert_false(is_readable(f, STORE_PIECE_LEAF, leaf) || is_readable(f, STORE_PIECE_ROOT, root));
    struct store_assembly *assembly = begin(f, &content);
    assert_true(is_readable(f, STORE_PIECE_LEAF, leaf) && is_readable(f, STORE_PIECE_ROOT, root));
    assert_false(is_readable(f, STORE_PIECE_CHUNK, leaf)); /* it is nobody's chunk */
    assert_int_equal(partials(f), 0);
    must(store_assembly_sync(assembly, &err));
    assert_int_equal(partials(f), 1);
    store_assembly_free(assembly);
    assert_true(is_readable(f, STORE_PIECE_LEAF, leaf) && is_readable(f, STORE_PIECE_ROOT, root));
    fixture_reopen(f);
    assert_true(is_readable(f, STORE_PIECE_LEAF, leaf) && is_readable(f, STORE_PIECE_ROOT, root));
    content_release(&content);
}

static void test_assembly_commit__given_up_before_a_sync_it_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct content content;
    content_make(&content, f);
    uint64_t before = fixture_pack_bytes(f->store);
    struct store_assembly *assembly = begin(f, &content);
    add_all(assembly, &content);
    store_assembly_free(assembly);
    assert_int_equal(partials(f), 0);
    assert_int_equal(fixture_pack_bytes(f->store), before);
    assert_false(is_readable(f, STORE_PIECE_ROOT, &content.recipe->root_id));
    content_release(&content);
}

/* Chunks that are here must not be freed as long as they are relied on. */
static void test_assembly_commit__what_is_here_already_is_held_at_once(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    struct store_object_info older;
    content_make(&content, f);
    content.bytes[0] ^= 1;
    fixture_put(f->store, STORE_CACHE, content.bytes, OBJECT_BYTES, &older);
    content.bytes[0] ^= 1;
    struct store_assembly *assembly = begin(f, &content);
    assert_int_equal(partials(f), 1);
    assert_int_equal(store_object_remove(f->store, &older.digest, &err), 1);
    const struct store_recipe *recipe = content.recipe;
    must(store_assembly_add(assembly, 0, STORE_RAW, content.bytes, recipe->chunks[0].length, &err));
    must(store_assembly_finish(assembly, NULL, &err));
    store_assembly_free(assembly);
    fixture_expect(f->store, &content.digest, content.bytes, OBJECT_BYTES);
    content_release(&content);
}

/* A recipe of chunks that nobody has ever seen; freed by the caller. */
static struct store_recipe *make_recipe(uint32_t count)
{
    struct err err = {0};
    OWNED(owned_free) struct store_chunk *chunks = calloc(count, sizeof *chunks);
    OWNED(owned_free) struct store_leaf *leaves = calloc(count / STORE_LEAF_MIN_CHUNKS + 1, sizeof *leaves);
    struct store_root root = {.chunking = STORE_CHUNKING_ARCHIVE, .leaves = leaves, .size_bytes = count};
    OWNED(buf_release) struct buf bytes = BUF(STORE_ROOT_MAX_BYTES);
    for (uint32_t i = 0, first = 0; i < count; i++) {
        chunks[i].length = 1;
        crypto_sha256(&i, sizeof i, &chunks[i].id);
        if (i + 1 < count && !store_recipe_leaf_ends(&chunks[i].id, i + 1 - first))
            continue;
        buf_clear(&bytes);
        must(store_leaf_encode(chunks + first, i + 1 - first, &bytes, &err));
        struct store_leaf *leaf = &leaves[root.leaf_count++];
        *leaf = (struct store_leaf){.chunk_count = i + 1 - first, .span_bytes = i + 1 - first};
        crypto_sha256(bytes.data, bytes.len, &leaf->id);
        first = i + 1;
    }
    root.chunk_count = count;
    buf_clear(&bytes);
    must(store_root_encode(&root, &bytes, &err));
    struct store_recipe *recipe = NULL;
    must(store_recipe_from_root(bytes.data, bytes.len, &recipe, &err));
    uint32_t first = 0;
    for (uint32_t i = 0; i < root.leaf_count; first += leaves[i++].chunk_count) {
        buf_clear(&bytes);
        must(store_leaf_encode(chunks + first, leaves[i].chunk_count, &bytes, &err));
        must(store_recipe_add_leaf(recipe, i, bytes.data, bytes.len, &err));
    }
    return recipe;
}

static void test_assembly_commit__a_large_recipe_is_recorded_at_once(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    for (uint32_t extra = 0; extra < 2; extra++) {
        struct store_recipe *recipe = make_recipe(STORE_LEAF_MAX_CHUNKS + extra);
        struct store_assembly *assembly = NULL;
        must(store_assembly_new(f->store, &recipe->root.object, STORE_BLOB, recipe, &assembly, &err));
        assert_int_equal(partials(f), extra);
        store_assembly_free(assembly);
        store_recipe_free(recipe);
    }
}

/* faults 55: it fails with the recipe in it, and again when that is written anew */
static void test_assembly_commit__goes_on_after_a_failed_sync(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    content_make(&content, f);
    struct store_assembly *assembly = begin(f, &content);
    add_all(assembly, &content);
    for (int failure = 0; failure < 2; failure++) {
        syncs_until_failure = 1;
        assert_int_equal(store_assembly_sync(assembly, &err), ERR_IO);
        assert_int_equal(partials(f), 0);
    }
    assert_false(store_assembly_has(assembly, 0));
    add_all(assembly, &content);
    must(store_assembly_finish(assembly, NULL, &err));
    store_assembly_free(assembly);
    fixture_reopen(f);
    fixture_expect(f->store, &content.digest, content.bytes, OBJECT_BYTES);
    content_release(&content);
}

static int spoil_pack_row(struct store_db_txn *txn, void *ctx, struct err *err)
{
    (void)ctx;
    struct store_span all = {0}, key, value;
    uint8_t copy[8];
    assert_int_equal(store_db_next(txn, STORE_DB_PACK, all, all, false, &key, &value, err), 1);
    assert_int_equal(key.len, sizeof copy);
    memcpy(copy, key.data, sizeof copy);
    return store_db_put(txn, STORE_DB_PACK, (struct store_span){copy, sizeof copy},
                        (struct store_span){(const uint8_t *)"?", 1}, err);
}

/* ERR_CORRUPT of a chunk says that its sender lied. A commit that comes by the way may fail for other reasons. */
static void test_assembly_commit__no_sender_is_blamed_for_the_index(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    content_make_of(&content, f, STORE_ASSEMBLY_SYNC_BYTES + OBJECT_BYTES);
    struct store_assembly *assembly = begin(f, &content);
    must(store_db_update(f->store->db, spoil_pack_row, NULL, &err));
    const struct store_recipe *recipe = content.recipe;
    int status = 0;
    for (uint32_t i = 0; i < recipe->root.chunk_count && status == 0; i++)
        status = store_assembly_add(assembly, i, STORE_RAW, content.bytes + recipe->offsets[i],
                                    recipe->chunks[i].length, &err);
    assert_int_equal(status, ERR_IO);
    assert_non_null(strstr(err.text, "fsck"));
    store_assembly_free(assembly);
    content_release(&content);
}

static void test_assembly_commit__of_two_that_receive_the_same_one_is_first(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    content_make(&content, f);
    uint64_t before = fixture_pack_bytes(f->store);
    struct store_assembly *first = begin(f, &content);
    struct store_assembly *second = begin(f, &content);
    add_all(first, &content);
    add_all(second, &content);
    must(store_assembly_finish(first, NULL, &err));
    must(store_assembly_sync(second, &err)); /* whole already: nothing becomes partial */
    assert_int_equal(partials(f), 0);
    must(store_assembly_finish(second, NULL, &err));
    store_assembly_free(first);
    store_assembly_free(second);
    fixture_expect(f->store, &content.digest, content.bytes, OBJECT_BYTES);
    assert_int_equal(store_object_remove(f->store, &content.digest, &err), 1);
    assert_int_equal(fixture_pack_bytes(f->store), before);
    content_release(&content);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_assembly_commit__a_new_object_is_one_commit),
        on_store(test_assembly_commit__a_recipe_that_waits_is_read_by_others),
        on_store(test_assembly_commit__given_up_before_a_sync_it_leaves_nothing),
        on_store(test_assembly_commit__what_is_here_already_is_held_at_once),
        on_store(test_assembly_commit__a_large_recipe_is_recorded_at_once),
        on_store(test_assembly_commit__goes_on_after_a_failed_sync),
        on_store(test_assembly_commit__no_sender_is_blamed_for_the_index),
        on_store(test_assembly_commit__of_two_that_receive_the_same_one_is_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
