#include "store/recipe.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

#define LEAF_MAGIC 0x434d4c31u /* "CML1" */
#define ROOT_MAGIC 0x434d5431u /* "CMT1" */

OWNED_DEFINE(owned_recipe, struct store_recipe, store_recipe_free)

bool store_chunking_is_valid(unsigned number)
{
    return number == STORE_CHUNKING_ARCHIVE || number == STORE_CHUNKING_PAGES;
}

/* After the first 128 chunks one in 384 ends a leaf: 512 on average. The id's last bytes decide; its first ones are
 * what tables are indexed by. */
bool store_recipe_leaf_ends(const struct id *chunk_id, uint32_t count_in_leaf)
{
    if (count_in_leaf < STORE_LEAF_MIN_CHUNKS)
        return false;
    return count_in_leaf == STORE_LEAF_MAX_CHUNKS || wire_load_u32(chunk_id->b + ID_BYTES - 4) % 384 == 0;
}

int store_leaf_encode(const struct store_chunk *chunks, size_t count, struct buf *buf, struct err *err)
{
    wire_put_u32(buf, LEAF_MAGIC);
    wire_put_u32(buf, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        wire_put_id(buf, &chunks[i].id);
        wire_put_u32(buf, chunks[i].length);
    }
    return buf->failed ? err_set(err, ERR_NOMEM, "no memory for a recipe leaf of %zu chunks", count) : 0;
}

int store_root_encode(const struct store_root *root, struct buf *buf, struct err *err)
{
    wire_put_u32(buf, ROOT_MAGIC);
    wire_put_u8(buf, (uint8_t)root->chunking);
    for (int i = 0; i < 3; i++)
        wire_put_u8(buf, 0);
    wire_put_id(buf, &root->object);
    wire_put_u64(buf, root->size_bytes);
    wire_put_u32(buf, root->chunk_count);
    wire_put_u32(buf, root->leaf_count);
    for (size_t i = 0; i < root->leaf_count; i++) {
        wire_put_id(buf, &root->leaves[i].id);
        wire_put_u32(buf, root->leaves[i].chunk_count);
        wire_put_u64(buf, root->leaves[i].span_bytes);
    }
    return buf->failed ? err_set(err, ERR_NOMEM, "no memory for a recipe root of %u leaves", root->leaf_count) : 0;
}

int store_leaf_decode(const void *data, size_t len_bytes, bool is_last, struct store_chunk *ret_chunks,
                      uint32_t *ret_count, struct err *err)
{
    struct wire wire;
    wire_init(&wire, data, len_bytes);
    uint32_t magic = wire_get_u32(&wire);
    uint32_t count = wire_get_u32(&wire);
    if (wire.failed || magic != LEAF_MAGIC)
        return err_set(err, ERR_INVALID, "a recipe leaf of %zu bytes does not begin as one", len_bytes);
    if (count == 0 || count > STORE_LEAF_MAX_CHUNKS || wire_left(&wire) != (size_t)count * STORE_LEAF_ENTRY_BYTES)
        return err_set(err, ERR_INVALID, "a recipe leaf of %zu bytes claims %u chunks", len_bytes, count);
    for (uint32_t i = 0; i < count; i++) {
        struct store_chunk chunk = {.id = wire_get_id(&wire)};
        chunk.length = wire_get_u32(&wire);
        if (chunk.length == 0 || chunk.length > LIMIT_CHUNK_BYTES)
            return err_set(err, ERR_INVALID, "chunk %u of a recipe leaf has length %u", i, chunk.length);
        bool ends = store_recipe_leaf_ends(&chunk.id, i + 1);
        if (ends ? i + 1 < count : i + 1 == count && !is_last)
            return err_set(err, ERR_INVALID, "a recipe leaf of %u chunks is not cut where it should be", count);
        ret_chunks[i] = chunk;
    }
    *ret_count = count;
    return 0;
}

