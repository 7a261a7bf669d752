#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/base/wire.h"
#include "transfer/noise.h"
#include "transfer/transfer.h"

/* One end of a session with what happened to it. */
struct end {
    struct session *session;
    uint8_t secret[32];
    uint8_t public_key[32];
    uint8_t seen_key[32];
    char seen_payload[64];
    size_t seen_payload_len;
    bool refuse;
    bool open;
    unsigned messages;
    uint8_t last_type;
    size_t last_len;
    uint64_t last_sum; /* FNV-1a of the last message */
    enum session_reason close_after;
};

static uint64_t sum_of(const uint8_t *data, size_t len)
{
    uint64_t sum = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        sum = (sum ^ data[i]) * 0x100000001b3u;
    return sum;
}

static int verify(void *ctx, const uint8_t remote_static[32], const void *payload, size_t payload_bytes,
                  struct id *ret_peer, struct err *err)
{
    struct end *end = ctx;
    memcpy(end->seen_key, remote_static, 32);
    end->seen_payload_len = payload_bytes;
    if (payload_bytes > 0 && payload_bytes <= sizeof end->seen_payload)
        memcpy(end->seen_payload, payload, payload_bytes);
    memcpy(ret_peer->b, remote_static, 32);
    return end->refuse ? err_set(err, ERR_DENIED, "not one of us") : 0;
}

static void on_open(void *ctx, const struct id *peer)
{
    struct end *end = ctx;
    assert_memory_equal(peer->b, end->seen_key, 32);
    end->open = true;
}

static int on_message(void *ctx, uint8_t type, const uint8_t *data, size_t len, struct err *err)
{
    (void)err;
    struct end *end = ctx;
    end->messages++;
    end->last_type = type;
    end->last_len = len;
    end->last_sum = sum_of(data, len);
    if (end->close_after)
        session_close(end->session, end->close_after);
    return 0;
}

static void begin_with(struct end *end, bool dialer, uint8_t cluster, bool has_aes, uint64_t now)
{
    *end = (struct end){.refuse = false};
    crypto_dh_keygen(end->secret, end->public_key);
    struct session_config config = {.dialer = dialer,
                                    .static_secret = end->secret,
                                    .cluster = {{cluster}},
                                    .payload = dialer ? "dialer's papers" : "listener's papers",
                                    .payload_bytes = dialer ? 15 : 17,
                                    .has_aes = has_aes,
                                    .verify = verify,
                                    .on_open = on_open,
                                    .on_message = on_message,
                                    .ctx = end};
    assert_int_equal(session_new(&config, now, &end->session, NULL), 0);
}

static void begin(struct end *end, bool dialer, uint8_t cluster, uint64_t now)
{
    begin_with(end, dialer, cluster, true, now);
}

static void finish(struct end ends[2])
{
    session_free(ends[0].session);
    session_free(ends[1].session);
}

/* Move what `from` has to say to `to`, in parts of at most `part` bytes; 0 or the first error. */
static int carry(struct end *from, struct end *to, size_t part, uint64_t now, struct err *err)
{
    const uint8_t *data;
    size_t len;
    while (session_output(from->session, &data, &len)) {
        if (len > part)
            len = part;
        uint8_t *copy = malloc(len); /* of exact size, so that a read past the end is seen */
        memcpy(copy, data, len);
        session_sent(from->session, now, len);
        int status = session_input(to->session, now, copy, len, err);
        free(copy);
        if (status < 0)
            return status;
    }
    return 0;
}

static int settle(struct end ends[2], size_t part, uint64_t now, struct err *err)
{
    const uint8_t *data;
    size_t len;
    int status = 0;
    while (status == 0 &&
           (session_output(ends[0].session, &data, &len) || session_output(ends[1].session, &data, &len))) {
        status = carry(&ends[0], &ends[1], part, now, err);
        if (status == 0)
            status = carry(&ends[1], &ends[0], part, now, err);
    }
    return status;
}

static void connect_ends(struct end ends[2], size_t part, uint64_t now)
{
    begin(&ends[0], true, 1, now);
    begin(&ends[1], false, 1, now);
    struct err err = {0};
    assert_int_equal(settle(ends, part, now, &err), 0);
    assert_true(ends[0].open && ends[1].open);
}

static void connect_with(struct end ends[2], bool dialer_has_aes, bool listener_has_aes)
{
    begin_with(&ends[0], true, 1, dialer_has_aes, 0);
    begin_with(&ends[1], false, 1, listener_has_aes, 0);
    assert_int_equal(settle(ends, 4096, 0, NULL), 0);
    assert_true(ends[0].open && ends[1].open);
}

