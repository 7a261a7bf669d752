#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "fixture.h"
#include "store/assembly.h"
#include "store/pack.h"

/* An object in a store of its own, from which its pieces are "sent" to the fixture's. */
struct origin {
    struct fixture *from;
    uint8_t *bytes; /* owned */
    size_t len;
    struct id digest;
    struct store_recipe *recipe; /* owned */
};

static void origin_make(struct origin *o, uint64_t seed, size_t len)
{
    void *from;
    fixture_setup(&from);
    o->from = from;
    o->bytes = fixture_bytes(seed, len);
    memset(o->bytes + len / 2, 'z', len / 5); /* chunks that are compressed */
    o->len = len;
    struct store_object_info info;
    fixture_put(o->from->store, STORE_LAYER, o->bytes, len, &info);
    o->digest = info.digest;
    o->recipe = fixture_recipe(o->from->store, &o->digest);
}

static void origin_release(struct origin *o)
{
    void *from = o->from;
    store_recipe_free(o->recipe);
    free(o->bytes);
    fixture_teardown(&from);
}

static int send_chunk(struct origin *o, struct store_assembly *assembly, uint32_t i, struct err *err)
{
    uint8_t *stored = malloc(LIMIT_CHUNK_BYTES);
    struct store_piece piece;
    assert_int_equal(store_piece_read(o->from->store, STORE_PIECE_CHUNK, &o->recipe->chunks[i].id, stored,
                                      LIMIT_CHUNK_BYTES, &piece, err),
                     1);
    int status = store_assembly_add(assembly, i, piece.encoding, stored, piece.stored_bytes, err);
    free(stored);
    return status;
}

static struct store_assembly *begin(struct origin *o, struct store *store)
{
    struct err err = {0};
    struct store_assembly *assembly = NULL;
    must(store_assembly_new(store, &o->digest, STORE_LAYER, o->recipe, &assembly, &err));
    assert_non_null(assembly);
    return assembly;
}

static uint32_t missing(struct store_assembly *assembly)
{
    uint32_t chunks;
    uint64_t bytes;
    store_assembly_missing(assembly, &chunks, &bytes);
    assert_int_equal(chunks == 0, bytes == 0);
    return chunks;
}

static void finish(struct origin *o, struct store *store, struct store_assembly *assembly)
{
    struct err err = {0};
    struct store_object_info info;
    must(store_assembly_finish(assembly, &info, &err));
    store_assembly_free(assembly);
    assert_true(id_equal(&info.digest, &o->digest));
    assert_true(id_equal(&info.root, &o->recipe->root_id));
    fixture_expect(store, &o->digest, o->bytes, o->len);
}

static void test_assembly__chunks_in_any_order_make_the_object(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct origin o;
    origin_make(&o, 1, 5000000);
    struct store_assembly *assembly = begin(&o, f->store);
    uint32_t count = o.recipe->root.chunk_count;
    assert_int_equal(store_assembly_finish(assembly, NULL, &err), ERR_CONFLICT);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = (i * 17 + 5) % count; /* some twice, perhaps: that is harmless */
        must(send_chunk(&o, assembly, at, &err));
        assert_true(store_assembly_has(assembly, at));
    }
    for (uint32_t i = count; i-- > 0;)
        must(send_chunk(&o, assembly, i, &err));
    assert_int_equal(missing(assembly), 0);
    assert_int_equal(store_object_stat(f->store, &o.digest, NULL, &err), 0);
    finish(&o, f->store, assembly);
    fixture_reopen(f);
    fixture_expect(f->store, &o.digest, o.bytes, o.len);
    struct store_assembly *none = NULL;
    assert_int_equal(store_assembly_new(f->store, &o.digest, STORE_LAYER, o.recipe, &none, &err), 1);
    assert_null(none);
    assert_int_equal(store_object_remove(f->store, &o.digest, &err), 1);
    assert_int_equal(fixture_pack_bytes(f->store), 0);
    origin_release(&o);
}

/* Chunks `from` to `to` - 1, raw. */
static size_t arrive(const struct origin *o, uint32_t from, uint32_t to, struct store_arrival *ret_arrivals)
{
    for (uint32_t i = from; i < to; i++)
        ret_arrivals[i - from] = (struct store_arrival){.chunk = i,
                                                        .encoding = STORE_RAW,
                                                        .data = o->bytes + o->recipe->offsets[i],
                                                        .len_bytes = o->recipe->chunks[i].length,
                                                        .ret_status = 1};
    return to - from;
}

