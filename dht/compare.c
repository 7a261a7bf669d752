/*
 * Answering those who compare what they hold with us. A range of many keys is digested over several turns, and answered
 * when that is done.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"

#define PAUSE_MS 2u
#define STEP_KEYS 2048
#define BUSY_MS 2000u
#define NOT_OURS_MS 600000u
#define FILL_MS 60000u    /* no two newcomers are given all within half of it, none twice within it */
#define SLACK_BITS 2      /* what others take for our common subtree may be larger */
#define SERVED_PER_MS 100 /* keys digested for others */
#define SERVED_BURST 1048576
#define ROWS_OF_A_KEY 16 /* looked at for its digest, when that has changed, cost as much as one more key */

struct dht_comparing {
    struct dht_contact asker;
    uint64_t transaction;
    uint8_t digest[DHT_DIGEST_BYTES];
    struct dht_digesting digesting;
};

static void refuse(struct dht *dht, const struct dht_contact *to, uint64_t transaction, uint32_t wait_ms)
{
    dht_rpc_answer(dht, to, transaction, &(struct dht_message){.type = DHT_REFUSED, .wait_ms = wait_ms});
}

static bool is_empty(const uint8_t digest[DHT_DIGEST_BYTES])
{
    static const uint8_t branches[DHT_BRANCHES][DHT_DIGEST_BYTES];
    uint8_t empty[DHT_DIGEST_BYTES];
    crypto_blake2b(empty, sizeof empty, NULL, 0, branches, sizeof branches, NULL, 0);
    return memcmp(digest, empty, sizeof empty) == 0;
}

/* Is it for us to say what is in this range? */
static bool is_common(const struct dht *dht, const struct dht_range *range)
{
    unsigned bits = dht_common_bits(dht);
    bits = bits > SLACK_BITS ? bits - SLACK_BITS : 0;
    return range->bits >= bits && range->bits <= ID_BYTES * 8 - 4 &&
           dht_shared_bits(&dht->self.id, &range->first) >= bits;
}

/* Give it all, which costs far less than its asking for each key; but not to one who says again and again that it has
 * nothing. */
static bool fill(struct dht *dht, const struct dht_contact *asker)
{
    struct dht_compares *compares = &dht->compares;
    struct dht_range range = dht_common_range(dht);
    bool again = id_equal(&compares->filled, &asker->id) && dht->now_ms < compares->fill_ms;
    if (again || dht->now_ms + FILL_MS / 2 < compares->fill_ms || !dht_range_has(&range, &asker->id))
        return false;
    compares->filled = asker->id;
    compares->fill_ms = dht->now_ms + FILL_MS;
    dht_reconcile_soon(dht, asker);
    return true;
}

static void answer_compared(struct dht *dht, const struct dht_comparing *comparing)
{
    const struct dht_digesting *digesting = &comparing->digesting;
    struct dht_message answer = {.type = DHT_COMPARED, .compared = DHT_SAME};
    if (memcmp(digesting->digest, comparing->digest, DHT_DIGEST_BYTES) != 0) {
        answer.compared = digesting->key_count <= DHT_COMPARED_KEYS ? DHT_BY_KEY : DHT_BY_BRANCH;
        memcpy(answer.branches, digesting->branches, sizeof answer.branches);
        memcpy(answer.keys, digesting->keys, sizeof answer.keys);
        answer.key_count = digesting->key_count;
    }
    if (answer.compared == DHT_BY_BRANCH && is_empty(comparing->digest) && fill(dht, &comparing->asker))
        refuse(dht, &comparing->asker, comparing->transaction, NOT_OURS_MS);
    else
        dht_rpc_answer(dht, &comparing->asker, comparing->transaction, &answer);
}

/* Digest some more; true when it has been answered. */
static bool serve_step(struct dht *dht, struct dht_comparing *comparing)
{
    struct dht_compares *compares = &dht->compares;
    uint64_t work = dht->hold.work;
    bool done = dht_digesting_step(dht, &comparing->digesting, STEP_KEYS);
    if (done)
        answer_compared(dht, comparing);
    uint64_t cost = done ? comparing->digesting.key_count % STEP_KEYS : STEP_KEYS;
    cost += (dht->hold.work - work) / ROWS_OF_A_KEY;
    compares->allowance -= dht_min_ms(compares->allowance, cost);
    return done;
}

static bool has_allowance(struct dht *dht)
{
    struct dht_compares *compares = &dht->compares;
    compares->allowance += (dht->now_ms - compares->counted_ms) * SERVED_PER_MS;
    compares->allowance = dht_min_ms(compares->allowance, SERVED_BURST);
    compares->counted_ms = dht->now_ms;
    return compares->allowance > 0;
}

void dht_compare_serve(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    struct dht_compares *compares = &dht->compares;
    struct dht_range range = {dht_range_first(&request->target, request->prefix_bits), request->prefix_bits};
    struct dht_comparing comparing = {.asker = *from, .transaction = request->transaction};
    const struct dht_comparing *present = compares->comparing;
    if (present && present->transaction == request->transaction && id_equal(&present->asker.id, &from->id))
        return; /* asked once more: the answer will come */
    bool client = dht->config.client || request->flags & DHT_FROM_CLIENT;
    if (present || client || !is_common(dht, &range) || !has_allowance(dht)) {
        refuse(dht, from, request->transaction, present ? BUSY_MS : NOT_OURS_MS);
        return;
    }
    memcpy(comparing.digest, request->digest, sizeof comparing.digest);
    dht_digesting_init(&comparing.digesting, &range);
    if (serve_step(dht, &comparing))
        return;
    compares->comparing = malloc(sizeof comparing);
    if (compares->comparing)
        *compares->comparing = comparing;
    dht->compares.wake_ms = dht->now_ms;
}

void dht_compare_release(struct dht_compares *compares)
{
    free(compares->comparing);
}

void dht_compare_tick(struct dht *dht)
{
    struct dht_compares *compares = &dht->compares;
    if (!compares->comparing || dht->now_ms < compares->wake_ms)
        return;
    compares->wake_ms = dht->now_ms + PAUSE_MS;
    if (serve_step(dht, compares->comparing)) {
        free(compares->comparing);
        compares->comparing = NULL;
    }
}

uint64_t dht_compare_next_ms(const struct dht *dht)
{
    return dht->compares.comparing ? dht->compares.wake_ms : UINT64_MAX;
}
