/*
 * All that is held under one key.
 *
 *   WALKING --survey--> READING from those who agree --all of it, with that digest--> GATHERED
 *              |           `--not that digest--> READING from three
 *              `--nobody agrees--> READING from three --all of it--> CHECKING --> GATHERED
 *
 * Three who hold the same, by digest, are believed together: the set is read from all of them at once, a slice of the
 * members here and another there, and what comes is right if it has that digest. So a liar can neither invent nor hide
 * a member without two others that lie alike; what it can do is to make us read more. This node counts as a holder, and
 * when it agrees with two others nothing is read at all.
 *
 * If nobody agrees, because something was written just now, say, each of three is asked for the whole set. A record
 * that three tell alike is believed; of all else the signature is checked, in the end or when they tell different
 * things.
 */
#include "dht/gather.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/scope.h"
#include "node/base/wire.h"

#define AGREE 3
#define SLICE_RECORDS 56 /* on average; the sixteen parts of an answer hold 80 records with short names */
#define SLICES_MAX 512   /* of LIMIT_DHT_RECORDS_PER_KEY records 293 */
#define ASKED_NEAR 4     /* x 16 parts that come at once, x 2.3 KiB each in a socket's buffer of 208 KiB */
#define ASKED_FAR 12     /* what is under way for long does not come at once */
#define NEAR_MS 10
#define WINDOW_MAX 4
#define PARTS_MIN 4
#define FAILS_MAX 3
#define CHECKED_AT_ONCE 128  /* x 50 us = 6 ms */
#define SELF DHT_SOURCES_MAX /* as a source */

struct dht_slice {
    struct dht_gather *gather; /* borrowed, as the next */
    struct dht_gather_source *source;
    struct id after, until;
    enum { WAITING, ASKED, DONE } state;
    uint64_t asked_ms;
    bool told;                        /* something, in the answer under way */
    struct id last;                   /* of it */
    struct dht_gather_holder *holder; /* who is asked */
};

/* ---- what comes in ---- */

/* Two tell different things of a member: only what is signed counts. True if the record is the one to keep. */
static bool wins(struct dht *dht, const struct dht_gather *gather, struct dht_row *present,
                 const struct dht_record *record, const struct dht_span *bytes)
{
    struct dht_record before;
    if (!dht_record_is_signed(record, bytes->at, bytes->len, &dht->config.signatures)) {
        dht->stats.bad_records++;
        return false;
    }
    if (!dht_hold_check(dht, &gather->rows, present)) {
        dht->stats.bad_records++;
        return true;
    }
    dht_row_decode(&gather->rows, present, &before);
    return dht_record_compare(record, &before) > 0;
}

/* A record that this source has told. */
static void take(struct dht *dht, struct dht_gather *gather, const struct dht_record *record,
                 const struct dht_span *bytes, size_t source, bool vouched)
{
    struct dht_span brief = dht_record_brief(bytes->at, bytes->len);
    struct dht_row *present = dht_rows_find(&gather->rows, &record->member);
    uint8_t told_by = (uint8_t)(1u << source);
    if (present && present->len == brief.len && memcmp(present->brief, brief.at, brief.len) == 0) {
        present->told_by |= told_by;
        present->vouched |= vouched;
        return;
    }
    if (present && !wins(dht, gather, present, record, bytes))
        return;
    if (!present && gather->rows.count >= LIMIT_DHT_COLLECT) {
        gather->complete = false;
        return;
    }
    struct dht_row *row = dht_row_new(&record->member, bytes->at, bytes->len, vouched || present);
    if (row)
        row->told_by = told_by;
    if (!row || dht_rows_set(&gather->rows, row) < 0) {
        free(row);
        gather->complete = false;
    }
}

static void take_part(struct dht *dht, struct dht_slice *slice, const struct dht_message *reply)
{
    struct dht_gather *gather = slice->gather;
    for (size_t i = 0; i < reply->record_count; i++) {
        struct dht_record record;
        uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
        struct dht_span whole = {bytes, dht_record_unbrief(&gather->rows.key, &reply->records[i], bytes)};
        bool good = dht_record_decode(whole.at, whole.len, &record) &&
                    dht_record_is_timely(&record, dht_wall_ms(dht)) && !dht_is_by_revoked(dht, &record) &&
                    id_compare(&record.member, &slice->after) > 0 && id_compare(&record.member, &slice->until) <= 0;
        if (!good) {
            dht->stats.bad_records++;
            continue;
        }
        if (!slice->told || id_compare(&slice->last, &record.member) < 0)
            slice->last = record.member;
        slice->told = true;
        take(dht, gather, &record, &whole, (size_t)(slice->source - gather->sources), false);
    }
}

