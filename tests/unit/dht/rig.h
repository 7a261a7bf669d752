/*
 * One dht whose datagrams are caught instead of sent, and peers that a test plays by hand.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dht/internal.h"
#include "node/base/scope.h"

#define RIG_SEED 7421
#define RIG_WALL_MS 1767225600000u /* 2026-01-01 */
#define RIG_SENT_MAX 512

struct rig_sent {
    struct dht_contact to;
    size_t len;
    uint8_t bytes[DHT_MESSAGE_MAX_BYTES];
};

struct rig {
    struct crypto_sign_key key;
    uint64_t rng_state;
    struct dht_memory *memory;
    struct dht_storage storage;
    struct dht *dht;
    uint64_t now_ms;
    struct rig_sent *sent; /* owned */
    size_t sent_count;
    uint64_t block_cap;
    uint32_t key_max, records_max; /* for the next rig_start */
};

static inline int rig_sign(struct dht_record *record, const struct crypto_sign_key *key)
{
    struct dht_signatures signatures = dht_signatures_ed25519(key);
    return dht_record_sign(record, key->public_key, &signatures);
}

static inline bool rig_is_signed(const struct dht_record *record, const uint8_t *bytes, size_t len)
{
    struct dht_signatures signatures = dht_signatures_ed25519(NULL);
    return dht_record_is_signed(record, bytes, len, &signatures);
}

struct rig_peer {
    struct crypto_sign_key key;
    struct dht_contact contact;
};

static inline void rig_send(void *ctx, const struct dht_contact *to, const uint8_t *bytes, size_t len_bytes)
{
    struct rig *rig = ctx;
    assert_true(rig->sent_count < RIG_SENT_MAX);
    assert_true(len_bytes <= DHT_MESSAGE_MAX_BYTES);
    struct rig_sent *sent = &rig->sent[rig->sent_count++];
    sent->to = *to;
    sent->len = len_bytes;
    memcpy(sent->bytes, bytes, len_bytes);
}

/* Everybody is in a block of addresses of their own: 10.x.y.1. */
static inline struct rig_peer rig_peer(unsigned number)
{
    struct rig_peer peer;
    uint8_t seed[32] = {(uint8_t)number, (uint8_t)(number >> 8), 1};
    crypto_sign_key_from_seed(seed, &peer.key);
    struct addr addr = {.family = 4, .port = 7421, .ip = {10, (uint8_t)(number >> 8), (uint8_t)number, 1}};
    peer.contact = dht_contact_of(peer.key.public_key, &addr);
    return peer;
}

static inline void rig_start(struct rig *rig)
{
    struct addr addr = {.family = 4, .port = 7421, .ip = {172, 16, 0, 1}};
    struct dht_config config = {
        .public_key = rig->key.public_key,
        .signatures = dht_signatures_ed25519(&rig->key),
        .address = addr,
        .block_per_bucket = (unsigned)rig->block_cap,
        .block_per_table = (unsigned)rig->block_cap,
        .key_max = rig->key_max,
        .records_max = rig->records_max,
        .now_ms = rig->now_ms,
        .wall_ms = RIG_WALL_MS + rig->now_ms,
        .rng = rng_seeded(&rig->rng_state),
        .storage = rig->storage,
        .send = rig_send,
        .send_ctx = rig,
    };
    assert_int_equal(dht_new(&config, &rig->dht, NULL), 0);
}

static inline struct rig *rig_new(void)
{
    struct rig *rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    assert_int_equal(crypto_init(NULL), 0);
    printf("seed %d\n", RIG_SEED);
    crypto_sign_key_from_seed((uint8_t[32]){9, 9, 9}, &rig->key);
    rig->rng_state = RIG_SEED;
    rig->now_ms = 1000;
    rig->sent = calloc(RIG_SENT_MAX, sizeof *rig->sent);
    assert_non_null(rig->sent);
    assert_int_equal(dht_memory_new(&rig->memory, NULL), 0);
    rig->storage = dht_storage_memory(rig->memory);
    rig_start(rig);
    return rig;
}

static inline void rig_free(struct rig *rig)
{
    dht_free(rig->dht);
    dht_memory_free(rig->memory);
    free(rig->sent);
    free(rig);
}

/* The process is killed and started again. */
static inline void rig_restart(struct rig *rig)
{
    dht_free(rig->dht);
    rig->sent_count = 0;
    rig_start(rig);
}

/* Tick as often as it is wanted for so long. */
static inline void rig_run(struct rig *rig, uint64_t ms)
{
    uint64_t end_ms = rig->now_ms + ms;
    for (uint64_t next_ms; (next_ms = dht_next_ms(rig->dht)) <= end_ms;) {
        if (next_ms > rig->now_ms)
            rig->now_ms = next_ms;
        dht_tick(rig->dht, rig->now_ms);
    }
    rig->now_ms = end_ms;
}

static inline void rig_input(struct rig *rig, const struct rig_peer *from, const struct dht_message *message)
{
    OWNED(buf_release) struct buf bytes = BUF(DHT_MESSAGE_MAX_BYTES);
    dht_message_encode(message, &bytes);
    assert_false(bytes.failed);
    dht_input(rig->dht, rig->now_ms, &from->contact, bytes.data, bytes.len);
}

/* The i-th datagram caught. */
static inline struct dht_message rig_message(const struct rig *rig, size_t i)
{
    struct dht_message message;
    assert_true(i < rig->sent_count);
    assert_int_equal(dht_message_decode(NULL, rig->sent[i].bytes, rig->sent[i].len, &message), DHT_DECODED);
    return message;
}

