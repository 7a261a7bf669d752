/* Chunks between their writing and their commit: anybody may read them, nobody may rely on them. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "fixture.h"

/* For this thread: a failure may hit a sync of a pack, after which the commit is not tried. */
static _Thread_local bool disk_fails;

/* In front of libc's. */
int fdatasync(int fd)
{
    if (disk_fails) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

#define OBJECT_BYTES 3000000u

/* An object that the fixture's store does not have, with its recipe. */
struct content {
    uint8_t *bytes; /* owned */
    struct id digest;
    struct store_recipe *recipe; /* owned */
};

static void content_make(struct content *content, uint64_t seed)
{
    void *from;
    fixture_setup(&from);
    struct fixture *f = from;
    content->bytes = fixture_bytes(seed, OBJECT_BYTES);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, content->bytes, OBJECT_BYTES, &info);
    content->digest = info.digest;
    content->recipe = fixture_recipe(f->store, &info.digest);
    fixture_teardown(&from);
}

static void content_release(struct content *content)
{
    store_recipe_free(content->recipe);
    free(content->bytes);
}

static struct store_assembly *begin(struct store *store, const struct content *content)
{
    struct err err = {0};
    struct store_assembly *assembly = NULL;
    must(store_assembly_new(store, &content->digest, STORE_BLOB, content->recipe, &assembly, &err));
    assert_non_null(assembly);
    return assembly;
}

static void add(struct store_assembly *assembly, const struct content *content, uint32_t i)
{
    struct err err = {0};
    const struct store_recipe *recipe = content->recipe;
    must(store_assembly_add(assembly, i, STORE_RAW, content->bytes + recipe->offsets[i], recipe->chunks[i].length,
                            &err));
}

/* Is chunk i found by all three ways of asking, with the right bytes, or by none? */
static bool found(struct store *store, const struct content *content, uint32_t i)
{
    struct err err = {0};
    const struct store_chunk *chunk = &content->recipe->chunks[i];
    const uint8_t *bytes = content->bytes + content->recipe->offsets[i];
    uint8_t *back = malloc(LIMIT_CHUNK_BYTES);
    uint8_t bit;
    struct store_piece piece;
    size_t len;
    must(store_pieces_have(store, &chunk->id, 1, &bit, &err));
    int stored = store_piece_read(store, STORE_PIECE_CHUNK, &chunk->id, back, LIMIT_CHUNK_BYTES, &piece, &err);
    if (stored == 1) {
        assert_int_equal(piece.stored_bytes, chunk->length);
        assert_memory_equal(back, bytes, chunk->length);
    }
    int raw = store_piece_read_raw(store, STORE_PIECE_CHUNK, &chunk->id, back, LIMIT_CHUNK_BYTES, &len, &err);
    if (raw == 1) {
        assert_int_equal(len, chunk->length);
        assert_memory_equal(back, bytes, chunk->length);
    }
    free(back);
    assert_int_equal(stored, bit);
    assert_int_equal(raw, bit);
    return bit;
}

static void test_pending__what_was_added_is_read_at_once(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    content_make(&content, 1);
    struct store_assembly *assembly = begin(f->store, &content);
    uint32_t count = content.recipe->root.chunk_count;
    for (uint32_t i = 0; i < count; i++) {
        assert_false(found(f->store, &content, i));
        add(assembly, &content, i);
        assert_true(found(f->store, &content, i));
    }
    must(store_assembly_sync(assembly, &err));
    for (uint32_t i = 0; i < count; i++)
        assert_true(found(f->store, &content, i));
    store_assembly_free(assembly);
    fixture_reopen(f);
    assert_true(found(f->store, &content, count - 1));
    content_release(&content);
}

/* faults 55: what a failed sync lost is not found any more; the same for what is given up. */
static void test_pending__what_is_dropped_is_gone(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    content_make(&content, 2);
    struct store_assembly *assembly = begin(f->store, &content);
    add(assembly, &content, 0);
    add(assembly, &content, 1);
    disk_fails = true;
    assert_int_equal(store_assembly_sync(assembly, &err), ERR_IO);
    disk_fails = false;
    assert_false(found(f->store, &content, 0));
    assert_false(found(f->store, &content, 1));
    add(assembly, &content, 1);
    assert_true(found(f->store, &content, 1));
    store_assembly_free(assembly);
    assert_false(found(f->store, &content, 1));
    content_release(&content);
}

static void test_pending__two_may_have_written_the_same(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    content_make(&content, 3);
    struct store_assembly *three[3];
    for (int i = 0; i < 3; i++) {
        three[i] = begin(f->store, &content);
        add(three[i], &content, 0);
    }
    store_assembly_free(three[1]);
    assert_true(found(f->store, &content, 0));
    store_assembly_free(three[2]);
    assert_true(found(f->store, &content, 0));
    must(store_assembly_sync(three[0], &err));
    store_assembly_free(three[0]);
    assert_true(found(f->store, &content, 0));
    content_release(&content);
}