/* What this node holds itself. */
static void take_held(struct dht *dht, struct dht_gather *gather)
{
    struct dht_held *held = dht_hold_of_key(dht, &gather->rows.key);
    const struct id *member = NULL;
    for (struct dht_row *row; held && (row = dht_rows_after(held, member)); member = &row->member) {
        struct dht_record record;
        uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
        struct dht_span whole = {bytes, dht_row_bytes(held, row, bytes)};
        if (dht_record_decode(whole.at, whole.len, &record) && record.expiry_wall_ms > dht_wall_ms(dht))
            take(dht, gather, &record, &whole, SELF, row->vouched);
    }
}

static void take_found(struct dht *dht, struct dht_gather *gather, const struct dht_record *record)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    dht_record_encode(record, &bytes);
    if (!bytes.failed)
        take(dht, gather, record, &(struct dht_span){bytes.data, bytes.len}, SELF, true);
}

/* ---- asking ---- */

static void stir(struct dht_gather *gather)
{
    gather->stirred = true;
}

static void on_slice(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                     const struct dht_message *reply)
{
    struct dht_slice *slice = owner;
    struct dht_gather_source *source = slice->source;
    struct dht_gather_holder *holder = slice->holder;
    (void)peer;
    if (event == DHT_RPC_SLOW) {
        holder->window = 1;
        slice->gather->asked_max = ASKED_NEAR;
        holder->parts = holder->parts > PARTS_MIN ? holder->parts / 2 : PARTS_MIN;
        return;
    }
    bool values = reply && reply->type == DHT_VALUES;
    if (values)
        take_part(dht, slice, reply);
    if (event == DHT_RPC_PART)
        return;
    slice->gather->asked--;
    holder->asked--;
    stir(slice->gather);
    bool ends = values && (!reply->more || !slice->told || id_equal(&slice->last, &slice->until));
    slice->state = ends ? DONE : WAITING;
    source->done += ends;
    if (!ends && (size_t)(slice - source->slices) < source->first_waiting)
        source->first_waiting = (size_t)(slice - source->slices);
    if (values) {
        slice->after = slice->told ? slice->last : slice->after;
        holder->window += holder->window < WINDOW_MAX;
        holder->parts += holder->parts < DHT_PARTS_MAX;
        holder->fails = 0;
        slice->gather->asked_max += slice->gather->asked_max < ASKED_FAR && dht->now_ms - slice->asked_ms > NEAR_MS;
    } else if (event == DHT_RPC_REPLY && reply->type == DHT_REFUSED) {
        holder->again_ms = dht->now_ms + (reply->wait_ms < 1000 ? reply->wait_ms : 1000);
    } else {
        holder->fails++;
    }
}

static int ask(struct dht *dht, struct dht_slice *slice, struct dht_gather_holder *holder)
{
    struct dht_message request = {
        .type = DHT_FIND_VALUE,
        .target = slice->gather->rows.key,
        .order = DHT_BY_MEMBER,
        .limit = UINT16_MAX,
        .parts = (uint8_t)holder->parts,
        .ranged = true,
        .after = {.member = slice->after},
        .until = slice->until,
    };
    int status = dht_rpc_ask(dht, &holder->contact, &request, on_slice, slice);
    if (status < 0)
        return status;
    slice->state = ASKED;
    slice->asked_ms = dht->now_ms;
    slice->told = false;
    slice->holder = holder;
    slice->gather->asked++;
    holder->asked++;
    return 0;
}

static struct dht_slice *next_waiting(struct dht_gather_source *source)
{
    while (source->first_waiting < source->slice_count && source->slices[source->first_waiting].state != WAITING)
        source->first_waiting++;
    return source->first_waiting < source->slice_count ? &source->slices[source->first_waiting] : NULL;
}

/* The holder that may be asked and has the least to do; NULL if there is none now. */
static struct dht_gather_holder *idle_holder(const struct dht *dht, struct dht_gather_source *source)
{
    struct dht_gather_holder *best = NULL;
    for (size_t i = 0; i < source->holder_count; i++) {
        struct dht_gather_holder *holder = &source->holders[i];
        bool may = holder->fails < FAILS_MAX && holder->asked < holder->window && dht->now_ms >= holder->again_ms;
        if (may && (!best || holder->asked < best->asked))
            best = holder;
    }
    return best;
}

