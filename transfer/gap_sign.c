/* A provider has not got the basis: it gets signatures of the ranges, if that is expected to pay. */
#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/limits.h"
#include "node/base/wire.h"
#include "transfer/gap.h"
#include "transfer/gap_code.h"
#include "transfer/rsync.h"

/* CPU in ns a byte, measured on one core (docs/decisions/014-gaps.md). */
#define SIGN_NS 2.0    /* of the range, here */
#define MATCHED_NS 2.1 /* of the gap there, where it is found in the basis */
#define UNMATCHED_NS 14.0
#define PLAIN_NS 1.5      /* of what is sent as it is: read, sealed, opened, checked */
#define SHARE_UNKNOWN 0.1 /* of a gap that is new, as long as nothing has come */

struct signing {
    struct id key; /* in the cache */
    uint32_t number;
    uint64_t range_offset;
    uint32_t range_bytes;
    struct buf signature;
};

struct sign_job {
    struct job job;
    struct store *store;
    struct exchange_peer *peer; /* pinned */
    uint32_t request;
    struct recipe_ref *basis; /* a ref */
    unsigned n;
    struct signing gaps[MESSAGE_GAPS_MAX];
};

/* ---- does it pay? ---- */

/* How much of a gap is new, going by what has come. */
static double share(const struct fetch *fetch)
{
    uint64_t gap_bytes = fetch->deltas.gap_bytes[MESSAGE_CODEC_RSYNC] + fetch->deltas.gap_bytes[MESSAGE_CODEC_PLAIN];
    uint64_t wire_bytes = fetch->deltas.wire_bytes[MESSAGE_CODEC_RSYNC] + fetch->deltas.wire_bytes[MESSAGE_CODEC_PLAIN];
    return gap_bytes > 0 ? (double)wire_bytes / (double)gap_bytes : SHARE_UNKNOWN;
}

bool transfer_gaps_signatures_pay(const struct gap_costs *costs)
{
    if (costs->goodput == 0 || costs->price > 0)
        return true;
    double byte_ns = 1e9 / (double)costs->goodput;
    double literal = costs->literal_share;
    double signature_bytes = costs->range_bytes / RSYNC_BLOCK_BYTES * (RSYNC_WEAK_BYTES + RSYNC_STRONG_BYTES);
    double by_signature = costs->rtt_ms * 1e6 + costs->range_bytes * SIGN_NS + signature_bytes * byte_ns +
                          costs->gap_bytes * ((1 - literal) * MATCHED_NS + literal * (UNMATCHED_NS + byte_ns));
    return by_signature < costs->gap_bytes * (PLAIN_NS + byte_ns);
}

static bool do_they_pay(const struct request *request)
{
    const struct exchange_peer *peer = request->source->peer;
    const struct fetch *fetch = request->source->fetch;
    struct gap_costs costs = {.literal_share = share(fetch),
                              .goodput = peer->asking.goodput.rate,
                              .rtt_ms = peer->out.rtt_ms(peer->out.ctx),
                              .price = peer->asking.price};
    for (unsigned i = 0; i < request->gaps->n; i++) {
        const struct gap *gap = &fetch->gaps->plan.gaps[request->gaps->gaps[i]];
        costs.gap_bytes += gap->bytes;
        costs.range_bytes += gap->range_bytes;
    }
    return transfer_gaps_signatures_pay(&costs);
}

/* ---- the job ---- */

static void sign_work(struct job *job)
{
    struct sign_job *sign = (struct sign_job *)job;
    OWNED(owned_free) uint8_t *range = malloc(LIMIT_GAP_BASIS_BYTES);
    for (unsigned i = 0; range && i < sign->n; i++) {
        struct signing *gap = &sign->gaps[i];
        if (gap->signature.len == 0 &&
            transfer_gap_read(sign->store, sign->basis->recipe, gap->range_offset, gap->range_bytes, range, NULL) == 0)
            transfer_rsync_sign(range, gap->range_bytes, &gap->signature, NULL);
    }
}