static int decode_leaves(struct wire *wire, struct store_root *root, struct err *err)
{
    uint64_t first = 0;
    uint64_t offset = 0;
    for (uint32_t i = 0; i < root->leaf_count; i++) {
        struct store_leaf leaf = {.id = wire_get_id(wire), .first_chunk = first, .offset = offset};
        leaf.chunk_count = wire_get_u32(wire);
        leaf.span_bytes = wire_get_u64(wire);
        uint32_t least = i + 1 == root->leaf_count ? 1 : STORE_LEAF_MIN_CHUNKS;
        if (leaf.chunk_count < least || leaf.chunk_count > STORE_LEAF_MAX_CHUNKS)
            return err_set(err, ERR_INVALID, "recipe leaf %u claims %u chunks", i, leaf.chunk_count);
        if (leaf.span_bytes < leaf.chunk_count || leaf.span_bytes > (uint64_t)leaf.chunk_count * LIMIT_CHUNK_BYTES)
            return err_set(err, ERR_INVALID, "recipe leaf %u claims %llu bytes in %u chunks", i,
                           (unsigned long long)leaf.span_bytes, leaf.chunk_count);
        first += leaf.chunk_count;
        offset += leaf.span_bytes;
        root->leaves[i] = leaf;
    }
    if (first != root->chunk_count || offset != root->size_bytes)
        return err_set(err, ERR_INVALID, "recipe leaves add up to %llu bytes in %llu chunks, not %llu in %u",
                       (unsigned long long)offset, (unsigned long long)first, (unsigned long long)root->size_bytes,
                       root->chunk_count);
    return 0;
}

int store_root_decode(const void *data, size_t len_bytes, struct store_root *ret_root, struct err *err)
{
    struct wire wire;
    wire_init(&wire, data, len_bytes);
    uint32_t magic = wire_get_u32(&wire);
    uint8_t chunking = wire_get_u8(&wire);
    uint32_t reserved = (uint32_t)wire_get_u8(&wire) << 16 | wire_get_u16(&wire);
    struct store_root root = {.object = wire_get_id(&wire)};
    root.size_bytes = wire_get_u64(&wire);
    root.chunk_count = wire_get_u32(&wire);
    root.leaf_count = wire_get_u32(&wire);
    if (wire.failed || magic != ROOT_MAGIC || reserved != 0)
        return err_set(err, ERR_INVALID, "a recipe root of %zu bytes does not begin as one", len_bytes);
    if (!store_chunking_is_valid(chunking))
        return err_set(err, ERR_INVALID, "a recipe uses chunking %u, which this version does not know", chunking);
    root.chunking = chunking;
    if (root.size_bytes > LIMIT_OBJECT_BYTES || root.chunk_count > LIMIT_OBJECT_CHUNKS ||
        root.leaf_count > STORE_ROOT_MAX_LEAVES)
        return err_set(err, ERR_INVALID, "a recipe claims %llu bytes in %u chunks and %u leaves",
                       (unsigned long long)root.size_bytes, root.chunk_count, root.leaf_count);
    if (wire_left(&wire) != (size_t)root.leaf_count * STORE_ROOT_ENTRY_BYTES)
        return err_set(err, ERR_INVALID, "a recipe root of %zu bytes claims %u leaves", len_bytes, root.leaf_count);
    if (root.leaf_count > 0) {
        root.leaves = calloc(root.leaf_count, sizeof *root.leaves);
        if (!root.leaves)
            return err_set(err, ERR_NOMEM, "no memory for a recipe of %u leaves", root.leaf_count);
    }
    int status = decode_leaves(&wire, &root, err);
    if (status < 0) {
        store_root_release(&root);
        return status;
    }
    *ret_root = root;
    return 0;
}

void store_root_release(struct store_root *root)
{
    free(root->leaves);
    root->leaves = NULL;
    root->leaf_count = 0;
}

const struct store_leaf *store_root_leaf_at(const struct store_root *root, uint64_t offset)
{
    if (offset >= root->size_bytes)
        return NULL;
    size_t low = 0;
    size_t high = root->leaf_count - 1;
    while (low < high) {
        size_t mid = (low + high + 1) / 2;
        if (root->leaves[mid].offset <= offset)
            low = mid;
        else
            high = mid - 1;
    }
    return &root->leaves[low];
}

