#include "tools/dhtsim/tap.h"

#include <stdlib.h>
#include <string.h>

#include "dht/message.h"
#include "tools/dhtsim/world.h"
#include "tools/sim/memory.h"

#define KNOWN_SLOTS 1024 /* a power of two; a read hears of a few hundred at most */
#define ASKED_MAX 256

struct known {
    uint32_t number_1; /* and one; 0: free */
    uint8_t depth;
};

struct asked {
    uint64_t transaction;
    uint32_t number;
    uint8_t depth;
};

struct tap_trace {
    uint32_t next; /* of the same node, or the next spare one */
    struct id target;
    uint64_t start_us;
    struct tap_result result;
    size_t known_count;
    struct known known[KNOWN_SLOTS]; /* by open addressing */
    size_t asked_count;
    struct asked asked[ASKED_MAX];
};

void tap_release(struct tap *tap)
{
    free(tap->traces);
    *tap = (struct tap){0};
}

/* Traces are numbered from 1; the number outlives the array's growth, a pointer does not. */
static struct tap_trace *trace_at(const struct tap *tap, uint32_t number)
{
    return &tap->traces[number - 1];
}

uint32_t tap_begin(struct world *world, struct node *node, const struct id *target)
{
    struct tap *tap = &world->tap;
    uint32_t number = tap->spare;
    if (number) {
        tap->spare = trace_at(tap, number)->next;
    } else {
        tap->traces = memory_grow(tap->traces, &tap->cap, tap->used + 1, sizeof *tap->traces);
        number = ++tap->used;
    }
    struct tap_trace *trace = trace_at(tap, number);
    memset(trace, 0, sizeof *trace);
    trace->target = *target;
    trace->start_us = world->now_us;
    trace->next = node->trace;
    node->trace = number;
    return number;
}

struct tap_result tap_end(struct world *world, struct node *node, uint32_t number)
{
    struct tap *tap = &world->tap;
    struct tap_trace *trace = trace_at(tap, number);
    uint32_t *link = &node->trace;
    while (*link != number)
        link = &trace_at(tap, *link)->next;
    *link = trace->next;
    trace->next = tap->spare;
    tap->spare = number;
    return trace->result;
}

/* The place of a number among those heard of, taken or free. */
static struct known *place_of(struct tap_trace *trace, uint32_t number)
{
    size_t at = random_mix(number) % KNOWN_SLOTS;
    while (trace->known[at].number_1 && trace->known[at].number_1 != number + 1)
        at = (at + 1) % KNOWN_SLOTS;
    return &trace->known[at];
}

static void learn(struct tap_trace *trace, uint32_t number, unsigned depth)
{
    struct known *known = place_of(trace, number);
    if (known->number_1 || trace->known_count == KNOWN_SLOTS - 1)
        return;
    *known = (struct known){.number_1 = number + 1, .depth = (uint8_t)depth};
    trace->known_count++;
}

/* A request of a read: to somebody told of before, or else to somebody that the asker knew by itself. */
static void note_request(struct tap_trace *trace, uint32_t to, uint64_t transaction)
{
    for (size_t i = 0; i < trace->asked_count; i++)
        if (trace->asked[i].transaction == transaction)
            return; /* sent once more */
    learn(trace, to, 1);
    trace->result.requests++;
    if (trace->asked_count < ASKED_MAX)
        trace->asked[trace->asked_count++] =
            (struct asked){.transaction = transaction, .number = to, .depth = place_of(trace, to)->depth};
}

void tap_sent(struct world *world, const struct node *node, uint32_t to, const uint8_t *bytes, size_t len_bytes)
{
    struct dht_message message;
    if (tap_type(bytes, len_bytes) != DHT_FIND_VALUE ||
        dht_message_decode(NULL, bytes, len_bytes, &message) != DHT_DECODED)
        return;
    for (uint32_t number = node->trace; number; number = trace_at(&world->tap, number)->next) {
        struct tap_trace *trace = trace_at(&world->tap, number);
        if (id_equal(&trace->target, &message.target))
            note_request(trace, to, message.transaction);
    }
}

static void note_answer(struct world *world, struct tap_trace *trace, const struct asked *asked,
                        const struct dht_message *answer)
{
    for (size_t i = 0; i < answer->contact_count; i++) {
        uint32_t number;
        uint16_t generation;
        if (node_of_addr(&answer->contacts[i].addr, &number, &generation))
            learn(trace, number, asked->depth + 1u);
    }
    if (answer->record_count == 0 || trace->result.hops > 0)
        return;
    trace->result.hops = asked->depth;
    trace->result.first_us = world->now_us - trace->start_us;
}

void tap_arrived(struct world *world, const struct node *node, uint32_t from, const uint8_t *bytes, size_t len_bytes)
{
    struct dht_message message;
    if (tap_type(bytes, len_bytes) != DHT_VALUES || dht_message_decode(NULL, bytes, len_bytes, &message) != DHT_DECODED)
        return;
    for (uint32_t number = node->trace; number; number = trace_at(&world->tap, number)->next) {
        struct tap_trace *trace = trace_at(&world->tap, number);
        for (size_t i = 0; i < trace->asked_count; i++)
            if (trace->asked[i].transaction == message.transaction && trace->asked[i].number == from)
                note_answer(world, trace, &trace->asked[i], &message);
    }
}

unsigned tap_type(const uint8_t *bytes, size_t len_bytes)
{
    return len_bytes > 1 ? bytes[1] % WORLD_TYPES : 0;
}

const char *tap_type_name(unsigned type)
{
    static const char *const names[WORLD_TYPES] = {
        [DHT_PING] = "ping",         [DHT_PONG] = "pong",       [DHT_FIND_NODE] = "find-node",
        [DHT_NODES] = "nodes",       [DHT_VALUES] = "values",   [DHT_FIND_VALUE] = "find-value",
        [DHT_STORE] = "store",       [DHT_STORED] = "stored",   [DHT_LEASE] = "lease",
        [DHT_REFUSED] = "refused",   [DHT_COMPARE] = "compare", [DHT_COMPARED] = "compared",
        [DHT_WATCH] = "watch",       [DHT_WATCHED] = "watched", [DHT_NOTIFY] = "notify",
        [DHT_NOTIFIED] = "notified",
    };
    return type < WORLD_TYPES ? names[type] : NULL;
}