static inline struct dht_message rig_last(const struct rig *rig)
{
    assert_true(rig->sent_count > 0);
    return rig_message(rig, rig->sent_count - 1);
}

/* The last datagram of this type to this peer (NULL: anybody), if there was one. */
static inline bool rig_find(const struct rig *rig, uint8_t type, const struct rig_peer *to,
                            struct dht_message *ret_message)
{
    for (size_t i = rig->sent_count; i-- > 0;) {
        struct dht_message message = rig_message(rig, i);
        if (message.type == type && (!to || id_equal(&rig->sent[i].to.id, &to->contact.id))) {
            *ret_message = message;
            return true;
        }
    }
    return false;
}

/* Answer the last request of this type to the peer. */
static inline void rig_answer(struct rig *rig, const struct rig_peer *peer, uint8_t request_type,
                              struct dht_message answer)
{
    struct dht_message request = {0};
    assert_true(rig_find(rig, request_type, peer, &request));
    answer.transaction = request.transaction;
    rig_input(rig, peer, &answer);
}

/* Into the tables, as it happens: asked, and answering. */
static inline void rig_meet(struct rig *rig, const struct rig_peer *peer)
{
    dht_add_contact(rig->dht, rig->now_ms, &peer->contact);
    rig_answer(rig, peer, DHT_PING, (struct dht_message){.type = DHT_PONG});
}

static inline struct dht_stats rig_stats(const struct rig *rig)
{
    struct dht_stats stats;
    dht_stats(rig->dht, &stats);
    return stats;
}

/* A record of a peer, signed; `counter` is its version. */
static inline struct dht_record rig_record(const struct rig_peer *peer, const struct id *key, double score,
                                           uint64_t counter)
{
    struct dht_record record = {
        .key = *key,
        .kind = DHT_OBJECT,
        .score = score,
        .version = {0, counter},
        .expiry_wall_ms = RIG_WALL_MS + DHT_RECORD_TTL_MS,
    };
    assert_int_equal(rig_sign(&record, &peer->key), 0);
    return record;
}

static inline struct dht_record rig_lease(const struct rig_peer *peer, uint64_t counter, uint64_t expiry_wall_ms)
{
    struct dht_record lease = {
        .key = dht_key(DHT_NODE, peer->contact.id.b, ID_BYTES),
        .kind = DHT_NODE,
        .version = {0, counter},
        .expiry_wall_ms = expiry_wall_ms,
    };
    OWNED(buf_release) struct buf data = BUF(DHT_DATA_MAX_BYTES);
    wire_put_u8(&data, 1);
    addr_put(&data, &peer->contact.addr);
    memcpy(lease.data, data.data, data.len);
    lease.data_len = data.len;
    assert_int_equal(rig_sign(&lease, &peer->key), 0);
    return lease;
}

/* The bytes of a record; the buffer is the caller's. */
static inline struct dht_span rig_span(const struct dht_record *record, struct buf *buf)
{
    buf_clear(buf);
    dht_record_encode(record, buf);
    assert_false(buf->failed);
    return (struct dht_span){buf->data, buf->len};
}

/* The same, as it is sent in VALUES. */
static inline struct dht_span rig_brief(const struct dht_record *record, struct buf *buf)
{
    struct dht_span span = rig_span(record, buf);
    return dht_record_brief(span.at, span.len);
}

static inline enum dht_store_status rig_hold(struct rig *rig, const struct dht_record *record)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_span span = rig_span(record, &bytes);
    return dht_hold_put(rig->dht, span.at, span.len, false, NULL);
}

/* The i-th record of an answer about this key. */
static inline struct dht_record rig_value(const struct dht_message *values, size_t i, const struct id *key)
{
    struct dht_record record;
    uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
    assert_true(i < values->record_count);
    size_t len = dht_record_unbrief(key, &values->records[i], bytes);
    assert_true(dht_record_decode(bytes, len, &record));
    return record;
}

/* A member of a set by hand, written by the peer `age_ms` ago; the version's counter is zero. */
static inline struct dht_record rig_member(const struct rig_peer *writer, const struct id *key, const char *name,
                                           double score, uint64_t age_ms)
{
    struct dht_record record = {
        .key = *key,
        .kind = DHT_SET,
        .score = score,
        .version = {RIG_WALL_MS - age_ms, 0},
        .expiry_wall_ms = RIG_WALL_MS + DHT_RECORD_TTL_MS,
        .data_len = strlen(name),
    };
    memcpy(record.data, name, record.data_len);
    assert_int_equal(rig_sign(&record, &writer->key), 0);
    return record;
}

/* The state of a set by hand. */
static inline struct dht_record rig_meta(const struct rig_peer *writer, const struct id *key, uint64_t cleared_ms,
                                         uint64_t expires_ms, uint64_t age_ms)
{
    struct dht_record meta = rig_member(writer, key, "0123456789abcdef", 0, age_ms);
    meta.meta = true;
    wire_store_u64(meta.data, cleared_ms);
    wire_store_u64(meta.data + sizeof cleared_ms, expires_ms);
    assert_int_equal(rig_sign(&meta, &writer->key), 0);
    return meta;
}

static inline struct id rig_key(unsigned number)
{
    return dht_key(DHT_OBJECT, &number, sizeof number);
}

static inline struct id rig_set_key(unsigned number)
{
    return dht_key(DHT_SET, &number, sizeof number);
}
