/*
 * An order-statistic tree: intrusive, ordered by its owner's comparison, and every node knows how many are below it, so
 * that the n-th node, the rank of a node and the size of any range cost O(log n).
 *
 * A weight-balanced tree (Nievergelt and Reingold 1973) with the parameters <3, 2> that Hirai and Yamamoto proved
 * ("Balancing weight-balanced trees", 2011). Allocates nothing and owns no node: a node is a member of what it orders
 * and stays where it is until it is removed. Deterministic: the same calls give the same shape.
 *
 * 1. No two nodes of a tree compare equal.
 * 2. Ranks count from 0. A rank that is not there gives NULL, so bounds need no case of their own.
 * 3. A cursor is good until the tree changes. Walking n nodes with it costs O(n + log N).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tree_node {
    struct tree_node *left;
    struct tree_node *right;
    uint32_t count; /* of this subtree, itself included */
};

/* The order of two nodes: <0, 0, >0. */
typedef int (*tree_compare_cb)(void *ctx, const struct tree_node *a, const struct tree_node *b);

struct tree {
    struct tree_node *root; /* borrowed, as all nodes */
    tree_compare_cb compare;
    void *ctx; /* borrowed */
};

/* Where a sought place lies, seen from a node: <0 before it, 0 at it, >0 after it. A key that names only the first part
 * of what orders the nodes is at several of them. */
typedef int (*tree_probe_cb)(const void *key, const struct tree_node *node);

/* The struct whose member `member` the node is; NULL for NULL. */
#define TREE_OF(node, type, member)                                                                                    \
    __extension__({                                                                                                    \
        const struct tree_node *tree_of_ = (node);                                                                     \
        tree_of_ ? (type *)((char *)(uintptr_t)tree_of_ - offsetof(type, member)) : (type *)NULL;                      \
    })

void tree_init(struct tree *tree, tree_compare_cb compare, void *ctx);

static inline size_t tree_count(const struct tree *tree)
{
    return tree->root ? tree->root->count : 0;
}

/* Insert and return NULL; or return the node that compares equal and is there already, and change nothing. At most
 * 2^32 - 1 nodes. */
struct tree_node *tree_insert(struct tree *tree, struct tree_node *node);
/* Take out the node, which must be in the tree and compare as it did when it was inserted. False: it was not there. */
bool tree_remove(struct tree *tree, struct tree_node *node);

/* The node at the key, the first of several; or NULL. */
struct tree_node *tree_find(const struct tree *tree, tree_probe_cb probe, const void *key);
/* How many nodes are before the key: the rank of the first one at or after it. */
size_t tree_lower(const struct tree *tree, tree_probe_cb probe, const void *key);
/* How many nodes are before or at the key: the rank of the first one after it. */
size_t tree_upper(const struct tree *tree, tree_probe_cb probe, const void *key);

struct tree_node *tree_at(const struct tree *tree, size_t rank);
/* How many nodes are before this one, which is in the tree. */
size_t tree_rank(const struct tree *tree, const struct tree_node *node);

/* log(2^32) / log(4/3) = 77.1: a child has at most 3/4 of its parent's weight. */
#define TREE_HEIGHT_MAX 80

struct tree_cursor {
    size_t depth;
    struct tree_node *path[TREE_HEIGHT_MAX]; /* from the root to the node it is on */
};

/* Put the cursor on the node of that rank and return it, or NULL. */
struct tree_node *tree_seek(const struct tree *tree, struct tree_cursor *cursor, size_t rank);
/* Move to the next or previous node and return it; NULL at the end, and from then on. */
struct tree_node *tree_next(struct tree_cursor *cursor);
struct tree_node *tree_prev(struct tree_cursor *cursor);
