#include "tools/dhtsim/liar.h"

#include <string.h>

#include "dht/message.h"
#include "tools/dhtsim/world.h"

#define CHOICE 64 /* of the nearest liars each names 16: others than its neighbour does, to be in more walks */

void liar_choose(struct world *world, uint64_t percent)
{
    uint64_t stream = random_stream(world->options->seed, RANDOM_LIAR, 0);
    for (size_t i = 1; i < world->count; i++) { /* one at least is honest */
        struct node *node = &world->nodes[i];
        node->liar = random_chance(&stream, (uint32_t)percent * 10000);
        if (node->liar)
            oracle_add(&world->liars, &node->id, node->number);
    }
    oracle_sort(&world->liars);
}

static void name_others(const struct world *world, const struct node *liar, const struct id *target,
                        struct dht_message *answer)
{
    uint32_t nearest[CHOICE];
    size_t count = oracle_closest(&world->liars, target, nearest, CHOICE);
    for (size_t i = 0; i < DHT_REPLICAS && i < count; i++) {
        const struct node *other = &world->nodes[nearest[(i + liar->number % 4 * DHT_REPLICAS) % count]];
        answer->contacts[answer->contact_count++] = node_contact(other);
    }
}

/* A record in somebody else's name, with the best of scores. */
static void forge(const struct world *world, const struct node *liar, const struct id *key, struct buf *out)
{
    const struct node *victim = &world->nodes[random_mix(liar->number ^ key->b[0]) % world->count];
    struct dht_record record = {
        .key = *key,
        .member = victim->id,
        .kind = DHT_OBJECT,
        .score = 1e9,
        .version = {1ull << 62, 0},
        .expiry_wall_ms = WORLD_WALL_START_MS + world->now_us / 1000 + DHT_RECORD_TTL_MS,
    };
    memcpy(record.public_key, victim->public_key, sizeof record.public_key);
    dht_record_encode(&record, out);
}

static bool make_answer(struct world *world, const struct node *liar, const struct dht_message *request,
                        struct buf *forged, struct dht_message *answer)
{
    switch (request->type) {
    case DHT_FIND_NODE:
        answer->type = DHT_NODES;
        name_others(world, liar, &request->target, answer);
        return true;
    case DHT_FIND_VALUE:
        answer->type = DHT_VALUES;
        answer->parts = 1;
        answer->total = 1;
        forge(world, liar, &request->target, forged);
        answer->records[answer->record_count++] = dht_record_brief(forged->data, forged->len);
        name_others(world, liar, &request->target, answer);
        answer->contact_count = answer->contact_count < 14 ? answer->contact_count : 14; /* so that all fits */
        return true;
    case DHT_STORE:
        answer->type = DHT_STORED;
        answer->record_count = request->record_count;
        return true;
    default:
        return false;
    }
}

bool liar_answers(struct world *world, struct node *liar, const struct node *from, const uint8_t *bytes,
                  size_t len_bytes)
{
    uint8_t room[LIMIT_DHT_RECORD_BYTES];
    uint8_t sent[DHT_MESSAGE_MAX_BYTES];
    struct buf forged = {.data = room, .cap = sizeof room, .max = sizeof room};
    struct buf out = {.data = sent, .cap = sizeof sent, .max = sizeof sent};
    struct dht_message request;
    struct dht_message answer = {0};
    if (dht_message_decode(NULL, bytes, len_bytes, &request) != DHT_DECODED ||
        !make_answer(world, liar, &request, &forged, &answer))
        return false;
    answer.transaction = request.transaction;
    dht_message_encode(&answer, &out);
    struct dht_contact to = node_contact(from);
    if (!out.failed)
        world_send(world, liar, &to.addr, out.data, out.len);
    return true;
}
