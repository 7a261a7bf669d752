#include "tests/unit/transfer/mesh.h"

#include "node/base/scope.h"
#include "transfer/exchange.h"
#include "transfer/gap.h"

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
    if (getenv("SHOW_BYTES"))
        print_message("%llu bytes there, %llu back; %llu of deltas\n", (unsigned long long)rig->link->bytes,
                      (unsigned long long)rig->link->back->bytes, (unsigned long long)rig->wish.stats.wire_bytes);
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
    struct rig *rig = rig_new(16 * MIB);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delta__rewritten_pages_provider_has_basis),
        cmocka_unit_test(test_delta__rewritten_pages_by_signature),
        cmocka_unit_test(test_delta__small_edits),
        cmocka_unit_test(test_delta__insertion),
        cmocka_unit_test(test_delta__similar_is_found),
    };
    return crypto_init(NULL) < 0 || cmocka_run_group_tests(tests, NULL, NULL);
}
