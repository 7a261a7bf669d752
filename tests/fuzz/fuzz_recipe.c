/*
 * Recipes as a peer sends them. The first byte chooses: a root, a leaf, or a root with leaves behind it (each part with
 * a u32 length in front). What decodes must encode to the same bytes: one recipe has one encoding.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/scope.h"
#include "node/base/wire.h"
#include "store/recipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same(const struct buf *buf, const uint8_t *data, size_t size)
{
    if (buf->failed || buf->len != size || memcmp(buf->data, data, size) != 0)
        abort();
}

static void try_root(const uint8_t *data, size_t size)
{
    OWNED(store_root_release) struct store_root root = {0};
    if (store_root_decode(data, size, &root, NULL) < 0)
        return;
    OWNED(buf_release) struct buf again = BUF(STORE_ROOT_MAX_BYTES);
    store_root_encode(&root, &again, NULL);
    same(&again, data, size);
    const struct store_leaf *leaf = store_root_leaf_at(&root, root.size_bytes / 2);
    if (leaf && (root.size_bytes / 2 < leaf->offset || root.size_bytes / 2 >= leaf->offset + leaf->span_bytes))
        abort();
}

static void try_leaf(const uint8_t *data, size_t size, bool is_last)
{
    OWNED(owned_free) struct store_chunk *chunks = malloc(STORE_LEAF_MAX_CHUNKS * sizeof *chunks);
    uint32_t count;
    if (!chunks || store_leaf_decode(data, size, is_last, chunks, &count, NULL) < 0)
        return;
    OWNED(buf_release) struct buf again = BUF(STORE_LEAF_MAX_BYTES);
    store_leaf_encode(chunks, count, &again, NULL);
    same(&again, data, size);
}

static void try_recipe(const uint8_t *data, size_t size)
{
    struct wire wire;
    wire_init(&wire, data, size);
    size_t len;
    const uint8_t *part = wire_get_long(&wire, STORE_ROOT_MAX_BYTES, &len);
    struct store_recipe *recipe = NULL;
    if (wire.failed || store_recipe_from_root(part, len, &recipe, NULL) < 0)
        return;
    for (uint32_t i = 0; i < recipe->root.leaf_count; i++) {
        part = wire_get_long(&wire, STORE_LEAF_MAX_BYTES, &len);
        if (wire.failed)
            break;
        store_recipe_add_leaf(recipe, i, part, len, NULL);
    }
    if (store_recipe_complete(recipe)) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < recipe->root.chunk_count; i++)
            sum += recipe->chunks[i].length;
        if (sum != recipe->root.size_bytes)
            abort();
    }
    store_recipe_free(recipe);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] == 0)
        try_root(data + 1, size - 1);
    else if (data[0] <= 2)
        try_leaf(data + 1, size - 1, data[0] == 2);
    else
        try_recipe(data + 1, size - 1);
    return 0;
}
