#include <stdlib.h>

#include "node/base/limits.h"
#include "transfer/exchange.h"

void transfer_recipe_unref(struct recipe_ref *ref)
{
    if (!ref || --ref->refs > 0)
        return;
    store_recipe_free(ref->recipe);
    free(ref);
}

void transfer_recipe_fill(struct store *store, struct store_recipe *recipe)
{
    OWNED(owned_free) uint8_t *leaf = malloc(STORE_LEAF_MAX_BYTES);
    for (uint32_t i = 0; leaf && i < recipe->root.leaf_count; i++) {
        size_t len = 0;
        if (!store_recipe_has_leaf(recipe, i) &&
            store_piece_read_raw(store, STORE_PIECE_LEAF, &recipe->root.leaves[i].id, leaf, STORE_LEAF_MAX_BYTES, &len,
                                 NULL) == 1)
            store_recipe_add_leaf(recipe, i, leaf, len, NULL);
    }
}

struct recipe_ref *transfer_recipes_get(struct exchange *exchange, const struct id *root)
{
    struct recipe_ref *ref = map_get(&exchange->recipes.map, root);
    if (!ref)
        return NULL;
    ref->used_ms = exchange->now_ms;
    ref->refs++;
    return ref;
}

static void forget(struct recipes *recipes, struct recipe_ref *ref)
{
    map_remove(&recipes->map, &ref->recipe->root_id);
    recipes->chunks -= ref->recipe->root.chunk_count;
    transfer_recipe_unref(ref);
}

/* The one that was used longest ago, of those that nobody uses now. */
static struct recipe_ref *find_oldest(const struct recipes *recipes)
{
    struct recipe_ref *oldest = NULL;
    size_t cursor = 0;
    for (void *value; map_next(&recipes->map, &cursor, NULL, &value);) {
        struct recipe_ref *ref = value;
        if (ref->refs == 1 && (!oldest || ref->used_ms < oldest->used_ms))
            oldest = ref;
    }
    return oldest;
}

static void make_room(struct recipes *recipes, uint64_t chunks)
{
    while (recipes->map.count >= LIMIT_RECIPES || recipes->chunks + chunks > LIMIT_RECIPES_CHUNKS) {
        struct recipe_ref *oldest = find_oldest(recipes);
        if (!oldest)
            return;
        forget(recipes, oldest);
    }
}

struct recipe_ref *transfer_recipes_add(struct exchange *exchange, struct store_recipe *recipe)
{
    struct recipe_ref *known = transfer_recipes_get(exchange, &recipe->root_id);
    if (known) {
        store_recipe_free(recipe);
        return known;
    }
    struct recipe_ref *ref = calloc(1, sizeof *ref);
    if (!ref) {
        store_recipe_free(recipe);
        return NULL;
    }
    *ref = (struct recipe_ref){.recipe = recipe, .refs = 1, .used_ms = exchange->now_ms};
    struct recipes *recipes = &exchange->recipes;
    make_room(recipes, recipe->root.chunk_count);
    /* when all are in use there is no place for one more: its user has it all the same */
    if (map_set(&recipes->map, &recipe->root_id, ref) == 0) {
        recipes->chunks += recipe->root.chunk_count;
        ref->refs++;
    }
    return ref;
}

void transfer_recipes_release(struct recipes *recipes)
{
    size_t cursor = 0;
    for (void *value; map_next(&recipes->map, &cursor, NULL, &value);)
        transfer_recipe_unref(value);
    map_release(&recipes->map);
}
