/* Reads of whole sets: the key, and where its holders say so its shards, and theirs; then all is told, by member. */
#include <stdlib.h>

#include "dht/gather.h"
#include "node/base/scope.h"

#define AT_ONCE 4 /* keys that one collection reads at a time */

/* One key that is read, or waits for that. */
struct part {
    TAILQ_ENTRY(part)
    link;
    struct dht_collecting *collecting; /* borrowed */
    unsigned depth;                    /* 0: the key itself, else a shard */
    struct id prefix;
    struct dht_gather *gather; /* NULL: waits */
};

TAILQ_HEAD(parts, part);

struct dht_collecting {
    TAILQ_ENTRY(dht_collecting)
    link;
    uint64_t number;
    uint64_t deadline_ms;
    struct parts parts;   /* owned; those that are read come first */
    size_t reading;       /* of them */
    struct dht_held rows; /* of all keys, as if under the set's own; key and rows alone */
    bool complete;
    bool told;      /* just now */
    bool cancelled; /* meanwhile */
    dht_each_cb each;
    dht_collected_cb collected;
    void *ctx; /* borrowed */
};

void dht_collect_init(struct dht *dht)
{
    TAILQ_INIT(&dht->collects);
    TAILQ_INIT(&dht->gathers);
}

static void free_part(struct dht *dht, struct part *part)
{
    TAILQ_REMOVE(&part->collecting->parts, part, link);
    if (part->gather)
        dht_gather_free(dht, part->gather);
    free(part);
}

static void free_collecting(struct dht *dht, struct dht_collecting *collecting)
{
    TAILQ_REMOVE(&dht->collects, collecting, link);
    while (!TAILQ_EMPTY(&collecting->parts))
        free_part(dht, TAILQ_FIRST(&collecting->parts));
    dht_rows_release(&collecting->rows);
    free(collecting);
    dht->gets.count--;
}

void dht_collect_release(struct dht *dht)
{
    while (!TAILQ_EMPTY(&dht->collects))
        free_collecting(dht, TAILQ_FIRST(&dht->collects));
}

void dht_collect_cancel(struct dht *dht, uint64_t number)
{
    struct dht_collecting *collecting;
    TAILQ_FOREACH (collecting, &dht->collects, link)
        if (collecting->number == number)
            break;
    if (collecting && collecting->told)
        collecting->cancelled = true;
    else if (collecting)
        free_collecting(dht, collecting);
}

static int add_part(struct dht_collecting *collecting, unsigned depth, const struct id *prefix)
{
    struct part *part = calloc(1, sizeof *part);
    if (!part)
        return ERR_NOMEM;
    part->collecting = collecting;
    part->depth = depth;
    part->prefix = *prefix;
    TAILQ_INSERT_TAIL(&collecting->parts, part, link);
    return 0;
}

static void add_shards(struct dht_collecting *collecting, const struct part *part)
{
    for (unsigned i = 0; i < DHT_SHARDS && part->depth < DHT_SHARD_DEPTH_MAX; i++) {
        struct id prefix = dht_shard_prefix(&part->prefix, part->depth, i);
        if (add_part(collecting, part->depth + 1, &prefix) < 0)
            collecting->complete = false;
    }
}

/* One member may be under several keys, from before there were shards and from after: the newest counts. Rows keep no
 * key, so what has been found under a shard's can stand among the others. */
static int merge_row(struct dht_collecting *collecting, const struct dht_held *from, const struct dht_row *row)
{
    const struct dht_row *present = dht_rows_find(&collecting->rows, &row->member);
    uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
    if (present) {
        struct dht_record old, new;
        dht_row_decode(&collecting->rows, present, &old);
        dht_row_decode(&collecting->rows, row, &new);
        if (dht_record_compare(&new, &old) <= 0)
            return 0;
    }
    if (collecting->rows.count >= LIMIT_DHT_COLLECT)
        return ERR_LIMIT;
    size_t len = dht_row_bytes(from, row, bytes);
    OWNED(owned_free) struct dht_row *copy = dht_row_new(&row->member, bytes, len, true);
    if (!copy || dht_rows_set(&collecting->rows, copy) < 0)
        return ERR_NOMEM;
    (void)STEAL(copy);
    return 0;
}

