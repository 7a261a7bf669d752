#include "node/gateway/set.h"

#include <stdlib.h>
#include <string.h>

static int compare_names(const void *a, size_t a_len, const void *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order != 0 ? order : (a_len > b_len) - (a_len < b_len);
}

static int compare_members(void *ctx, const struct tree_node *a_node, const struct tree_node *b_node)
{
    (void)ctx;
    const struct set_member *a = TREE_OF(a_node, struct set_member, node);
    const struct set_member *b = TREE_OF(b_node, struct set_member, node);
    if (a->score != b->score)
        return a->score < b->score ? -1 : 1;
    return compare_names(a->name.bytes, a->name.len, b->name.bytes, b->name.len);
}

struct set *set_new(const void *name, size_t name_len, uint64_t seed)
{
    struct set *set = calloc(1, sizeof *set + name_len + 1);
    if (!set)
        return NULL;
    memcpy(set->bytes, name, name_len);
    set->name = (struct name){.bytes = set->bytes, .len = (uint32_t)name_len};
    set->id = dht_key(DHT_SET, name, name_len);
    tree_init(&set->order, compare_members, NULL);
    names_init(&set->members, seed);
    return set;
}

static void free_member(void *ctx, struct name *name)
{
    (void)ctx;
    free((char *)name - offsetof(struct set_member, name));
}

void set_free(struct set *set)
{
    if (!set)
        return;
    names_each(&set->members, free_member, NULL);
    names_release(&set->members);
    free(set);
}

static struct set_member *member_of(struct name *name)
{
    return name ? (struct set_member *)((char *)name - offsetof(struct set_member, name)) : NULL;
}

struct set_member *set_find_any(const struct set *set, const void *name, size_t name_len)
{
    return member_of(names_find(&set->members, name, name_len));
}

struct set_member *set_find(const struct set *set, const void *name, size_t name_len)
{
    struct set_member *member = set_find_any(set, name, name_len);
    return member && !member->tombstone ? member : NULL;
}

/* ---- joining ---- */

struct set_member *set_reserve(struct set *set, const void *name, size_t name_len)
{
    struct set_member *member = set_find_any(set, name, name_len);
    if (member)
        return member;
    member = calloc(1, sizeof *member + name_len + 1);
    if (!member)
        return NULL;
    memcpy(member->bytes, name, name_len);
    member->name = (struct name){.bytes = member->bytes, .len = (uint32_t)name_len};
    member->set = set;
    member->tombstone = true;
    if (names_add(&set->members, &member->name) < 0) {
        free(member);
        return NULL;
    }
    return member;
}

/* Does what was said last win? Of equal versions by different writers the DHT keeps one by their hashes, which are not
 * known here: what it tells is taken. */
static bool is_news(const struct set_member *member, const struct set_change *change)
{
    int order = dht_version_compare(&change->version, &member->version);
    if (order != 0)
        return order > 0;
    if (change->tombstone != member->tombstone)
        return change->tombstone;
    return !change->tombstone && change->score != member->score;
}

struct set_member *set_join(struct set *set, const struct set_change *change)
{
    if (change->version.epoch <= set->floor)
        return NULL;
    struct set_member *member = set_reserve(set, change->name, change->name_len);
    if (!member || !is_news(member, change))
        return NULL;
    bool moves = member->tombstone || change->tombstone || member->score != change->score;
    if (moves && !member->tombstone)
        tree_remove(&set->order, &member->node);
    member->score = change->score;
    member->version = change->version;
    member->tombstone = change->tombstone;
    if (moves && !member->tombstone)
        tree_insert(&set->order, &member->node);
    return member;
}

bool set_join_meta(struct set *set, const struct set_change *change, bool *ret_forgotten)
{
    *ret_forgotten = false;
    bool newer = dht_version_compare(&change->version, &set->meta_version) > 0;
    bool clears = change->cleared_ms > set->cleared_ms;
    if (!newer && !clears)
        return false;
    /* A clearing is never undone, whoever spoke last of the set: two nodes may have spoken at once. */
    if (clears)
        set->cleared_ms = change->cleared_ms;
    if (newer) {
        *ret_forgotten = set->floor > set->cleared_ms && change->expires_ms != set->expires_ms;
        set->expires_ms = change->expires_ms;
        set->meta_version = change->version;
    }
    if (*ret_forgotten)
        set->floor = set->cleared_ms;
    return true;
}

void set_forget(struct set *set, struct set_member *member)
{
    if (!member->tombstone)
        tree_remove(&set->order, &member->node);
    names_remove(&set->members, &member->name);
    set->own_count -= member->own;
    free(member);
}

struct purge {
    struct set *set;
    set_forget_cb forget;
    void *ctx;
};

static void purge_member(void *ctx, struct name *name)
{
    const struct purge *purge = ctx;
    struct set_member *member = member_of(name);
    if (member->version.epoch > purge->set->floor)
        return;
    purge->forget(purge->ctx, member);
    set_forget(purge->set, member);
}

void set_purge(struct set *set, uint64_t wall_ms, set_forget_cb forget, void *ctx)
{
    uint64_t floor = set->cleared_ms;
    if (set->expires_ms != 0 && set->expires_ms <= wall_ms && set->expires_ms > floor)
        floor = set->expires_ms;
    if (floor <= set->floor)
        return;
    set->floor = floor;
    names_each(&set->members, purge_member, &(struct purge){set, forget, ctx});
}

/* ---- ranges ---- */

static int probe_score(const void *key, const struct tree_node *node)
{
    double score = *(const double *)key;
    const struct set_member *member = TREE_OF(node, struct set_member, node);
    return (score > member->score) - (score < member->score);
}

static int probe_name(const void *key, const struct tree_node *node)
{
    const struct set_bound *bound = key;
    const struct set_member *member = TREE_OF(node, struct set_member, node);
    return compare_names(bound->name, bound->name_len, member->name.bytes, member->name.len);
}

static struct set_range ordered(size_t begin, size_t end)
{
    return (struct set_range){begin, end > begin ? end : begin};
}

struct set_range set_range_of_scores(const struct set *set, const struct set_scores *scores)
{
    const struct tree *order = &set->order;
    size_t begin = scores->min_excluded ? tree_upper(order, probe_score, &scores->min)
                                        : tree_lower(order, probe_score, &scores->min);
    size_t end = scores->max_excluded ? tree_lower(order, probe_score, &scores->max)
                                      : tree_upper(order, probe_score, &scores->max);
    return ordered(begin, end);
}

/* The rank of the first member past the bound: past the name itself if `over`. */
static size_t rank_of_bound(const struct set *set, const struct set_bound *bound, bool over)
{
    if (bound->kind != SET_BOUND_NAME)
        return bound->kind == SET_BOUND_LEAST ? 0 : set_count(set);
    return over ? tree_upper(&set->order, probe_name, bound) : tree_lower(&set->order, probe_name, bound);
}

struct set_range set_range_of_names(const struct set *set, const struct set_bound *min, const struct set_bound *max)
{
    return ordered(rank_of_bound(set, min, min->excluded), rank_of_bound(set, max, !max->excluded));
}