int store_recipe_from_root(const void *data, size_t len_bytes, struct store_recipe **ret_recipe, struct err *err)
{
    OWNED(owned_recipe) struct store_recipe *recipe = calloc(1, sizeof *recipe);
    if (!recipe)
        return err_set(err, ERR_NOMEM, "no memory for a recipe");
    int status = store_root_decode(data, len_bytes, &recipe->root, err);
    if (status < 0)
        return status;
    crypto_sha256(data, len_bytes, &recipe->root_id);
    size_t count = recipe->root.chunk_count;
    recipe->leaves_missing = recipe->root.leaf_count;
    if (count > 0) {
        recipe->chunks = calloc(count, sizeof *recipe->chunks);
        recipe->offsets = calloc(count, sizeof *recipe->offsets);
        recipe->leaf_here = calloc((recipe->root.leaf_count + 7) / 8, 1);
        if (!recipe->chunks || !recipe->offsets || !recipe->leaf_here)
            return err_set(err, ERR_NOMEM, "no memory for a recipe of %zu chunks", count);
    }
    *ret_recipe = STEAL(recipe);
    return 0;
}

static void place_leaf(struct store_recipe *recipe, const struct store_leaf *leaf, const struct store_chunk *chunks)
{
    memcpy(recipe->chunks + leaf->first_chunk, chunks, leaf->chunk_count * sizeof *chunks);
    uint64_t offset = leaf->offset;
    for (uint32_t i = 0; i < leaf->chunk_count; i++) {
        recipe->offsets[leaf->first_chunk + i] = offset;
        offset += chunks[i].length;
    }
}

int store_recipe_add_leaf(struct store_recipe *recipe, uint32_t leaf, const void *data, size_t len_bytes,
                          struct err *err)
{
    if (leaf >= recipe->root.leaf_count)
        return err_set(err, ERR_INVALID, "leaf %u of a recipe that has %u", leaf, recipe->root.leaf_count);
    const struct store_leaf *wanted = &recipe->root.leaves[leaf];
    struct id id;
    crypto_sha256(data, len_bytes, &id);
    if (!id_equal(&id, &wanted->id))
        return err_set(err, ERR_CORRUPT, "leaf %u of a recipe does not have the digest that its root names", leaf);
    if (store_recipe_has_leaf(recipe, leaf))
        return 0;
    OWNED(owned_free) struct store_chunk *chunks = malloc(STORE_LEAF_MAX_CHUNKS * sizeof *chunks);
    if (!chunks)
        return err_set(err, ERR_NOMEM, "no memory for a recipe leaf");
    uint32_t count;
    int status = store_leaf_decode(data, len_bytes, leaf + 1 == recipe->root.leaf_count, chunks, &count, err);
    if (status < 0)
        return status;
    uint64_t span = 0;
    for (uint32_t i = 0; i < count; i++)
        span += chunks[i].length;
    if (count != wanted->chunk_count || span != wanted->span_bytes)
        return err_set(err, ERR_INVALID, "leaf %u of a recipe has %llu bytes in %u chunks, its root says %llu in %u",
                       leaf, (unsigned long long)span, count, (unsigned long long)wanted->span_bytes,
                       wanted->chunk_count);
    place_leaf(recipe, wanted, chunks);
    recipe->leaf_here[leaf / 8] |= (uint8_t)(1u << leaf % 8);
    recipe->leaves_missing--;
    return 0;
}

bool store_recipe_has_leaf(const struct store_recipe *recipe, uint32_t leaf)
{
    return leaf < recipe->root.leaf_count && recipe->leaf_here[leaf / 8] >> leaf % 8 & 1;
}

bool store_recipe_complete(const struct store_recipe *recipe)
{
    return recipe->leaves_missing == 0;
}

void store_recipe_free(struct store_recipe *recipe)
{
    if (!recipe)
        return;
    store_root_release(&recipe->root);
    free(recipe->chunks);
    free(recipe->offsets);
    free(recipe->leaf_here);
    free(recipe);
}