/* An ingest that meets a chunk which somebody else has not synced yet writes one of its own. */
static void test_pending__nobody_relies_on_it(void **state)
{
    struct fixture *f = *state;
    struct content content;
    content_make(&content, 4);
    struct store_assembly *assembly = begin(f->store, &content);
    for (uint32_t i = 0; i < content.recipe->root.chunk_count; i++)
        add(assembly, &content, i);
    fixture_put(f->store, STORE_BLOB, content.bytes, OBJECT_BYTES, NULL);
    store_assembly_free(assembly);
    fixture_expect(f->store, &content.digest, content.bytes, OBJECT_BYTES);
    fixture_reopen(f);
    fixture_expect(f->store, &content.digest, content.bytes, OBJECT_BYTES);
    content_release(&content);
}

/* ---- threads ---- */

struct crowd {
    struct fixture *f;
    struct content content[2];
    atomic_bool done;
    atomic_uint reads;
};

struct member {
    struct crowd *crowd;
    uint64_t seed;
};

/* Begin, add some, then finish and forget all of it, or give up, or be refused by the disk; again and again. */
static void *write_and_drop(void *arg)
{
    struct member *member = arg;
    struct crowd *crowd = member->crowd;
    struct store *store = crowd->f->store;
    struct rng rng = rng_seeded(&member->seed);
    for (int round = 0; round < 30; round++) {
        const struct content *content = &crowd->content[rng_below(&rng, 2)];
        struct store_assembly *assembly = NULL;
        if (store_assembly_new(store, &content->digest, STORE_BLOB, content->recipe, &assembly, NULL) != 0)
            continue;
        uint32_t count = content->recipe->root.chunk_count;
        uint32_t most = (uint32_t)rng_below(&rng, count + 5);
        for (uint32_t i = 0; i < count && i < most; i++) {
            add(assembly, content, i);
            uint8_t bit;
            assert_int_equal(store_pieces_have(store, &content->recipe->chunks[i].id, 1, &bit, NULL), 0);
            if (bit) /* else another's object was just removed, and this assembly was told of it */
                atomic_fetch_add(&crowd->reads, 1);
        }
        if (rng_below(&rng, 3) == 0)
            disk_fails = true;
        store_assembly_sync(assembly, NULL);
        disk_fails = false;
        store_assembly_finish(assembly, NULL, NULL);
        store_assembly_free(assembly);
        store_object_remove(store, &content->digest, NULL);
        store_partial_drop(store, &content->digest, NULL);
    }
    return NULL;
}

static void *read_all(void *arg)
{
    struct member *member = arg;
    struct crowd *crowd = member->crowd;
    struct rng rng = rng_seeded(&member->seed);
    uint8_t *back = malloc(LIMIT_CHUNK_BYTES);
    while (!crowd->done) {
        const struct content *content = &crowd->content[rng_below(&rng, 2)];
        uint32_t i = (uint32_t)rng_below(&rng, content->recipe->root.chunk_count);
        const struct store_chunk *chunk = &content->recipe->chunks[i];
        struct store_piece piece;
        size_t len;
        struct err err = {0};
        int got = rng_below(&rng, 2) == 0 ? store_piece_read(crowd->f->store, STORE_PIECE_CHUNK, &chunk->id, back,
                                                             LIMIT_CHUNK_BYTES, &piece, &err)
                                          : store_piece_read_raw(crowd->f->store, STORE_PIECE_CHUNK, &chunk->id, back,
                                                                 LIMIT_CHUNK_BYTES, &len, &err);
        if (got < 0)
            fail_msg("%s", err.text);
        if (got == 1 && memcmp(back, content->bytes + content->recipe->offsets[i], chunk->length) != 0)
            fail_msg("chunk %u was read as other bytes", i);
        crowd->reads += (unsigned)got;
    }
    free(back);
    return NULL;
}

static void test_pending__readers_beside_writers_that_give_up(void **state)
{
    struct crowd crowd = {.f = *state};
    content_make(&crowd.content[0], 5);
    content_make(&crowd.content[1], 6);
    struct member members[4];
    pthread_t threads[4];
    for (uint64_t i = 0; i < 4; i++) {
        members[i] = (struct member){&crowd, 100 + i};
        pthread_create(&threads[i], NULL, i < 2 ? write_and_drop : read_all, &members[i]);
    }
    for (int i = 0; i < 4; i++) {
        if (i == 2)
            crowd.done = true;
        pthread_join(threads[i], NULL);
    }
    assert_true(crowd.reads > 100);
    assert_int_equal(fixture_pack_bytes(crowd.f->store), 0);
    content_release(&crowd.content[0]);
    content_release(&crowd.content[1]);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_pending__what_was_added_is_read_at_once),      on_store(test_pending__what_is_dropped_is_gone),
        on_store(test_pending__two_may_have_written_the_same),       on_store(test_pending__nobody_relies_on_it),
        on_store(test_pending__readers_beside_writers_that_give_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