/* Nobody is left to read it from. */
static bool is_lost(const struct dht_gather_source *source)
{
    for (size_t i = 0; i < source->holder_count; i++)
        if (source->holders[i].fails < FAILS_MAX)
            return false;
    return true;
}

static void ask_more(struct dht *dht, struct dht_gather *gather)
{
    for (size_t i = 0; i < gather->source_count; i++) {
        struct dht_gather_source *source = &gather->sources[i];
        struct dht_slice *slice;
        struct dht_gather_holder *holder;
        while (gather->asked < gather->asked_max && (slice = next_waiting(source)) &&
               (holder = idle_holder(dht, source)))
            if (ask(dht, slice, holder) < 0)
                return;
    }
}

/* ---- sources ---- */

static void release_sources(struct dht *dht, struct dht_gather *gather)
{
    for (size_t i = 0; i < gather->source_count; i++) {
        struct dht_gather_source *source = &gather->sources[i];
        for (size_t j = 0; j < source->slice_count; j++)
            if (source->slices[j].state == ASKED)
                dht_rpc_abandon(dht, &source->slices[j]);
        free(source->slices);
    }
    gather->source_count = 0;
    gather->asked = 0;
}

/* The n-th of `count` equal parts of all ids ends here. */
static struct id end_of_slice(size_t n, size_t count)
{
    struct id end;
    memset(&end, 0xff, sizeof end);
    wire_store_u32(end.b, (uint32_t)(((uint64_t)(n + 1) << 32) / count - 1));
    return end;
}

static int add_source(struct dht_gather *gather, const struct dht_contact *contacts, size_t contact_count)
{
    struct dht_gather_source *source = &gather->sources[gather->source_count];
    size_t count = gather->total / SLICE_RECORDS + 1;
    if (count > SLICES_MAX)
        count = SLICES_MAX;
    *source = (struct dht_gather_source){.holder_count = contact_count, .slice_count = count};
    source->slices = calloc(count, sizeof *source->slices);
    if (!source->slices)
        return ERR_NOMEM;
    for (size_t i = 0; i < contact_count; i++)
        source->holders[i] = (struct dht_gather_holder){.contact = contacts[i], .window = 1, .parts = DHT_PARTS_MAX};
    for (size_t i = 0; i < count; i++) {
        struct dht_slice *slice = &source->slices[i];
        *slice = (struct dht_slice){.gather = gather, .source = source, .until = end_of_slice(i, count)};
        if (i > 0)
            slice->after = source->slices[i - 1].until;
    }
    gather->source_count++;
    return 0;
}

static void forget_who_told(struct dht_gather *gather)
{
    const struct id *member = NULL;
    for (struct dht_row *row; (row = dht_rows_after(&gather->rows, member)); member = &row->member)
        row->told_by = 0;
}

/* Nobody agrees: read it from three, each for itself. */
static void read_from_three(struct dht *dht, struct dht_gather *gather)
{
    gather->agreed = false;
    gather->complete = true;
    release_sources(dht, gather);
    forget_who_told(gather);
    take_held(dht, gather);
    for (size_t i = 0; i < gather->other_count && i < AGREE; i++)
        gather->complete &= add_source(gather, &gather->others[i], 1) == 0;
    stir(gather);
}

/* ---- the survey ---- */

static bool has_digest(const struct dht_candidate *candidate, const uint8_t digest[DHT_DIGEST_BYTES])
{
    return candidate->state == DHT_ANSWERED && candidate->surveyed && candidate->total > 0 &&
           memcmp(candidate->digest, digest, DHT_DIGEST_BYTES) == 0;
}

static size_t count_of_digest(const struct dht_lookup *lookup, const uint8_t digest[DHT_DIGEST_BYTES],
                              struct dht_contact *ret_contacts)
{
    size_t count = 0;
    for (size_t i = 0; i < lookup->candidate_count && count < DHT_SOURCES_MAX; i++)
        if (has_digest(&lookup->candidates[i], digest))
            ret_contacts[count++] = lookup->candidates[i].contact;
    return count;
}

