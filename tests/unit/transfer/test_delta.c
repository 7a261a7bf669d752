#include "tests/unit/transfer/mesh.h"

#include "node/base/scope.h"
#include "transfer/exchange.h"
#include "transfer/gap.h"

#define KIB 1024u
#define MIB (1u << 20)
#define PAGE 4096u

/* An object that is like an older one, on its way from node 0 to node 1, which has the older one. */
struct rig {
    struct mesh *mesh;
    size_t len;
    uint8_t *older;
    uint8_t *newer;
    size_t newer_len;
    struct id basis;
    struct id object;
    struct mesh_link *link; /* from the asker to the provider */
    struct mesh_wish wish;
};

static struct rig *rig_new(size_t len)
{
    struct rig *rig = calloc(1, sizeof *rig);
    rig->mesh = mesh_new(2);
    rig->len = rig->newer_len = len;
    rig->older = mesh_bytes(len, 1);
    /* half of it is like text, at half a byte each */
    for (size_t i = 0; i < len; i++) {
        if (i / (256 << 10) % 2)
            rig->older[i] = (uint8_t)((rig->older[i] & 0x0f) | 0x60);
    }
    rig->newer = malloc(len + MIB);
    memcpy(rig->newer, rig->older, len);
    return rig;
}

static void rig_free(struct rig *rig)
{
    mesh_free(rig->mesh);
    free(rig->older);
    free(rig->newer);
    free(rig);
}

/* Change `count` places of `size` bytes each, one in every stretch of as many bytes. */
static void rig_edit(struct rig *rig, unsigned count, size_t size)
{
    uint64_t seed = 99;
    struct rng rng = rng_seeded(&seed);
    for (unsigned i = 0; i < count; i++) {
        size_t page = rig->len / PAGE * i / count + (size_t)rng_below(&rng, rig->len / PAGE / count);
        size_t offset = size < PAGE ? (size_t)rng_below(&rng, PAGE - size) : 0;
        rng.fill(rng.ctx, rig->newer + page * PAGE + offset, size);
    }
}

static void rig_start(struct rig *rig, enum store_chunking chunking, bool provider_has_basis)
{
    rig->basis = mesh_put_as(&rig->mesh->nodes[1], chunking, rig->older, rig->len);
    if (provider_has_basis)
        mesh_put_as(&rig->mesh->nodes[0], chunking, rig->older, rig->len);
    rig->object = mesh_put_as(&rig->mesh->nodes[0], chunking, rig->newer, rig->newer_len);
    rig->link = mesh_join(rig->mesh, 1, 0);
    mesh_fetch_like(rig->mesh, 1, &rig->object, &rig->basis, &rig->wish);
    mesh_ask(&rig->wish, rig->link, false);
}

static void rig_finish(struct rig *rig)
{
    mesh_wait(rig->mesh, &rig->wish, 20000);
    assert_int_equal(rig->wish.status, 0);
    assert_true(mesh_has(&rig->mesh->nodes[1], &rig->object, rig->newer, rig->newer_len));
}

static uint64_t rig_bytes(const struct rig *rig)
{
    return rig->link->bytes + rig->link->back->bytes;
}

/* A hundredth of the pages is new: 256 MiB may take 2.9 MB, 16 MiB a sixteenth of that. */
static void test_delta__rewritten_pages_provider_has_basis(void **state)
{
    (void)state;
    struct rig *rig = rig_new(16 * MIB);
    rig_edit(rig, 41, PAGE);
    rig_start(rig, STORE_CHUNKING_ARCHIVE, true);
    rig_finish(rig);
    assert_in_range(rig_bytes(rig), 41 * PAGE, 2900000 / 16);
    assert_true(rig->wish.stats.deltas.gap_bytes[MESSAGE_CODEC_PREFIX] > 2 * MIB);
    assert_int_equal(rig->wish.stats.deltas.signature_bytes, 0);
    assert_int_equal(rig->wish.stats.duplicate_bytes, 0);
    /* on virtual time: a delta goes when it is made, not with the provider's next look at its deadlines */
    assert_true(rig->wish.stats.duration_ms < 900);
    rig_free(rig);
}