static void merge(struct dht_collecting *collecting, struct dht_gather *gather)
{
    if (collecting->rows.count == 0) {
        struct id key = collecting->rows.key;
        struct dht_held empty = collecting->rows;
        collecting->rows = gather->rows;
        collecting->rows.key = key;
        gather->rows = empty;
        return;
    }
    const struct id *member = NULL;
    for (struct dht_row *row; (row = dht_rows_after(&gather->rows, member)); member = &row->member)
        if (merge_row(collecting, &gather->rows, row) < 0)
            collecting->complete = false;
}

static void on_gathered(struct dht *dht, struct dht_gather *gather, void *owner)
{
    struct part *part = owner;
    struct dht_collecting *collecting = part->collecting;
    part->gather = NULL; /* frees itself */
    collecting->reading--;
    collecting->complete &= gather->complete;
    dht_watch_read(dht, &gather->rows);
    merge(collecting, gather);
    if (gather->deeper)
        add_shards(collecting, part);
    free_part(dht, part);
}

static int start_parts(struct dht *dht, struct dht_collecting *collecting)
{
    struct part *part;
    TAILQ_FOREACH (part, &collecting->parts, link) {
        if (part->gather)
            continue;
        if (collecting->reading == AT_ONCE)
            return 0;
        struct id key =
            part->depth ? dht_shard_key(&collecting->rows.key, part->depth, &part->prefix) : collecting->rows.key;
        part->gather = dht_gather_start(dht, &key, collecting->deadline_ms, on_gathered, part);
        if (!part->gather)
            return ERR_NOMEM;
        collecting->reading++;
    }
    return 0;
}

static void tell(struct dht_collecting *collecting)
{
    const struct id *member = NULL;
    size_t count = 0;
    collecting->told = true;
    for (struct dht_row *row; !collecting->cancelled && (row = dht_rows_after(&collecting->rows, member)); count++) {
        struct dht_record record;
        dht_row_decode(&collecting->rows, row, &record);
        member = &row->member;
        collecting->each(collecting->ctx, &record);
    }
    if (!collecting->cancelled)
        collecting->collected(collecting->ctx, collecting->complete ? 0 : ERR_TIMEOUT, count);
}

static struct dht_collecting *first_finished(struct dht *dht)
{
    struct dht_collecting *collecting;
    TAILQ_FOREACH (collecting, &dht->collects, link)
        if (TAILQ_EMPTY(&collecting->parts) && !collecting->told)
            break;
    return collecting;
}

void dht_collect_tick(struct dht *dht)
{
    struct dht_collecting *collecting;
    dht_gather_tick(dht);
    TAILQ_FOREACH (collecting, &dht->collects, link)
        if (collecting->reading < AT_ONCE && start_parts(dht, collecting) < 0)
            collecting->complete = false; /* once the others are over there is memory again */
    while ((collecting = first_finished(dht))) {
        tell(collecting);
        free_collecting(dht, collecting);
    }
}

uint64_t dht_collect_next_ms(const struct dht *dht)
{
    return TAILQ_EMPTY(&dht->collects) ? UINT64_MAX : dht_gather_next_ms(dht);
}

int dht_collect(struct dht *dht, uint64_t now_ms, const struct id *key, uint64_t timeout_ms, dht_each_cb each,
                dht_collected_cb collected, void *ctx, uint64_t *ret_request, struct err *err)
{
    dht_set_now(dht, now_ms);
    if (dht->gets.count >= LIMIT_DHT_REQUESTS)
        return err_set(err, ERR_LIMIT, "%zu requests are under way already", dht->gets.count);
    struct dht_collecting *collecting = calloc(1, sizeof *collecting);
    if (!collecting)
        return err_set(err, ERR_NOMEM, "no memory for a request");
    TAILQ_INIT(&collecting->parts);
    collecting->number = ++dht->gets.last_request;
    collecting->deadline_ms = dht->now_ms + (timeout_ms ? timeout_ms : DHT_GET_TIMEOUT_MS);
    collecting->rows.key = *key;
    collecting->complete = true;
    collecting->each = each;
    collecting->collected = collected;
    collecting->ctx = ctx;
    TAILQ_INSERT_TAIL(&dht->collects, collecting, link);
    dht->gets.count++;
    if (add_part(collecting, 0, &(struct id){{0}}) < 0 || start_parts(dht, collecting) < 0) {
        free_collecting(dht, collecting);
        return err_set(err, ERR_NOMEM, "no memory for a lookup");
    }
    if (ret_request)
        *ret_request = collecting->number;
    return 0;
}