/* Who holds anything, and does the digest of one of them have enough votes? */
static bool find_agreement(struct dht *dht, struct dht_gather *gather, const struct dht_lookup *lookup,
                           struct dht_contact contacts[DHT_SOURCES_MAX], size_t *ret_count, bool *ret_ours)
{
    struct dht_held *held = dht_hold_of_key(dht, &gather->rows.key);
    uint8_t ours[DHT_DIGEST_BYTES] = {0};
    if (held)
        dht_hold_digest(dht, held, ours);
    for (size_t i = 0; i < lookup->candidate_count; i++) {
        const struct dht_candidate *candidate = &lookup->candidates[i];
        if (!has_digest(candidate, candidate->digest))
            continue;
        if (gather->other_count < DHT_SOURCES_MAX)
            gather->others[gather->other_count++] = candidate->contact;
        if (candidate->total > gather->total)
            gather->total = candidate->total;
    }
    for (size_t i = 0; i < lookup->candidate_count; i++) {
        static const uint8_t none[DHT_DIGEST_BYTES];
        const struct dht_candidate *candidate = &lookup->candidates[i];
        if (!has_digest(candidate, candidate->digest) || has_digest(candidate, none))
            continue;
        *ret_count = count_of_digest(lookup, candidate->digest, contacts);
        *ret_ours = held && memcmp(ours, candidate->digest, sizeof ours) == 0;
        memcpy(gather->digest, candidate->digest, sizeof gather->digest);
        if (*ret_count + *ret_ours >= AGREE)
            return true;
    }
    return false;
}

/* The few records of the survey are all that its holders have. */
static bool survey_is_all(const struct dht_gather *gather, const struct dht_lookup *lookup)
{
    for (size_t i = 0; i < lookup->candidate_count; i++)
        if (lookup->candidates[i].state == DHT_ANSWERED && lookup->candidates[i].more)
            return false;
    return gather->total <= lookup->found.count + (lookup->found.meta != NULL);
}

static void on_surveyed(struct dht *dht, struct dht_lookup *lookup, void *owner)
{
    struct dht_gather *gather = owner;
    struct dht_contact contacts[DHT_SOURCES_MAX];
    size_t count = 0;
    bool ours = false;
    gather->lookup = NULL;
    gather->deeper = dht_lookup_is_deeper(lookup);
    gather->complete = dht->now_ms < lookup->deadline_ms;
    stir(gather);
    bool agreed = find_agreement(dht, gather, lookup, contacts, &count, &ours);
    if (survey_is_all(gather, lookup)) {
        take_held(dht, gather);
        for (size_t i = 0; i < lookup->found.count; i++)
            take_found(dht, gather, lookup->found.records[i]);
        if (lookup->found.meta)
            take_found(dht, gather, lookup->found.meta);
        gather->state = DHT_GATHERED;
        return;
    }
    if (lookup->found.meta) /* no range begins before the first of all members */
        take_found(dht, gather, lookup->found.meta);
    gather->agreed = agreed;
    gather->state = DHT_READING;
    if (agreed && ours)
        take_held(dht, gather);
    else if (!agreed || add_source(gather, contacts, count) < 0)
        read_from_three(dht, gather);
}

/* ---- on and on ---- */

static bool all_is_read(const struct dht_gather *gather, bool *ret_lost)
{
    bool over = true;
    *ret_lost = false;
    for (size_t i = 0; i < gather->source_count; i++) {
        const struct dht_gather_source *source = &gather->sources[i];
        bool done = source->done == source->slice_count;
        bool lost = !done && is_lost(source);
        over &= done || lost;
        *ret_lost |= lost;
    }
    return over && (gather->asked == 0 || !gather->agreed);
}

static size_t sources_done(const struct dht_gather *gather)
{
    size_t count = 0;
    for (size_t i = 0; i < gather->source_count; i++)
        count += gather->sources[i].done == gather->sources[i].slice_count;
    return count;
}

static bool digest_is_right(struct dht *dht, struct dht_gather *gather)
{
    uint8_t digest[DHT_DIGEST_BYTES];
    uint64_t until_ms;
    return dht_rows_digest(&gather->rows, dht_wall_ms(dht), digest, &until_ms) == 0 &&
           memcmp(digest, gather->digest, sizeof digest) == 0;
}

static bool is_believed(const struct dht_row *row)
{
    return row->vouched || __builtin_popcount(row->told_by) >= AGREE;
}

/* Some signatures; what is false goes. True when there is nothing more to be checked. */
static bool check_some(struct dht *dht, struct dht_gather *gather)
{
    const struct id *after = id_is_zero(&gather->checked) ? NULL : &gather->checked;
    unsigned left = CHECKED_AT_ONCE;
    for (struct dht_row *row; left > 0 && (row = dht_rows_after(&gather->rows, after)); after = &gather->checked) {
        gather->checked = row->member;
        if (is_believed(row))
            continue;
        left--;
        if (!dht_hold_check(dht, &gather->rows, row)) {
            dht->stats.bad_records++;
            dht_rows_remove(&gather->rows, &gather->checked);
        }
    }
    return left > 0;
}

