/*
 * Which recipe is followed, and who is asked for its records.
 *
 * The root that a HAVE names is a claim, and several may be named for one object. Each is asked of those who named it,
 * some at a time, and the first that turns out to be a root of the object is followed. All waits for records and they
 * are small: who is silent for RECORD_LATE_MS longer than two round trips is not waited for, and others are asked.
 *
 *   trust     who gave what was right before goes first, who had to be replaced since then is the last
 *   stuck     nothing comes by the recipe that is followed, and somebody names another: that one is tried, and the
 *             first again only when nothing comes by that either. Each time more patience is had.
 */
#include "node/base/limits.h"
#include "transfer/fetch.h"

#define RECORD_LATE_MS 100u
#define ROOTS_ASKED 2u /* at a time, of peers that have proved nothing yet */
#define STUCK_MS 1500u
#define STUCK_DOUBLINGS 4u

enum trust transfer_source_trust(const struct source *source)
{
    const struct asking *asking = &source->peer->asking;
    return asking->silences > 0 ? TRUST_SILENT : asking->proved ? TRUST_PROVED : TRUST_UNKNOWN;
}

void transfer_source_proved(struct source *source)
{
    source->broke_off = false;
    if (!source->peer)
        return;
    source->peer->asking.proved = true;
    source->peer->asking.silences = 0;
}

bool transfer_roots_is_bad(const struct fetch *fetch, const struct id *root)
{
    for (unsigned i = 0; i < fetch->n_bad_roots; i++) {
        if (id_equal(&fetch->bad_roots[i], root))
            return true;
    }
    return false;
}

bool transfer_roots_may_follow(const struct source *source)
{
    const struct fetch *fetch = source->fetch;
    bool avoided = fetch->exchange->now_ms < fetch->avoided_until_ms && id_equal(&source->root, &fetch->avoided);
    return source->has_root && !avoided && !transfer_roots_is_bad(fetch, &source->root);
}

static void follow(struct source *source)
{
    struct fetch *fetch = source->fetch;
    fetch->root = source->root;
    fetch->teller = source;
    fetch->followed_ms = fetch->exchange->now_ms;
    fetch->phase = FETCH_ROOT;
}

bool transfer_roots_find(struct fetch *fetch)
{
    struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        if (transfer_source_usable(source) && transfer_roots_may_follow(source)) {
            follow(source);
            return true;
        }
    }
    return false;
}

/* ---- whom to ask ---- */

static const struct request *record_asked(const struct source *source)
{
    const struct request *request;
    TAILQ_FOREACH (request, &source->peer->asking.requests, link) {
        if (request->source == source && request->type != STORE_PIECE_CHUNK)
            return request;
    }
    return NULL;
}

static bool may_be_asked(const struct source *source, enum trust trust)
{
    const struct fetch *fetch = source->fetch;
    return transfer_source_usable(source) && transfer_source_trust(source) == trust && !record_asked(source) &&
           (fetch->phase == FETCH_ROOT ? transfer_roots_may_follow(source)
                                       : source->has_root && id_equal(&source->root, &fetch->root));
}

struct source *transfer_roots_next(const struct fetch *fetch)
{
    struct source *source;
    for (enum trust trust = TRUST_PROVED;; trust--) {
        TAILQ_FOREACH (source, &fetch->sources, link) {
            if (may_be_asked(source, trust))
                return source;
        }
        if (trust == TRUST_SILENT)
            return NULL;
    }
}

static unsigned count_waited_for(const struct fetch *fetch, bool *ret_proved)
{
    unsigned n = 0;
    const struct source *source;
    *ret_proved = false;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        const struct request *request = source->peer ? record_asked(source) : NULL;
        if (!request || request->offered)
            continue;
        *ret_proved |= transfer_source_trust(source) == TRUST_PROVED;
        n++;
    }
    return n;
}

void transfer_roots_ask(struct fetch *fetch)
{
    bool proved;
    for (unsigned n = count_waited_for(fetch, &proved); n < ROOTS_ASKED && !proved; n++) {
        struct source *source = transfer_roots_next(fetch);
        struct request *request =
            source ? transfer_schedule_records(source, STORE_PIECE_ROOT, &source->root, NULL, 1) : NULL;
        if (!request)
            return;
        request->root = source->root;
        proved = transfer_source_trust(source) == TRUST_PROVED;
    }
}

void transfer_roots_settle(struct fetch *fetch)
{
    struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        if (source != fetch->teller && source->peer)
            transfer_schedule_drop_all(source->peer, fetch, true);
    }
}

/* ---- silence ---- */

uint64_t transfer_roots_tick(struct exchange_peer *peer)
{
    struct asking *asking = &peer->asking;
    if (asking->n_records == 0)
        return UINT64_MAX;
    uint64_t patience_ms = RECORD_LATE_MS + 2 * (uint64_t)peer->out.rtt_ms(peer->out.ctx);
    uint64_t next_ms = UINT64_MAX;
    struct request *request;
    TAILQ_FOREACH (request, &asking->requests, link) {
        if (request->type == STORE_PIECE_CHUNK || request->offered)
            continue;
        uint64_t since_ms = request->sent_ms > asking->heard_ms ? request->sent_ms : asking->heard_ms;
        if (peer->exchange->now_ms >= since_ms + patience_ms) {
            request->offered = true;
            asking->silences++;
        } else if (since_ms + patience_ms < next_ms) {
            next_ms = since_ms + patience_ms;
        }
    }
    return next_ms;
}

/* Does anybody name another recipe? */
static bool is_choice(const struct fetch *fetch)
{
    const struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        if (transfer_source_usable(source) && transfer_source_trust(source) != TRUST_SILENT && source->has_root &&
            !id_equal(&source->root, &fetch->root) && !transfer_roots_is_bad(fetch, &source->root))
            return true;
    }
    return false;
}

bool transfer_roots_are_stuck(const struct fetch *fetch)
{
    uint64_t since_ms = fetch->progress_ms > fetch->followed_ms ? fetch->progress_ms : fetch->followed_ms;
    unsigned doublings = fetch->n_stuck < STUCK_DOUBLINGS ? fetch->n_stuck : STUCK_DOUBLINGS;
    return (fetch->phase == FETCH_LEAVES || fetch->phase == FETCH_CHUNKS) && !fetch->working &&
           fetch->exchange->now_ms >= since_ms + ((uint64_t)STUCK_MS << doublings) && is_choice(fetch);
}

void transfer_roots_avoid(struct fetch *fetch)
{
    unsigned doublings = fetch->n_stuck < STUCK_DOUBLINGS ? fetch->n_stuck : STUCK_DOUBLINGS;
    fetch->avoided = fetch->root;
    fetch->avoided_until_ms = fetch->exchange->now_ms + ((uint64_t)STUCK_MS << doublings);
    fetch->n_stuck++;
}