/* faults 33: who sent which is told apart, and the others' chunks are written: more of them than one write takes */
static void test_assembly__several_at_once(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct origin o;
    origin_make(&o, 21, 5000000);
    struct store_assembly *assembly = begin(&o, f->store);
    uint32_t count = o.recipe->root.chunk_count;
    struct store_arrival *arrivals = calloc(count + 2, sizeof *arrivals);
    assert_true(count > 10);
    arrive(&o, 0, count, arrivals);
    uint8_t *lie = malloc(arrivals[3].len_bytes);
    memcpy(lie, arrivals[3].data, arrivals[3].len_bytes);
    lie[0] ^= 1;
    arrivals[3].data = lie;
    arrivals[count] = arrivals[5];
    must(store_assembly_add_all(assembly, arrivals, count + 1, &err));
    for (uint32_t i = 0; i <= count; i++)
        assert_int_equal(arrivals[i].ret_status, i == 3 ? ERR_CORRUPT : 0);
    assert_int_equal(missing(assembly), 1);
    uint64_t written = fixture_pack_bytes(f->store);
    must(store_assembly_add_all(assembly, arrivals + 4, count - 4, &err)); /* are here */
    must(store_assembly_add_all(assembly, NULL, 0, &err));
    assert_int_equal(fixture_pack_bytes(f->store), written);

    arrive(&o, 3, 4, arrivals);
    arrivals[1] = (struct store_arrival){.chunk = count, .data = lie, .len_bytes = 1};
    assert_int_equal(store_assembly_add_all(assembly, arrivals, 2, &err), ERR_INVALID);
    assert_int_equal(arrivals[0].ret_status, 0);
    assert_int_equal(arrivals[1].ret_status, ERR_INVALID);
    finish(&o, f->store, assembly);
    free(lie);
    free(arrivals);
    origin_release(&o);
}

