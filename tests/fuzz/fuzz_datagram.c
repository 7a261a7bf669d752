/*
 * Datagrams at a member, from another member's address. First byte: bit 0, whether the two know each other already;
 * bits 1 and 2, what the rest is: a packet (0), or bytes to be mixed into a real DATA (1), HELLO (2) or HELLO_ACK (3).
 * Whatever comes, only what the other one said is delivered, and answers are not larger than their cause.
 */
#include <stdlib.h>
#include <string.h>

#include "node/identity/state.h"
#include "node/net/datagram.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW_S 1700000000
#define SAID "said"

struct side {
    struct identity identity;
    struct datagram *datagram;
    struct addr addr;
    uint64_t random;
    size_t out_len; /* the last that it sent */
    uint8_t out[LIMIT_DATAGRAM_BYTES];
};

static void on_deliver(void *ctx, const struct datagram_peer *peer, const uint8_t *payload, size_t len)
{
    (void)ctx;
    (void)peer;
    if (len != strlen(SAID) || memcmp(payload, SAID, len) != 0)
        abort();
}

static void on_send(void *ctx, const struct addr *to, const uint8_t *bytes, size_t len)
{
    struct side *side = ctx;
    (void)to;
    memcpy(side->out, bytes, len);
    side->out_len = len;
}

static uint64_t on_wall(void *ctx)
{
    (void)ctx;
    return NOW_S;
}

static void start(struct side *side, uint8_t number)
{
    const uint8_t root_seed[32] = {1};
    const uint8_t seed[32] = {2, number};
    struct crypto_sign_key root;
    struct certificate certificate;
    memset(side, 0, sizeof *side);
    side->random = number;
    crypto_sign_key_from_seed(root_seed, &root);
    crypto_sign_key_from_seed(seed, &side->identity.key);
    crypto_id_of(side->identity.key.public_key, 32, &side->identity.id);
    identity_certificate_fill(&certificate, side->identity.key.public_key, RIGHT_ADMIT, NOW_S, 0, CHAIN_LAST_TIME_S);
    identity_chain_init(&side->identity.chain, root.public_key);
    identity_chain_append(&side->identity.chain, &certificate, &root);
    side->identity.cluster = side->identity.chain.cluster;
    side->identity.member = true;
    side->addr = (struct addr){.family = 4, .port = 1, .ip = {10, 0, 0, number}};
    struct datagram_config config = {.identity = &side->identity,
                                     .rng = rng_seeded(&side->random),
                                     .wall_s = on_wall,
                                     .boot_stamp = 1,
                                     .deliver = on_deliver,
                                     .send = on_send,
                                     .ctx = side};
    if (datagram_new(&config, &side->datagram, NULL) < 0)
        abort();
}

static void say(struct side *from, struct side *to)
{
    if (datagram_send(from->datagram, 1000, to->identity.key.public_key, &to->identity.id, &to->addr, SAID,
                      strlen(SAID), NULL) < 0)
        abort();
}

/* What `from` sent last goes to `to`; the answer is left in to->out. */
static void carry(struct side *from, struct side *to)
{
    to->out_len = 0;
    datagram_input(to->datagram, 1000, &from->addr, from->out, from->out_len);
}

static void introduce(struct side *a, struct side *b)
{
    say(a, b);
    for (int i = 0; i < 2; i++) {
        carry(a, b);
        carry(b, a);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (crypto_init(NULL) < 0)
        abort();
    if (size == 0)
        return 0;
    struct side a, b;
    start(&a, 1);
    start(&b, 2);
    unsigned flags = *data++;
    size--;
    bool known = flags & 1;
    unsigned stage = flags >> 1 & 3;
    struct side *source = &a;
    struct side *target = &b;
    if (known)
        introduce(&a, &b);
    if (stage > 0)
        say(&a, &b);
    if (stage > 1 && !known) { /* DATA, CHALLENGE; a HELLO is next */
        carry(&a, &b);
        carry(&b, &a);
    }
    if (stage > 2 && !known) { /* HELLO; a HELLO_ACK is next */
        carry(&a, &b);
        source = &b;
        target = &a;
    }
    size_t len = stage > 0 ? source->out_len : size < sizeof source->out ? size : sizeof source->out;
    if (stage == 0)
        memcpy(source->out, data, len);
    for (size_t i = 0; stage > 0 && i < size && i < len; i++)
        source->out[i] ^= data[i];
    source->out_len = len;
    bool genuine = stage > 0;
    for (size_t i = 0; i < size && i < len; i++)
        genuine = genuine && data[i] == 0;
    carry(source, target);
    if (!genuine && target->out_len > len)
        abort();
    datagram_free(a.datagram);
    datagram_free(b.datagram);
    return 0;
}