static bool send_signatures(struct sign_job *sign, struct request *request)
{
    struct exchange *exchange = sign->job.exchange;
    for (unsigned i = 0; i < sign->n; i++) {
        struct signing *gap = &sign->gaps[i];
        struct message message = {.type = MESSAGE_SIGNATURE,
                                  .request = sign->request,
                                  .index = gap->number,
                                  .items = gap->signature.data,
                                  .n_items = gap->signature.len};
        if (gap->signature.len == 0 || !transfer_peer_send(sign->peer, &message))
            return false;
        transfer_peer_take(sign->peer, PACE_UP, request->source->fetch->class, gap->signature.len);
        request->source->fetch->deltas.signature_bytes += gap->signature.len;
        transfer_gap_cache_put(&exchange->signatures, &gap->key, gap->signature.data, gap->signature.len);
    }
    return true;
}

/* This source is not asked for deltas against that basis again. */
static void refuse(struct request *request)
{
    struct source *source = request->source;
    const struct gaps *gaps = source->fetch->gaps;
    source->plain_bases |= (uint8_t)(1u << gaps->plan.gaps[request->gaps->gaps[0]].basis);
    transfer_schedule_drop(request, true);
    transfer_schedule_all(source->fetch->exchange);
}

static void free_sign_job(struct sign_job *sign)
{
    for (unsigned i = 0; i < sign->n; i++)
        buf_release(&sign->gaps[i].signature);
    transfer_recipe_unref(sign->basis);
    free(sign);
}

static void sign_done(struct job *job)
{
    struct sign_job *sign = (struct sign_job *)job;
    struct exchange_peer *peer = sign->peer;
    bool useless = peer->gone || job->exchange->dead;
    struct request *request = useless ? NULL : transfer_receive_find(peer, sign->request);
    if (request && request->gaps && !send_signatures(sign, request))
        refuse(request); /* the basis cannot be read */
    free_sign_job(sign);
    transfer_peer_unpin(peer);
}

/* ---- asked for signatures ---- */

static struct id signature_key(const struct id *basis, const struct gap *gap)
{
    uint8_t place[12];
    struct id key;
    wire_store_u64(place, gap->range_offset);
    wire_store_u32(place + 8, gap->range_bytes);
    crypto_blake2b(key.b, ID_BYTES, NULL, 0, basis->b, ID_BYTES, place, sizeof place);
    return key;
}

static void plan_signature(struct sign_job *sign, const struct request *request, uint32_t number)
{
    const struct gaps *gaps = request->source->fetch->gaps;
    const struct gap *gap = &gaps->plan.gaps[request->gaps->gaps[number]];
    struct signing *signing = &sign->gaps[sign->n++];
    *signing = (struct signing){.key = signature_key(&gaps->basis_ids[gap->basis], gap),
                                .number = number,
                                .range_offset = gap->range_offset,
                                .range_bytes = gap->range_bytes,
                                .signature = BUF(MESSAGE_SIGNATURE_MAX)};
    size_t len = 0;
    const uint8_t *known = transfer_gap_cache_get(&sign->peer->exchange->signatures, &signing->key, &len);
    if (known)
        buf_add(&signing->signature, known, len);
}

static int start(struct exchange_peer *peer, const struct request *request, const struct message *message,
                 struct err *err)
{
    struct sign_job *sign = calloc(1, sizeof *sign);
    if (!sign)
        return err_set(err, ERR_NOMEM, "no memory for signatures");
    const struct gaps *gaps = request->source->fetch->gaps;
    sign->store = peer->exchange->config.store;
    sign->peer = peer;
    sign->request = request->number;
    sign->basis = transfer_recipe_ref(gaps->bases[gaps->plan.gaps[request->gaps->gaps[0]].basis]);
    for (size_t i = 0; i < message->n_items; i++)
        plan_signature(sign, request, transfer_message_number(message, i));
    transfer_peer_pin(peer);
    transfer_job_submit(peer->exchange, &sign->job, sign_work, sign_done);
    return 0;
}

int transfer_gaps_sign(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    struct request *request = transfer_receive_find(peer, message->request);
    if (!request)
        return transfer_receive_stray(peer, message->request, 0, err);
    if (!request->gaps || request->gaps->signed_for)
        return err_set(err, ERR_PROTOCOL, "signatures asked for twice, or of no gaps");
    for (size_t i = 0; i < message->n_items; i++) {
        if (transfer_message_number(message, i) >= request->gaps->n)
            return err_set(err, ERR_PROTOCOL, "a signature asked for of no gap");
    }
    transfer_schedule_heard(peer, 0);
    request->gaps->signed_for = true;
    if (do_they_pay(request))
        return start(peer, request, message, err);
    refuse(request);
    return 0;
}