static void test_delta__rewritten_pages_by_signature(void **state)
{
    (void)state;
    struct rig *rig = rig_new(16 * MIB);
    rig_edit(rig, 41, PAGE);
    rig_start(rig, STORE_CHUNKING_ARCHIVE, false);
    rig_finish(rig);
    assert_in_range(rig_bytes(rig), 41 * PAGE, 4100000 / 16);
    assert_true(rig->wish.stats.deltas.gap_bytes[MESSAGE_CODEC_RSYNC] > 2 * MIB);
    assert_true(rig->wish.stats.deltas.signature_bytes > 0);
    rig_free(rig);
}

static void test_delta__small_edits(void **state)
{
    (void)state;
    for (int has = 0; has < 2; has++) {
        struct rig *rig = rig_new(16 * MIB);
        rig_edit(rig, 41, 64);
        rig_start(rig, STORE_CHUNKING_ARCHIVE, has);
        rig_finish(rig);
        assert_in_range(rig_bytes(rig), 41 * 64, (has ? 250000 : 1350000) / 16);
        rig_free(rig);
    }
}

static void test_delta__insertion(void **state)
{
    (void)state;
    struct rig *rig = rig_new(4 * MIB);
    memmove(rig->newer + 1010, rig->newer + 1000, rig->len - 1000);
    memset(rig->newer + 1000, 0x77, 10);
    rig->newer_len += 10;
    rig_start(rig, STORE_CHUNKING_ARCHIVE, false);
    rig_finish(rig);
    /* the leaf that changed and 10 KB */
    assert_in_range(rig_bytes(rig), 1, STORE_LEAF_MAX_BYTES + 10000);
    rig_free(rig);
}

/* Nobody names the older version: the store finds it. */
static void test_delta__similar_is_found(void **state)
{
    (void)state;
    struct rig *rig = rig_new(4 * MIB);
    rig_edit(rig, 5, 64);
    mesh_put(&rig->mesh->nodes[1], rig->older, rig->len);
    mesh_put(&rig->mesh->nodes[0], rig->older, rig->len);
    rig->object = mesh_put(&rig->mesh->nodes[0], rig->newer, rig->newer_len);
    rig->link = mesh_join(rig->mesh, 1, 0);
    mesh_fetch(rig->mesh, 1, &rig->object, &rig->wish);
    mesh_ask(&rig->wish, rig->link, false);
    rig_finish(rig);
    assert_in_range(rig_bytes(rig), 5 * 64, 8000);
    rig_free(rig);
}

/* Bytes shift, and no chunk is the same: positions are all that is known, and drift. */
static void test_delta__dense_edits(void **state)
{
    (void)state;
    for (int has = 0; has < 2; has++) {
        struct rig *rig = rig_new(4 * MIB);
        size_t to = 0;
        for (size_t from = 0; from < rig->len; from += 8 * KIB) {
            size_t part = rig->len - from < 8 * KIB ? rig->len - from : 8 * KIB;
            memcpy(rig->newer + to, rig->older + from, part);
            to += part;
            rig->newer[to++] = (uint8_t)from; /* one byte more every 8 KiB */
        }
        rig->newer_len = to;
        rig_start(rig, STORE_CHUNKING_ARCHIVE, has);
        rig_finish(rig);
        assert_true(rig->wish.stats.local_bytes < MIB / 2);
        assert_in_range(rig_bytes(rig), 512, has ? 60000 : 700000);
        rig_free(rig);
    }
}

/* Memory: pages that differ in few bytes, and some that were put in between. */
static void test_delta__page_images(void **state)
{
    (void)state;
    for (int has = 0; has < 2; has++) {
        struct rig *rig = rig_new(8 * MIB);
        for (size_t page = 0; page < rig->len / PAGE; page += 9)
            rig->newer[page * PAGE + 100]++;
        memmove(rig->newer + 3 * MIB + 3 * PAGE, rig->newer + 3 * MIB, rig->len - 3 * MIB);
        rig->newer_len += 3 * PAGE;
        rig_start(rig, STORE_CHUNKING_PAGES, has);
        rig_finish(rig);
        assert_in_range(rig_bytes(rig), 1000, has ? 32000 : 500000);
        rig_free(rig);
    }
}