/* A disk that takes nothing: all of them are missing again, and can come again. */
static void test_assembly__several_that_cannot_be_written(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct origin o;
    origin_make(&o, 22, 3000000);
    struct store_assembly *assembly = begin(&o, f->store);
    uint32_t count = o.recipe->root.chunk_count;
    struct store_arrival *arrivals = calloc(count, sizeof *arrivals);
    arrive(&o, 0, count, arrivals);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit none = {.rlim_cur = 1, .rlim_max = before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    int status = store_assembly_add_all(assembly, arrivals, count, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_true(status < 0);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(arrivals[i].ret_status, status);
    assert_int_equal(missing(assembly), count);
    must(store_assembly_add_all(assembly, arrivals, count, &err));
    finish(&o, f->store, assembly);
    free(arrivals);
    origin_release(&o);
}

static int damage_partial(struct store_db_txn *txn, void *ctx, struct err *err)
{
    const struct id *digest = ctx;
    return store_db_put(txn, STORE_DB_PARTIAL, (struct store_span){digest->b, ID_BYTES},
                        (struct store_span){(const uint8_t *)"x", 1}, err);
}

static int mend_partial(struct store_db_txn *txn, void *ctx, struct err *err)
{
    const struct id *digest = ctx;
    return store_db_del(txn, STORE_DB_PARTIAL, (struct store_span){digest->b, ID_BYTES}, err);
}

static int damage_chunk(struct store_db_txn *txn, void *ctx, struct err *err)
{
    const struct store_chunk *chunk = ctx;
    uint8_t key[1 + ID_BYTES] = {STORE_PIECE_CHUNK};
    memcpy(key + 1, chunk->id.b, ID_BYTES);
    return store_db_put(txn, STORE_DB_PIECE, (struct store_span){key, sizeof key},
                        (struct store_span){(const uint8_t *)"x", 1}, err);
}

static void test_assembly__own_damage_blames_no_recipe(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct store_assembly *assembly = NULL;
    struct origin o;
    origin_make(&o, 24, 100000);
    must(store_db_update(f->store->db, damage_chunk, &o.recipe->chunks[0], &err));
    assert_int_equal(store_assembly_new(f->store, &o.digest, STORE_LAYER, o.recipe, &assembly, &err), ERR_IO);
    assert_null(assembly);
    origin_release(&o);
}

/* An index of ours that is damaged says nothing about who sent the chunks. */
static void test_assembly__own_damage_blames_no_sender(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct origin o;
    origin_make(&o, 23, 1000000);
    struct store_assembly *assembly = begin(&o, f->store);
    uint32_t count = o.recipe->root.chunk_count;
    struct store_arrival *arrivals = calloc(count, sizeof *arrivals);
    arrive(&o, 0, count, arrivals);
    must(store_db_update(f->store->db, damage_partial, &o.digest, &err));
    assembly->batch.bytes += STORE_ASSEMBLY_SYNC_BYTES; /* so that these are followed by a sync */
    assert_int_equal(store_assembly_add_all(assembly, arrivals, count, &err), ERR_IO);
    assert_int_equal(err.code, ERR_IO);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(arrivals[i].ret_status, ERR_IO);
    assert_int_equal(missing(assembly), count);
    assert_int_equal(store_db_update(f->store->db, mend_partial, &o.digest, &err), 1);
    must(store_assembly_add_all(assembly, arrivals, count, &err));

    must(store_db_update(f->store->db, damage_partial, &o.digest, &err));
    assert_int_equal(store_assembly_finish(assembly, NULL, &err), ERR_IO); /* nor about the recipe */
    assert_int_equal(store_db_update(f->store->db, mend_partial, &o.digest, &err), 1);
    must(store_assembly_add_all(assembly, arrivals, count, &err));
    finish(&o, f->store, assembly);
    free(arrivals);
    origin_release(&o);
}

/* faults 33 */
static void test_assembly__bad_chunks_are_refused_before_anything_is_written(void **state)
{
    struct fixture *f = *state;
    struct origin o;
    origin_make(&o, 2, 1000000);
    struct store_assembly *assembly = begin(&o, f->store);
    uint64_t before = fixture_pack_bytes(f->store);
    uint32_t length = o.recipe->chunks[0].length;
    uint8_t *chunk = malloc(length + 1);
    memcpy(chunk, o.bytes, length);
    struct err err = {0};

    chunk[length / 2] ^= 4; /* a flipped bit */
    assert_int_equal(store_assembly_add(assembly, 0, STORE_RAW, chunk, length, &err), ERR_CORRUPT);
    chunk[length / 2] ^= 4;
    assert_int_equal(store_assembly_add(assembly, 0, STORE_RAW, chunk, length - 1, &err), ERR_CORRUPT); /* short */
    assert_int_equal(store_assembly_add(assembly, 0, STORE_RAW, chunk, length + 1, &err), ERR_CORRUPT); /* long */
    assert_int_equal(store_assembly_add(assembly, 0, STORE_RAW, chunk, 0, &err), ERR_CORRUPT);          /* empty */
    assert_int_equal(store_assembly_add(assembly, 1, STORE_RAW, chunk, length, &err), ERR_CORRUPT); /* wrong index */
    assert_int_equal(store_assembly_add(assembly, 0, STORE_ZSTD, chunk, length, &err), ERR_CORRUPT);
    assert_int_equal(store_assembly_add(assembly, 0, STORE_ZSTD, chunk, 0, &err), ERR_CORRUPT);
    assert_int_equal(store_assembly_add(assembly, 0, 7, chunk, length, &err), ERR_CORRUPT);
    assert_int_equal(store_assembly_add(assembly, o.recipe->root.chunk_count, STORE_RAW, chunk, length, &err),
                     ERR_INVALID);
    assert_int_equal(fixture_pack_bytes(f->store), before);
    assert_int_equal(missing(assembly), o.recipe->root.chunk_count);

    for (uint32_t i = 0; i < o.recipe->root.chunk_count; i++)
        must(send_chunk(&o, assembly, i, &err));
    finish(&o, f->store, assembly);
    free(chunk);
    origin_release(&o);
}

static void test_assembly__what_other_objects_have_need_not_come(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct origin o;
    origin_make(&o, 3, 3000000);
    uint8_t *older = malloc(o.len);
    memcpy(older, o.bytes, o.len);
    older[0] ^= 1;
    struct store_object_info info;
    fixture_put(f->store, STORE_LAYER, older, o.len, &info);
    struct store_assembly *assembly = begin(&o, f->store);
    assert_int_equal(missing(assembly), 1);
    assert_false(store_assembly_has(assembly, 0));
    /* the older object goes; what it shares is kept for the assembly */
    assert_int_equal(store_object_remove(f->store, &info.digest, &err), 1);
    must(send_chunk(&o, assembly, 0, &err));
    finish(&o, f->store, assembly);
    free(older);
    origin_release(&o);
}

/* faults 41, 42: whoever is killed, verified parts stay (test_kill.c kills in earnest) */
static void test_assembly__resumes_after_a_restart(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct origin o;
    origin_make(&o, 4, 3000000);
    uint32_t count = o.recipe->root.chunk_count;
    struct store_assembly *assembly = begin(&o, f->store);
    for (uint32_t i = 0; i < count; i += 2)
        must(send_chunk(&o, assembly, i, &err));
    must(store_assembly_sync(assembly, &err));
    store_assembly_free(assembly);
    fixture_reopen(f);

    struct store_recipe *recipe = fixture_recipe(f->store, &o.digest); /* also of a partial object */
    assert_true(id_equal(&recipe->root_id, &o.recipe->root_id));
    store_recipe_free(recipe);
    uint8_t bitmap[64] = {0};
    must(store_pieces_have(f->store, &o.recipe->chunks[0].id, 1, bitmap, &err));
    assert_int_equal(bitmap[0], 1);
    assembly = begin(&o, f->store);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(store_assembly_has(assembly, i), i % 2 == 0);
        if (i % 2)
            must(send_chunk(&o, assembly, i, &err));
    }
    finish(&o, f->store, assembly);
    origin_release(&o);
}

static int count_partial(const struct store_partial_info *info, void *ctx)
{
    (void)info;
    ++*(int *)ctx;
    return 0;
}

static int partials(struct store *store)
{
    struct err err = {0};
    int count = 0;
    must(store_partial_each(store, count_partial, &count, &err));
    return count;
}

static void test_assembly__partial_objects_can_be_dropped_and_grow_old(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct origin o;
    origin_make(&o, 5, 1000000);
    for (int way = 0; way < 3; way++) {
        struct store_assembly *assembly = begin(&o, f->store);
        must(send_chunk(&o, assembly, 0, &err));
        must(store_assembly_sync(assembly, &err));
        assert_int_equal(partials(f->store), 1);
        if (way == 0) {
            store_assembly_free(assembly);
            assert_int_equal(store_partial_drop(f->store, &o.digest, &err), 1);
        } else if (way == 1) { /* dropped under the hands of an assembly, which can still finish */
            assert_int_equal(store_partial_drop(f->store, &o.digest, &err), 1);
            for (uint32_t i = 0; i < o.recipe->root.chunk_count; i++)
                must(send_chunk(&o, assembly, i, &err));
            finish(&o, f->store, assembly);
            assert_int_equal(store_object_remove(f->store, &o.digest, &err), 1);
        } else {
            store_assembly_free(assembly);
            must(store_pin(f->store, &o.digest, "somebody", &err));
            f->wall_ms += STORE_PARTIAL_KEEP_MS + 1;
            must(store_maintain(f->store, &err));
            assert_int_equal(partials(f->store), 1);
            must(store_unpin(f->store, &o.digest, "somebody", &err));
            must(store_maintain(f->store, &err));
        }
        assert_int_equal(partials(f->store), 0);
        assert_int_equal(fixture_pack_bytes(f->store), 0);
    }
    origin_release(&o);
}

/* Bytes that go bad between their write and the commit: the disk's fault, not the recipe's. */
static void test_assembly__rot_before_the_commit_is_fetched_again(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct origin o;
    origin_make(&o, 8, 3000000);
    uint32_t count = o.recipe->root.chunk_count;
    struct store_assembly *assembly = begin(&o, f->store);
    OWNED(owned_free) char *path = file_path("%s/packs/%016x.pack", f->dir, 1);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    must(send_chunk(&o, assembly, count - 1, &err)); /* read back last of all */
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "rot", 3, st.st_size + STORE_RECORD_HEAD_BYTES), 3);
    close(fd);
    for (uint32_t i = count; i-- > 0;)
        must(send_chunk(&o, assembly, i, &err));
    assert_int_equal(missing(assembly), 0);
    assert_int_equal(store_assembly_finish(assembly, NULL, &err), ERR_CONFLICT);
    assert_int_equal(missing(assembly), 1);
    must(send_chunk(&o, assembly, count - 1, &err));
    finish(&o, f->store, assembly);
    assert_int_equal(store_object_remove(f->store, &o.digest, &err), 1);
    assert_int_equal(fixture_pack_bytes(f->store), 0);
    origin_release(&o);
}