static const size_t PARTS[] = {1, 2, 3, 7, 15, 4096, 1 << 20};
#define N_PARTS (sizeof PARTS / sizeof PARTS[0])

static void test_session__both_sides_know_each_other(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_PARTS; i++) {
        struct end ends[2];
        connect_ends(ends, PARTS[i], 1000);
        assert_memory_equal(ends[0].seen_key, ends[1].public_key, 32);
        assert_memory_equal(ends[1].seen_key, ends[0].public_key, 32);
        assert_memory_equal(ends[0].seen_payload, "listener's papers", 17);
        assert_memory_equal(ends[1].seen_payload, "dialer's papers", 15);
        assert_memory_equal(session_peer(ends[0].session)->b, ends[1].public_key, 32);
        assert_memory_equal(session_binding(ends[0].session), session_binding(ends[1].session), 64);
        finish(ends);
    }
}

static void fill(uint8_t *data, size_t len, uint64_t seed)
{
    struct rng rng = rng_seeded(&seed);
    rng.fill(rng.ctx, data, len);
}

static void all_sizes_in_all_parts(bool has_aes)
{
    static const size_t SIZES[] = {0,
                                   1,
                                   63,
                                   SESSION_FRAME_BYTES - 1,
                                   SESSION_FRAME_BYTES,
                                   SESSION_FRAME_BYTES + 1,
                                   70000,
                                   LIMIT_CONTROL_BYTES - 5};
    uint8_t *data = malloc(LIMIT_CONTROL_BYTES);
    fill(data, LIMIT_CONTROL_BYTES, 7);
    for (size_t i = 0; i < N_PARTS; i++) {
        struct end ends[2];
        connect_with(ends, has_aes, has_aes);
        for (size_t k = 0; k < sizeof SIZES / sizeof SIZES[0]; k++) {
            size_t size = SIZES[k];
            if (size > 100000 && PARTS[i] < 4096)
                continue; /* the same again, slowly */
            size_t head = size < 5 ? size : 5;
            assert_int_equal(session_send(ends[0].session, 0x41, data, head, data + head, size - head, NULL), 0);
            unsigned before = ends[1].messages;
            assert_int_equal(settle(ends, PARTS[i], 0, NULL), 0);
            assert_int_equal(ends[1].messages, before + 1);
            assert_int_equal(ends[1].last_type, 0x41);
            assert_int_equal(ends[1].last_len, size);
            assert_true(ends[1].last_sum == sum_of(data, size));
        }
        finish(ends);
    }
    free(data);
}

static void test_session__messages_of_all_sizes_in_all_parts(void **state)
{
    (void)state;
    all_sizes_in_all_parts(true);
    all_sizes_in_all_parts(false);
}

/* Whoever dials, AES is used between two that have it, and only between those. */
static void test_session__cipher_of_two(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct end ends[2];
        connect_with(ends, i & 1, i & 2);
        for (unsigned from = 0; from < 2; from++) {
            assert_int_equal(session_uses_aes(ends[from].session), i == 3);
            assert_int_equal(session_send(ends[from].session, 0x41, "head", 4, "and body", 8, NULL), 0);
            assert_int_equal(settle(ends, 4096, 0, NULL), 0);
            assert_int_equal(ends[!from].messages, 1);
            assert_true(ends[!from].last_sum == sum_of((const uint8_t *)"headand body", 12));
        }
        finish(ends);
    }
}