/* What is wholly new is not worth signatures for long, and comes plain. */
static void test_delta__unlike_basis(void **state)
{
    (void)state;
    for (int has = 0; has < 2; has++) {
        struct rig *rig = rig_new(8 * MIB);
        OWNED(owned_free) uint8_t *other = mesh_bytes(rig->len, 77);
        memcpy(rig->newer, other, rig->len);
        rig_start(rig, STORE_CHUNKING_ARCHIVE, has);
        rig_finish(rig);
        assert_in_range(rig_bytes(rig), rig->len, rig->len + rig->len / 30);
        assert_int_equal(rig->mesh->nodes[1].liars, 0);
        rig_free(rig);
    }
}

/* ---- trouble ---- */

/* A byte in the middle of every delta, but not of what comes plain. */
static bool spoil(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    if (type == MESSAGE_DELTA && data[8] != MESSAGE_CODEC_PLAIN)
        data[17 + (len - 17) / 2] ^= 0x20;
    return true;
}

/* faults 46: a delta that does not give its chunks proves no lie. The gap comes plain; after three, all do. */
static void test_delta__spoiled_deltas(void **state)
{
    (void)state;
    for (int has = 0; has < 2; has++) {
        struct rig *rig = rig_new(4 * MIB);
        rig_edit(rig, 20, 300);
        rig_start(rig, STORE_CHUNKING_ARCHIVE, has);
        rig->link->back->meddle = spoil;
        rig_finish(rig);
        assert_int_equal(rig->mesh->nodes[1].liars, 0);
        assert_in_range(rig->wish.stats.wire_bytes, MIB / 4, 4 * MIB);
        rig_free(rig);
    }
}

/* The basis has changed under us: what is compared with it is not what the provider has. */
static bool change_range(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    if (type == MESSAGE_GAPS)
        data[101 + 15] ^= 0x40; /* a byte of the offset of the first range: it is another one there */
    (void)link, (void)len;
    return true;
}

static void test_delta__other_range(void **state)
{
    (void)state;
    struct rig *rig = rig_new(2 * MIB);
    rig_edit(rig, 2, 300);
    rig_start(rig, STORE_CHUNKING_ARCHIVE, true);
    rig->link->meddle = change_range;
    rig_finish(rig);
    assert_int_equal(rig->mesh->nodes[1].liars, 0);
    rig_free(rig);
}

/* Plain bytes of a gap that are wrong are a lie, as they are in a chunk. */
static bool forge_plain(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link, (void)len;
    if (type == MESSAGE_DELTA)
        data[8] = MESSAGE_CODEC_PLAIN;
    return true;
}

static void test_delta__plain_lies(void **state)
{
    (void)state;
    struct rig *rig = rig_new(4 * MIB);
    rig_edit(rig, 8, 300);
    rig_start(rig, STORE_CHUNKING_ARCHIVE, true);
    rig->link->back->meddle = forge_plain;
    struct mesh *mesh = rig->mesh;
    for (unsigned i = 0; i < 3000 && mesh->nodes[1].liars == 0; i++)
        mesh_step(mesh);
    assert_int_equal(mesh->nodes[1].liars, 1);
    rig_free(rig);
}

/* faults 44: a signature that is none ends the session before librsync sees it. */
static bool forge_signature(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link, (void)len;
    if (type == MESSAGE_SIGNATURE)
        memset(data + 8 + 4, 0, 4); /* block length 0 */
    return true;
}

static void test_delta__hostile_signatures(void **state)
{
    (void)state;
    struct rig *rig = rig_new(4 * MIB);
    rig_edit(rig, 8, 300);
    rig_start(rig, STORE_CHUNKING_ARCHIVE, false);
    rig->link->meddle = forge_signature;
    for (unsigned i = 0; i < 3000 && rig->link->up; i++)
        mesh_step(rig->mesh);
    assert_false(rig->link->up);
    rig_free(rig);
}