static void test_assembly__recipe_of_other_bytes_is_found_out(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct origin o;
    origin_make(&o, 6, 1000000);
    /* The root says that these chunks are some other object. */
    o.digest.b[0] ^= 1;
    o.recipe->root.object = o.digest;
    struct buf root = BUF(STORE_ROOT_MAX_BYTES);
    must(store_root_encode(&o.recipe->root, &root, &err));
    crypto_sha256(root.data, root.len, &o.recipe->root_id);
    buf_release(&root);
    struct store_assembly *assembly = begin(&o, f->store);
    for (uint32_t i = 0; i < o.recipe->root.chunk_count; i++)
        must(send_chunk(&o, assembly, i, &err));
    assert_int_equal(store_assembly_finish(assembly, NULL, &err), ERR_CORRUPT);
    store_assembly_free(assembly);
    assert_int_equal(store_object_stat(f->store, &o.digest, NULL, &err), 0);
    assert_int_equal(partials(f->store), 0);
    assert_int_equal(fixture_pack_bytes(f->store), 0);
    origin_release(&o);
}

struct sender {
    struct origin *origin;
    struct store_assembly *assembly;
    uint32_t first;
    uint32_t step;
};

static void *send_some(void *arg)
{
    struct sender *sender = arg;
    struct err err = {0};
    for (uint32_t i = sender->first; i < sender->origin->recipe->root.chunk_count; i += sender->step)
        must(send_chunk(sender->origin, sender->assembly, i, &err));
    return NULL;
}

