/*
 * Answers to FIND_VALUE: the rows that were asked for, dealt out to as many messages as the asker takes. The first one
 * brings the contacts. Signatures are not looked at: whoever reads checks them.
 */
#include <string.h>

#include "dht/internal.h"

#define CONTACTS_WITH_RECORDS 4 /* the closest, so that there is room for records */
#define ROWS_MAX (DHT_PARTS_MAX * DHT_ITEMS_MAX)
#define ROOM (DHT_MESSAGE_MAX_BYTES - DHT_MESSAGE_HEADER_BYTES - DHT_PLACED_BYTES - 10)

/* A row to be sent, with its member's lease or without. */
struct item {
    const struct dht_row *row;
    const struct dht_held *lease_held;
    const struct dht_row *lease;
};

struct part {
    size_t first, count; /* of items */
};

struct values {
    const struct dht_message *request;
    struct item items[ROWS_MAX + 1];
    size_t item_count;
    struct part parts[DHT_PARTS_MAX];
    size_t part_count;
    struct dht_message head; /* what all parts say, and the contacts, which the first one brings */
};

static struct dht_pick pick_of(struct dht *dht, const struct dht_message *request, const struct dht_row *meta)
{
    uint64_t wall_ms = dht_wall_ms(dht);
    return (struct dht_pick){
        .order = request->order,
        .own = request->flags & DHT_PLACED ? &request->place : NULL,
        .after = request->ranged ? &request->after : NULL,
        .until = request->ranged ? &request->until : NULL,
        .wall_ms = wall_ms,
        .work = &dht->hold.work,
        .cleared_ms = meta ? dht_brief_cleared_ms(meta->brief, wall_ms) : 0,
    };
}

/* In the orders of live members META comes first of all, and counts for nothing: whoever reads needs it to know who is
 * live. One row more than can be sent tells whether there are more. */
static void pick_rows(struct dht *dht, const struct dht_held *held, struct values *values)
{
    const struct dht_message *request = values->request;
    struct dht_row *rows[ROWS_MAX + 1];
    const struct dht_row *meta = dht_rows_find(held, &(struct id){{0}});
    if (meta && !dht_brief_is_meta(meta->brief))
        meta = NULL; /* a member whose hash is all zeros: not to be met in this universe */
    if (meta && request->order != DHT_BY_MEMBER && !request->ranged)
        values->items[values->item_count++].row = meta;
    struct dht_pick pick = pick_of(dht, request, meta);
    size_t most = request->parts * DHT_ITEMS_MAX - values->item_count;
    if (request->limit < most)
        most = request->limit;
    size_t count = dht_rows_pick(held, &pick, rows, most + 1);
    values->head.more = count > most;
    for (size_t i = 0; i < count && i < most; i++)
        values->items[values->item_count++].row = rows[i];
}

/* The lease of the row's member if one is held that has not lapsed. */
static void find_lease(struct dht *dht, struct item *item)
{
    const struct id *member = &item->row->member;
    struct id key = dht_lease_key(member);
    const struct dht_held *held = dht_hold_of_key(dht, &key);
    const struct dht_row *lease = held ? dht_rows_find(held, member) : NULL;
    if (!lease || dht_brief_is_tombstone(lease->brief) || dht_brief_expiry_ms(lease->brief) <= dht_wall_ms(dht))
        return;
    item->lease_held = held;
    item->lease = lease;
}

static size_t lease_bytes(const struct item *item)
{
    return item->lease ? 2 + DHT_RECORD_BRIEF_BYTES + item->lease->len : 0;
}

/* Deal the items out. A lease that makes its record too large for a message of its own stays behind: one that has to be
 * looked for costs a whole walk, another part one message. */
static void deal_out(struct values *values)
{
    size_t room = ROOM - values->head.contact_count * DHT_CONTACT_WIRE_BYTES -
                  (values->request->want_digest ? DHT_DIGEST_BYTES : 0);
    struct part *part = values->parts;
    values->part_count = 1;
    for (size_t i = 0; i < values->item_count; i++) {
        struct item *item = &values->items[i];
        size_t bytes = 2 + item->row->len + lease_bytes(item);
        bool last = values->part_count == values->request->parts;
        if (bytes > ROOM || (bytes > room && last && part->count == 0)) {
            bytes -= lease_bytes(item);
            item->lease = NULL;
        }
        if (bytes > room || part->count == DHT_ITEMS_MAX) {
            if (last) {
                values->head.more = true;
                return;
            }
            *++part = (struct part){.first = i};
            values->part_count++;
            room = ROOM;
        }
        room -= bytes;
        part->count++;
    }
}

static void send_part(struct dht *dht, const struct dht_contact *from, struct values *values, size_t number)
{
    const struct part *part = &values->parts[number];
    struct dht_message *answer = &values->head;
    uint8_t leases[DHT_ITEMS_MAX][LIMIT_DHT_RECORD_BYTES];
    answer->part = (uint8_t)number;
    answer->record_count = answer->lease_count = 0;
    for (size_t i = part->first; i < part->first + part->count; i++) {
        const struct item *item = &values->items[i];
        answer->records[answer->record_count++] = (struct dht_span){item->row->brief, item->row->len};
        if (!item->lease)
            continue;
        uint8_t *lease = leases[answer->lease_count];
        answer->leases[answer->lease_count++] =
            (struct dht_span){lease, dht_row_bytes(item->lease_held, item->lease, lease)};
    }
    dht_rpc_answer(dht, from, values->request->transaction, answer);
    answer->contact_count = 0;
    answer->has_digest = false;
}

void dht_values_serve(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    struct values values = {.request = request, .head = {.type = DHT_VALUES}};
    struct dht_message *head = &values.head;
    struct dht_held *held = dht_hold_of_key(dht, &request->target);
    if (held) {
        pick_rows(dht, held, &values);
        head->total = held->count;
        head->deeper = dht_hold_is_deeper(dht, held);
    }
    head->has_digest = request->want_digest;
    if (held && request->want_digest)
        dht_hold_digest(dht, held, head->digest);
    for (size_t i = 0; request->want_lease && i < values.item_count; i++)
        find_lease(dht, &values.items[i]);
    bool crowded = values.item_count > 0 && request->contacts_wanted > CONTACTS_WITH_RECORDS;
    dht_serve_contacts(dht, from, &request->target, crowded ? CONTACTS_WITH_RECORDS : request->contacts_wanted, head);
    deal_out(&values);
    head->parts = (uint8_t)values.part_count;
    if (values.part_count > 1)
        dht_allowance_take(dht, &from->id, (unsigned)values.part_count - 1);
    for (size_t i = 0; i < values.part_count; i++)
        send_part(dht, from, &values, i);
}