/* The provider goes away in the middle; another one gives the rest. */
static void test_delta__provider_is_cut(void **state)
{
    (void)state;
    for (unsigned after = 1; after < 12; after++) {
        struct rig *rig = rig_new(MIB);
        rig_edit(rig, 10, 300);
        rig_start(rig, STORE_CHUNKING_ARCHIVE, after % 2);
        for (unsigned i = 0; i < 2 * after; i++)
            mesh_step(rig->mesh);
        if (!rig->wish.done) {
            mesh_cut(rig->link);
            struct mesh_link *again = mesh_join(rig->mesh, 1, 0);
            mesh_ask(&rig->wish, again, false);
        }
        rig_finish(rig);
        rig_free(rig);
    }
}

static void test_delta__wish_is_cancelled(void **state)
{
    (void)state;
    for (unsigned after = 1; after < 16; after++) {
        struct rig *rig = rig_new(MIB);
        rig_edit(rig, 10, 300);
        rig_start(rig, STORE_CHUNKING_ARCHIVE, after % 2);
        for (unsigned i = 0; i < 2 * after; i++)
            mesh_step(rig->mesh);
        if (!rig->wish.done)
            exchange_fetch_cancel(rig->wish.fetch);
        for (unsigned i = 0; i < 20; i++)
            mesh_step(rig->mesh);
        rig_free(rig);
    }
}

/* A rollout: several nodes go to the new version at once, some with the old one, one without; all helps. */
static void test_delta__rollout(void **state)
{
    (void)state;
    struct rig *rig = rig_new(4 * MIB);
    rig_edit(rig, 20, 2000);
    struct mesh *mesh = mesh_new(5);
    mesh->rate = 10u << 20;
    struct id basis = {0};
    for (unsigned i = 0; i < 4; i++)
        basis = mesh_put(&mesh->nodes[i], rig->older, rig->len);
    struct id object = mesh_put(&mesh->nodes[0], rig->newer, rig->newer_len);
    struct mesh_wish wishes[5];
    uint64_t seed_bytes = 0;
    for (unsigned i = 1; i < 5; i++)
        mesh_fetch_like(mesh, i, &object, &basis, &wishes[i]);
    for (unsigned i = 1; i < 5; i++) {
        for (unsigned k = 0; k < i; k++) {
            struct mesh_link *link = mesh_join(mesh, i, k);
            mesh_ask(&wishes[i], link, false);
            if (k > 0)
                exchange_fetch_add_peer(wishes[k].fetch, link->back->peer, false, mesh_ms(mesh));
        }
    }
    for (unsigned i = 1; i < 5; i++) {
        mesh_wait(mesh, &wishes[i], 20000);
        assert_int_equal(wishes[i].status, 0);
        assert_true(mesh_has(&mesh->nodes[i], &object, rig->newer, rig->newer_len));
    }
    for (unsigned i = 1; i < 4; i++)
        assert_true(wishes[i].stats.deltas.gap_bytes[MESSAGE_CODEC_PREFIX] > 0);
    for (unsigned i = 0; i < mesh->n_links; i++)
        seed_bytes += mesh->links[i].from == 0 ? mesh->links[i].bytes : 0;
    assert_in_range(seed_bytes, 1, 5 * MIB); /* once to who has nothing, and little to the others */
    mesh_free(mesh);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delta__rewritten_pages_provider_has_basis),
        cmocka_unit_test(test_delta__rewritten_pages_by_signature),
        cmocka_unit_test(test_delta__small_edits),
        cmocka_unit_test(test_delta__insertion),
        cmocka_unit_test(test_delta__similar_is_found),
        cmocka_unit_test(test_delta__dense_edits),
        cmocka_unit_test(test_delta__page_images),
        cmocka_unit_test(test_delta__unlike_basis),
        cmocka_unit_test(test_delta__spoiled_deltas),
        cmocka_unit_test(test_delta__other_range),
        cmocka_unit_test(test_delta__plain_lies),
        cmocka_unit_test(test_delta__hostile_signatures),
        cmocka_unit_test(test_delta__provider_is_cut),
        cmocka_unit_test(test_delta__wish_is_cancelled),
        cmocka_unit_test(test_delta__rollout),
    };
    return crypto_init(NULL) < 0 || cmocka_run_group_tests(tests, NULL, NULL);
}