/* faults 43 */
static void test_assembly__two_of_one_object_and_threads_in_each(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct origin o;
    origin_make(&o, 7, 20000000);
    struct store_assembly *two[2] = {begin(&o, f->store), begin(&o, f->store)};
    pthread_t threads[6];
    struct sender senders[6];
    for (uint32_t i = 0; i < 6; i++) { /* two of each three send the same chunks */
        senders[i] = (struct sender){&o, two[i % 2], i / 2 % 2, 2};
        pthread_create(&threads[i], NULL, send_some, &senders[i]);
    }
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    finish(&o, f->store, two[0]);
    finish(&o, f->store, two[1]);
    assert_in_range(fixture_pack_bytes(f->store), 1, o.len + o.len / 100);
    assert_int_equal(store_object_remove(f->store, &o.digest, &err), 1);
    assert_int_equal(fixture_pack_bytes(f->store), 0);
    origin_release(&o);
}

static void test_assembly__empty_object(void **state)
{
    struct fixture *f = *state;
    struct origin o = {.len = 0};
    void *from;
    fixture_setup(&from);
    o.from = from;
    o.bytes = fixture_bytes(0, 0);
    struct store_object_info info;
    fixture_put(o.from->store, STORE_BLOB, "", 0, &info);
    o.digest = info.digest;
    o.recipe = fixture_recipe(o.from->store, &o.digest);
    assert_true(store_recipe_complete(o.recipe));
    struct store_assembly *assembly = begin(&o, f->store);
    finish(&o, f->store, assembly);
    origin_release(&o);
}

static void test_assembly__equal_chunks_arrive_once(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    void *from;
    fixture_setup(&from);
    struct fixture *source = from;
    uint8_t *zeros = calloc(1, 4 << 20);
    struct store_object_info info;
    fixture_put(source->store, STORE_BLOB, zeros, 4 << 20, &info);
    struct store_recipe *recipe = fixture_recipe(source->store, &info.digest);
    assert_true(recipe->root.chunk_count > 4);
    struct store_assembly *assembly;
    must(store_assembly_new(f->store, &info.digest, STORE_BLOB, recipe, &assembly, &err));
    must(store_assembly_add(assembly, 0, STORE_RAW, zeros, recipe->chunks[0].length, &err));
    assert_int_equal(missing(assembly), 0);
    must(store_assembly_finish(assembly, NULL, &err));
    store_assembly_free(assembly);
    fixture_expect(f->store, &info.digest, zeros, 4 << 20);
    store_recipe_free(recipe);
    free(zeros);
    fixture_teardown(&from);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_assembly__chunks_in_any_order_make_the_object),
        on_store(test_assembly__several_at_once),
        on_store(test_assembly__several_that_cannot_be_written),
        on_store(test_assembly__own_damage_blames_no_recipe),
        on_store(test_assembly__own_damage_blames_no_sender),
        on_store(test_assembly__bad_chunks_are_refused_before_anything_is_written),
        on_store(test_assembly__what_other_objects_have_need_not_come),
        on_store(test_assembly__resumes_after_a_restart),
        on_store(test_assembly__partial_objects_can_be_dropped_and_grow_old),
        on_store(test_assembly__rot_before_the_commit_is_fetched_again),
        on_store(test_assembly__recipe_of_other_bytes_is_found_out),
        on_store(test_assembly__two_of_one_object_and_threads_in_each),
        on_store(test_assembly__empty_object),
        on_store(test_assembly__equal_chunks_arrive_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