/* A dialer made of bare Noise shows this payload to a listener that has AES. */
static int show(struct end *listener, const void *payload, size_t len)
{
    uint8_t secret[32] = {1};
    uint8_t prologue[6 + ID_BYTES] = "cmig/2\1";
    struct noise_config config = {.pattern = NOISE_XX,
                                  .initiator = true,
                                  .prologue = prologue,
                                  .prologue_bytes = sizeof prologue,
                                  .static_secret = secret};
    OWNED(owned_noise) struct noise *noise = NULL;
    OWNED(buf_release) struct buf frame = BUF(4096);
    OWNED(buf_release) struct buf papers = BUF(4096);
    const uint8_t *reply;
    size_t reply_len;
    begin(listener, false, 1, 0);
    assert_int_equal(noise_new(&config, &noise, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        buf_clear(&frame);
        buf_add(&frame, (const uint8_t[2]){0}, 2);
        assert_int_equal(noise_write(noise, payload, i == 0 ? 0 : len, &frame, NULL), 0);
        wire_store_u16(frame.data, (uint16_t)(frame.len - 2));
        int status = session_input(listener->session, 0, frame.data, frame.len, NULL);
        if (i == 1)
            return status;
        assert_int_equal(status, 0);
        assert_true(session_output(listener->session, &reply, &reply_len));
        assert_int_equal(noise_read(noise, reply + 2, reply_len - 2, &papers, NULL), 0);
    }
    return 0;
}

/* The byte before the papers: of what it says, later versions may say more, but it may not be missing. */
static void test_session__abilities(void **state)
{
    (void)state;
    static const struct {
        uint8_t byte;
        bool aes;
    } CASES[] = {{0, false}, {1, true}, {0xfe, false}, {0xff, true}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct end listener;
        uint8_t payload[] = {CASES[i].byte, 'p', 'a', 'p', 'e', 'r', 's'};
        assert_int_equal(show(&listener, payload, sizeof payload), 0);
        assert_true(listener.open);
        assert_int_equal(session_uses_aes(listener.session), CASES[i].aes);
        assert_int_equal(listener.seen_payload_len, 6);
        assert_memory_equal(listener.seen_payload, "papers", 6);
        session_free(listener.session);
    }
    struct end listener;
    assert_int_equal(show(&listener, NULL, 0), ERR_PROTOCOL);
    assert_false(listener.open);
    session_free(listener.session);
}

/* faults 22: wherever the stream is cut, that is an error, and nothing half arrives */
static void test_session__cut_at_every_byte(void **state)
{
    (void)state;
    for (size_t cut = 0;; cut++) {
        struct end ends[2];
        begin(&ends[0], true, 1, 0);
        begin(&ends[1], false, 1, 0);
        bool sent = false;
        size_t passed = 0;
        const uint8_t *data;
        size_t len;
        struct err err = {0};
        bool done = false;
        /* everything that goes to the listener, byte by byte, until the cut */
        while (passed < cut && !done) {
            assert_int_equal(carry(&ends[1], &ends[0], 4096, 0, &err), 0);
            if (ends[0].open && !sent) {
                sent = true;
                assert_int_equal(session_send(ends[0].session, 0x42, "head", 4, "and body", 8, NULL), 0);
                session_close(ends[0].session, SESSION_REASON_DONE);
            }
            if (!session_output(ends[0].session, &data, &len)) {
                done = true;
                break;
            }
            uint8_t byte = data[0];
            session_sent(ends[0].session, 0, 1);
            assert_int_equal(session_input(ends[1].session, 0, &byte, 1, &err), 0);
            passed++;
        }
        done = session_state(ends[1].session) == SESSION_CLOSED;
        int status = session_input_end(ends[1].session, &err);
        assert_int_equal(status, done ? 0 : ERR_CLOSED);
        if (done) {
            assert_int_equal(ends[1].messages, 1);
            assert_int_equal(session_close_reason(ends[1].session), SESSION_REASON_DONE);
        } else {
            assert_int_equal(session_close_reason(ends[1].session), SESSION_REASON_NONE);
        }
        finish(ends);
        if (done)
            break;
        assert_true(cut < 1000);
    }
}

/* A flipped bit anywhere in the handshake or in a message ends the session. */
static void test_session__tampering_is_seen(void **state)
{
    (void)state;
    unsigned rounds = 0;
    for (size_t at = 2; rounds < 1; at++) {
        struct end ends[2];
        connect_ends(ends, 4096, 0);
        assert_int_equal(session_send(ends[0].session, 0x42, "head", 4, "and body", 8, NULL), 0);
        const uint8_t *data;
        size_t len;
        assert_true(session_output(ends[0].session, &data, &len));
        uint8_t copy[256];
        assert_true(len <= sizeof copy);
        memcpy(copy, data, len);
        if (at < len) {
            copy[at] ^= 1;
            assert_int_equal(session_input(ends[1].session, 0, copy, len, NULL), ERR_AUTH);
            assert_int_equal(ends[1].messages, 0);
            assert_int_equal(session_state(ends[1].session), SESSION_CLOSED);
        } else {
            rounds++;
        }
        finish(ends);
    }
}

static void test_session__other_cluster_is_refused(void **state)
{
    (void)state;
    struct end ends[2];
    begin(&ends[0], true, 1, 0);
    begin(&ends[1], false, 2, 0);
    assert_int_equal(settle(ends, 4096, 0, NULL), ERR_AUTH);
    assert_false(ends[0].open || ends[1].open);
    assert_int_equal(ends[0].seen_payload_len, 0);
    finish(ends);
}

/* A dialer shows nothing of itself to a listener that it does not accept. */
static void test_session__refusal_comes_before_own_papers(void **state)
{
    (void)state;
    struct end ends[2];
    begin(&ends[0], true, 1, 0);
    begin(&ends[1], false, 1, 0);
    ends[0].refuse = true;
    assert_int_equal(settle(ends, 4096, 0, NULL), ERR_DENIED);
    assert_int_equal(ends[1].seen_payload_len, 0);
    const uint8_t *data;
    size_t len;
    assert_false(session_output(ends[0].session, &data, &len));
    finish(ends);

    begin(&ends[0], true, 1, 0);
    begin(&ends[1], false, 1, 0);
    ends[1].refuse = true;
    assert_int_equal(settle(ends, 4096, 0, NULL), ERR_DENIED);
    assert_false(ends[1].open);
    finish(ends);
}

/* faults 21: lengths that cannot be are refused when only they have come */
static void test_session__bad_lengths(void **state)
{
    (void)state;
    static const uint16_t STRANGER[] = {0, 1, 31, 5000, 0x8000, 0xffff};
    for (size_t i = 0; i < sizeof STRANGER / sizeof STRANGER[0]; i++) {
        struct end ends[2];
        begin(&ends[0], true, 1, 0);
        begin(&ends[1], false, 1, 0);
        uint8_t length[2] = {(uint8_t)(STRANGER[i] >> 8), (uint8_t)STRANGER[i]};
        assert_int_equal(session_input(ends[1].session, 0, length, 2, NULL), ERR_PROTOCOL);
        finish(ends);
    }
    for (uint8_t small = 0; small < 17; small++) {
        struct end ends[2];
        connect_ends(ends, 4096, 0);
        uint8_t length[2] = {0, small};
        assert_int_equal(session_input(ends[1].session, 0, length, 2, NULL), ERR_PROTOCOL);
        finish(ends);
    }
}

/* faults 24: silent or slow, a stranger has until the deadline */
static void test_session__slow_handshake(void **state)
{
    (void)state;
    struct end ends[2];
    begin(&ends[0], true, 1, 100);
    begin(&ends[1], false, 1, 100);
    uint64_t wake = 0;
    assert_int_equal(session_tick(ends[1].session, 100, &wake, NULL), 0);
    assert_int_equal(wake, 100 + LIMIT_HANDSHAKE_MS);
    for (uint64_t now = 600; now < 5000; now += 500) {
        const uint8_t *data;
        size_t len;
        assert_true(session_output(ends[0].session, &data, &len));
        uint8_t byte = data[0];
        session_sent(ends[0].session, now, 1);
        assert_int_equal(session_input(ends[1].session, now, &byte, 1, NULL), 0);
        assert_int_equal(session_tick(ends[1].session, now, &wake, NULL), 0);
        assert_int_equal(wake, 100 + LIMIT_HANDSHAKE_MS);
    }
    struct err err = {0};
    assert_int_equal(session_tick(ends[1].session, 5100, &wake, &err), ERR_TIMEOUT);
    assert_int_equal(session_state(ends[1].session), SESSION_CLOSED);
    finish(ends);
}

/* Pings keep it alive and measure; a cut of 3 s is survived, 15 s of silence are not. */
static void test_session__silence_and_round_trips(void **state)
{
    (void)state;
    struct end ends[2];
    connect_ends(ends, 4096, 0);
    uint64_t now = 0;
    uint64_t wake = 0;
    for (unsigned i = 0; i < 40; i++) {
        now += 1000;
        assert_int_equal(session_tick(ends[0].session, now, &wake, NULL), 0);
        assert_int_equal(session_tick(ends[1].session, now, &wake, NULL), 0);
        assert_int_equal(carry(&ends[0], &ends[1], 4096, now + 20, NULL), 0);
        assert_int_equal(carry(&ends[1], &ends[0], 4096, now + 40, NULL), 0);
    }
    struct session_stats stats;
    session_get_stats(ends[0].session, &stats);
    assert_in_range(stats.rtt_ms, 20, 40);
    assert_int_equal(session_tick(ends[0].session, now + 3500, &wake, NULL), 0);
    assert_int_equal(session_tick(ends[0].session, now + 14900, &wake, NULL), 0);
    assert_int_equal(session_tick(ends[0].session, now + 15100, &wake, NULL), ERR_TIMEOUT);
    finish(ends);
}

/* faults 26: a peer that never reads costs a bounded buffer and some time; faults 25: 10 B/s is never */
static void test_session__peer_that_does_not_read(void **state)
{
    (void)state;
    for (unsigned rate = 0; rate <= 10; rate += 10) {
        struct end ends[2];
        connect_ends(ends, 4096, 0);
        uint8_t *data = calloc(1, 65536);
        int status = 0;
        size_t accepted = 0;
        for (unsigned i = 0; i < 1000 && status == 0; i++) {
            status = session_send(ends[0].session, 0x42, NULL, 0, data, 65536, NULL);
            accepted += status == 0 ? 65536 : 0;
        }
        assert_int_equal(status, ERR_LIMIT);
        assert_in_range(accepted, LIMIT_SESSION_OUT_BYTES / 2, LIMIT_SESSION_OUT_BYTES);
        assert_int_equal(session_room(ends[0].session), 0);
        uint64_t now = 0;
        uint64_t wake = 0;
        for (; now < 60000 && status != ERR_TIMEOUT; now += 1000) {
            if (rate)
                session_sent(ends[0].session, now, rate);
            /* it pings all the same, so silence alone does not give it away */
            session_tick(ends[1].session, now, &wake, NULL);
            carry(&ends[1], &ends[0], 4096, now, NULL);
            status = session_tick(ends[0].session, now, &wake, NULL);
        }
        assert_int_equal(status, ERR_TIMEOUT);
        assert_in_range(now, LIMIT_SESSION_DRAIN_MS, LIMIT_SESSION_DRAIN_MS + 2000);
        free(data);
        finish(ends);
    }
}

static void test_session__close_is_told(void **state)
{
    (void)state;
    struct end ends[2];
    connect_ends(ends, 4096, 0);
    ends[1].close_after = SESSION_REASON_OVERLOAD;
    assert_int_equal(session_send(ends[0].session, 0x42, NULL, 0, "x", 1, NULL), 0);
    assert_int_equal(session_send(ends[0].session, 0x42, NULL, 0, "y", 1, NULL), 0);
    assert_int_equal(settle(ends, 4096, 0, NULL), 0);
    assert_int_equal(ends[1].messages, 1);
    assert_int_equal(session_state(ends[0].session), SESSION_CLOSED);
    assert_int_equal(session_close_reason(ends[0].session), SESSION_REASON_OVERLOAD);
    assert_int_equal(session_input_end(ends[0].session, NULL), 0);
    assert_int_equal(session_send(ends[0].session, 0x42, NULL, 0, "z", 1, NULL), ERR_CLOSED);
    uint64_t wake = 0;
    assert_int_equal(session_tick(ends[0].session, 99999, &wake, NULL), 0);
    assert_true(wake == UINT64_MAX);
    finish(ends);
}

/* faults 23: the key changes in the middle of a stream and nobody notices */
static void test_session__rekey_mid_transfer(void **state)
{
    (void)state;
    struct end ends[2];
    connect_ends(ends, 1 << 20, 0);
    for (unsigned i = 0; i < (1u << 16) + 100; i++) {
        assert_int_equal(session_send(ends[0].session, 0x42, &i, sizeof i, NULL, 0, NULL), 0);
        if (i % 256 == 0)
            assert_int_equal(settle(ends, 1 << 20, 0, NULL), 0);
    }
    assert_int_equal(settle(ends, 1 << 20, 0, NULL), 0);
    assert_int_equal(ends[1].messages, (1u << 16) + 100);
    finish(ends);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_session__both_sides_know_each_other),
        cmocka_unit_test(test_session__messages_of_all_sizes_in_all_parts),
        cmocka_unit_test(test_session__cipher_of_two),
        cmocka_unit_test(test_session__abilities),
        cmocka_unit_test(test_session__cut_at_every_byte),
        cmocka_unit_test(test_session__tampering_is_seen),
        cmocka_unit_test(test_session__other_cluster_is_refused),
        cmocka_unit_test(test_session__refusal_comes_before_own_papers),
        cmocka_unit_test(test_session__bad_lengths),
        cmocka_unit_test(test_session__slow_handshake),
        cmocka_unit_test(test_session__silence_and_round_trips),
        cmocka_unit_test(test_session__peer_that_does_not_read),
        cmocka_unit_test(test_session__close_is_told),
        cmocka_unit_test(test_session__rekey_mid_transfer),
    };
    return crypto_init(NULL) < 0 || cmocka_run_group_tests(tests, NULL, NULL);
}