static void read_on(struct dht *dht, struct dht_gather *gather)
{
    bool lost;
    bool late = dht->now_ms >= gather->deadline_ms;
    ask_more(dht, gather);
    if (!all_is_read(gather, &lost) && !late)
        return;
    if (gather->agreed && !late && !lost && digest_is_right(dht, gather)) {
        gather->state = DHT_GATHERED;
    } else if (gather->agreed && !late) {
        read_from_three(dht, gather);
        return;
    } else {
        gather->complete &= !late && (!lost || sources_done(gather) >= 2);
        gather->state = DHT_CHECKING;
        stir(gather);
    }
    release_sources(dht, gather);
}

static void check_on(struct dht *dht, struct dht_gather *gather)
{
    if (check_some(dht, gather))
        gather->state = DHT_GATHERED;
    else
        stir(gather);
}

static void go_on(struct dht *dht, struct dht_gather *gather)
{
    gather->stirred = false;
    switch (gather->state) {
    case DHT_WALKING:
        break;
    case DHT_READING:
        read_on(dht, gather);
        break;
    case DHT_CHECKING:
        check_on(dht, gather);
        break;
    case DHT_GATHERED:
        break;
    }
}

static uint64_t due_ms(const struct dht *dht, const struct dht_gather *gather)
{
    uint64_t due = gather->deadline_ms;
    if (gather->stirred || gather->state == DHT_GATHERED)
        return dht->now_ms;
    if (gather->state == DHT_WALKING)
        return UINT64_MAX; /* the lookup has a deadline of its own */
    for (size_t i = 0; i < gather->source_count; i++)
        for (size_t j = 0; j < gather->sources[i].holder_count; j++)
            if (gather->sources[i].holders[j].again_ms > dht->now_ms)
                due = dht_min_ms(due, gather->sources[i].holders[j].again_ms);
    return gather->asked == 0 ? dht_min_ms(due, dht->now_ms + 50) : due; /* too much was pending */
}

void dht_gather_tick(struct dht *dht)
{
    struct dht_gather *gather, *next;
    TAILQ_FOREACH (gather, &dht->gathers, link)
        if (due_ms(dht, gather) <= dht->now_ms || gather->state == DHT_READING)
            go_on(dht, gather);
    for (gather = TAILQ_FIRST(&dht->gathers); gather; gather = next) {
        next = TAILQ_NEXT(gather, link);
        if (gather->state == DHT_GATHERED) {
            TAILQ_REMOVE(&dht->gathers, gather, link);
            gather->cb(dht, gather, gather->owner); /* starts others, at the end, but frees none */
            release_sources(dht, gather);
            dht_rows_release(&gather->rows);
            free(gather);
        }
    }
}

uint64_t dht_gather_next_ms(const struct dht *dht)
{
    uint64_t next = UINT64_MAX;
    const struct dht_gather *gather;
    TAILQ_FOREACH (gather, &dht->gathers, link)
        next = dht_min_ms(next, due_ms(dht, gather));
    return next;
}

struct dht_gather *dht_gather_start(struct dht *dht, const struct id *key, uint64_t deadline_ms, dht_gather_cb cb,
                                    void *owner)
{
    struct dht_gather *gather = calloc(1, sizeof *gather);
    uint64_t left_ms = deadline_ms > dht->now_ms ? deadline_ms - dht->now_ms : 0;
    if (!gather)
        return NULL;
    gather->rows.key = *key;
    gather->deadline_ms = deadline_ms;
    gather->cb = cb;
    gather->owner = owner;
    gather->asked_max = ASKED_NEAR;
    gather->lookup = dht_lookup_survey(dht, key, left_ms, on_surveyed, gather);
    if (!gather->lookup) {
        free(gather);
        return NULL;
    }
    TAILQ_INSERT_TAIL(&dht->gathers, gather, link);
    return gather;
}

void dht_gather_free(struct dht *dht, struct dht_gather *gather)
{
    TAILQ_REMOVE(&dht->gathers, gather, link);
    if (gather->lookup)
        dht_lookup_cancel(dht, gather->lookup);
    release_sources(dht, gather);
    dht_rows_release(&gather->rows);
    free(gather);
}
