#include "node/base/tree.h"

#include <assert.h>

/* Of two siblings the heavier weighs at most DELTA times the lighter. A rotation is a double one when the inner
 * grandchild weighs at least GAMMA times the outer. */
#define DELTA 3
#define GAMMA 2

/* The links from the root down to a place, to be repaired from the end to the beginning. */
struct path {
    size_t depth;
    struct tree_node **links[TREE_HEIGHT_MAX + 1];
};

static void path_push(struct path *path, struct tree_node **link)
{
    assert(path->depth < TREE_HEIGHT_MAX + 1);
    path->links[path->depth++] = link;
}

static size_t count_of(const struct tree_node *node)
{
    return node ? node->count : 0;
}

static uint64_t weight_of(const struct tree_node *node)
{
    return (uint64_t)count_of(node) + 1;
}

static void count_again(struct tree_node *node)
{
    node->count = (uint32_t)(1 + count_of(node->left) + count_of(node->right));
}

static struct tree_node *rotate_left(struct tree_node *node)
{
    struct tree_node *top = node->right;
    node->right = top->left;
    top->left = node;
    count_again(node);
    count_again(top);
    return top;
}

static struct tree_node *rotate_right(struct tree_node *node)
{
    struct tree_node *top = node->left;
    node->left = top->right;
    top->right = node;
    count_again(node);
    count_again(top);
    return top;
}

static struct tree_node *balance(struct tree_node *node)
{
    uint64_t left = weight_of(node->left);
    uint64_t right = weight_of(node->right);
    if (right > DELTA * left) {
        if (weight_of(node->right->left) >= GAMMA * weight_of(node->right->right))
            node->right = rotate_right(node->right);
        return rotate_left(node);
    }
    if (left > DELTA * right) {
        if (weight_of(node->left->right) >= GAMMA * weight_of(node->left->left))
            node->left = rotate_left(node->left);
        return rotate_right(node);
    }
    return node;
}

static void repair(struct path *path)
{
    while (path->depth > 0) {
        struct tree_node **link = path->links[--path->depth];
        count_again(*link);
        *link = balance(*link);
    }
}

void tree_init(struct tree *tree, tree_compare_cb compare, void *ctx)
{
    *tree = (struct tree){.compare = compare, .ctx = ctx};
}

/* The link that points to the node that compares equal, or that would. */
static struct tree_node **descend(struct tree *tree, const struct tree_node *node, struct path *ret_path)
{
    struct tree_node **link = &tree->root;
    while (*link) {
        int order = tree->compare(tree->ctx, node, *link);
        if (order == 0)
            break;
        path_push(ret_path, link);
        link = order < 0 ? &(*link)->left : &(*link)->right;
    }
    return link;
}

struct tree_node *tree_insert(struct tree *tree, struct tree_node *node)
{
    struct path path = {.depth = 0};
    struct tree_node **link = descend(tree, node, &path);
    if (*link)
        return *link;
    *node = (struct tree_node){.count = 1};
    *link = node;
    repair(&path);
    return NULL;
}

/* Put the next node of two-child *link in its place. What is below `link` of the path then hangs below that one. */
static void replace_by_next(struct tree_node **link, struct path *path)
{
    struct tree_node *node = *link;
    path_push(path, link);
    size_t right = path->depth;
    struct tree_node **next_link = &node->right;
    while ((*next_link)->left) {
        path_push(path, next_link);
        next_link = &(*next_link)->left;
    }
    struct tree_node *next = *next_link;
    *next_link = next->right;
    *next = *node;
    *link = next;
    if (path->depth > right)
        path->links[right] = &next->right;
}

bool tree_remove(struct tree *tree, struct tree_node *node)
{
    struct path path = {.depth = 0};
    struct tree_node **link = descend(tree, node, &path);
    if (*link != node)
        return false;
    if (node->left && node->right)
        replace_by_next(link, &path);
    else
        *link = node->left ? node->left : node->right;
    repair(&path);
    return true;
}

struct tree_node *tree_find(const struct tree *tree, tree_probe_cb probe, const void *key)
{
    struct tree_node *found = NULL;
    for (struct tree_node *node = tree->root; node;) {
        int order = probe(key, node);
        if (order == 0)
            found = node;
        node = order <= 0 ? node->left : node->right;
    }
    return found;
}

size_t tree_lower(const struct tree *tree, tree_probe_cb probe, const void *key)
{
    size_t before = 0;
    for (const struct tree_node *node = tree->root; node;) {
        if (probe(key, node) <= 0) {
            node = node->left;
        } else {
            before += count_of(node->left) + 1;
            node = node->right;
        }
    }
    return before;
}

size_t tree_upper(const struct tree *tree, tree_probe_cb probe, const void *key)
{
    size_t before = 0;
    for (const struct tree_node *node = tree->root; node;) {
        if (probe(key, node) < 0) {
            node = node->left;
        } else {
            before += count_of(node->left) + 1;
            node = node->right;
        }
    }
    return before;
}

struct tree_node *tree_at(const struct tree *tree, size_t rank)
{
    struct tree_node *node = tree->root;
    while (node) {
        size_t before = count_of(node->left);
        if (rank == before)
            break;
        if (rank < before) {
            node = node->left;
        } else {
            rank -= before + 1;
            node = node->right;
        }
    }
    return node;
}

size_t tree_rank(const struct tree *tree, const struct tree_node *sought)
{
    size_t before = 0;
    for (const struct tree_node *node = tree->root; node;) {
        int order = tree->compare(tree->ctx, sought, node);
        if (order == 0)
            return before + count_of(node->left);
        if (order > 0)
            before += count_of(node->left) + 1;
        node = order < 0 ? node->left : node->right;
    }
    return before;
}

struct tree_node *tree_seek(const struct tree *tree, struct tree_cursor *cursor, size_t rank)
{
    cursor->depth = 0;
    for (struct tree_node *node = tree->root; node;) {
        cursor->path[cursor->depth++] = node;
        size_t before = count_of(node->left);
        if (rank == before)
            return node;
        if (rank < before) {
            node = node->left;
        } else {
            rank -= before + 1;
            node = node->right;
        }
    }
    cursor->depth = 0;
    return NULL;
}

/* Climb to the nearest node whose other side is where the cursor was: the next one up, on the way right or left. */
static struct tree_node *climb(struct tree_cursor *cursor, bool rightwards)
{
    while (cursor->depth > 1) {
        struct tree_node *child = cursor->path[--cursor->depth];
        struct tree_node *node = cursor->path[cursor->depth - 1];
        if (child == (rightwards ? node->left : node->right))
            return node;
    }
    cursor->depth = 0;
    return NULL;
}

struct tree_node *tree_next(struct tree_cursor *cursor)
{
    if (cursor->depth == 0)
        return NULL;
    struct tree_node *node = cursor->path[cursor->depth - 1]->right;
    if (!node)
        return climb(cursor, true);
    for (; node; node = node->left)
        cursor->path[cursor->depth++] = node;
    return cursor->path[cursor->depth - 1];
}

struct tree_node *tree_prev(struct tree_cursor *cursor)
{
    if (cursor->depth == 0)
        return NULL;
    struct tree_node *node = cursor->path[cursor->depth - 1]->left;
    if (!node)
        return climb(cursor, false);
    for (; node; node = node->right)
        cursor->path[cursor->depth++] = node;
    return cursor->path[cursor->depth - 1];
}
