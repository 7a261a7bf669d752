/*
 *              message 3 written or read,
 *              peer accepted by verify               CLOSE sent or read
 *  HANDSHAKE ---------------------------> OPEN ---------------------------> CLOSED
 *      |        handshake_frame()           |       message_frame()           ^
 *      +-- deadline, bad message, refusal --+-- silence, bad frame, overrun --+
 *
 * A frame is a u16 length and one Noise message. Inside an open session its plaintext is a type byte and bytes of one
 * message; MORE in the type says that the message goes on in the next frame.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/buf.h"
#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/base/wire.h"
#include "transfer/noise.h"
#include "transfer/outbox.h"
#include "transfer/transfer.h"

#define LENGTH_BYTES 2
#define TYPE_BYTES 1
#define MORE 0x80

enum { TYPE_PING = SESSION_TYPE_END, TYPE_PONG, TYPE_CLOSE };

#define FRAME_PLAIN_BYTES ((size_t)TYPE_BYTES + SESSION_FRAME_BYTES)
_Static_assert(OUTBOX_BLOCK_BYTES >= 2 * (LENGTH_BYTES + FRAME_PLAIN_BYTES + NOISE_TAG_BYTES), "two frames a block");
/* A handshake's payload begins with what the node can do, one bit each; unknown bits are those of later versions. */
#define ABILITIES_BYTES 1
#define ABILITY_AES 0x01
/* e, s and their tags, the payload and its tag: no stranger makes us hold more. */
#define HANDSHAKE_FRAME_BYTES                                                                                          \
    (2 * CRYPTO_DH_BYTES + 2 * NOISE_TAG_BYTES + ABILITIES_BYTES + LIMIT_HANDSHAKE_PAYLOAD_BYTES)

struct session {
    struct session_config config; /* the payload is in ours, the secret in `noise` */
    uint8_t *payload;             /* owned; after our abilities */
    enum session_state state;
    enum session_reason reason;
    struct noise *noise; /* owned; NULL once open */
    struct noise_cipher send;
    struct noise_cipher receive;
    uint8_t abilities; /* of the peer */
    uint8_t binding[NOISE_HASH_BYTES];
    struct id peer;

    struct buf in;      /* a frame of which not all has come */
    struct buf message; /* a message of which not all frames have come */
    uint8_t message_type;

    struct outbox out;

    uint64_t now_ms; /* as last told */
    uint64_t deadline_ms;
    uint64_t heard_ms;
    uint64_t ping_ms; /* when the next is due */
    uint64_t asked_ms;
    bool asked; /* a ping (or the handshake) sent at asked_ms waits for its answer */
    bool measured;
    uint64_t drain_since_ms;
    size_t drained;
    uint32_t rtt_x8;
    uint32_t rtt_var_x4;
    uint64_t in_bytes;
    uint64_t out_bytes;
};

struct span {
    uint8_t *data;
    size_t len;
};

/* ---- output ---- */

static void queued(struct session *session, size_t len)
{
    if (session->out.waiting_bytes == 0) {
        session->drain_since_ms = session->now_ms;
        session->drained = 0;
    }
    transfer_outbox_added(&session->out, len);
}

bool session_output(const struct session *session, const uint8_t **ret_data, size_t *ret_len_bytes)
{
    return transfer_outbox_next(&session->out, ret_data, ret_len_bytes);
}

size_t session_output_pieces(const struct session *session, struct session_piece *ret_pieces, size_t max)
{
    return transfer_outbox_list(&session->out, ret_pieces, max);
}

void session_sent(struct session *session, uint64_t now_ms, size_t len_bytes)
{
    session->now_ms = now_ms;
    session->out_bytes += len_bytes;
    session->drained += len_bytes;
    transfer_outbox_taken(&session->out, len_bytes);
}

/* One frame of an open session: `small` (the type and whatever fits beside it) and then `body`. */
static int send_frame(struct session *session, const uint8_t *small, size_t small_bytes, const void *body,
                      size_t body_bytes, struct err *err)
{
    size_t sealed_bytes = small_bytes + body_bytes + NOISE_TAG_BYTES;
    uint8_t *at = transfer_outbox_reserve(&session->out, LENGTH_BYTES + sealed_bytes);
    if (!at)
        return err_set(err, ERR_NOMEM, "no memory for output to a peer");
    int status = noise_cipher_seal(&session->send, small, small_bytes, body, body_bytes, at + LENGTH_BYTES, err);
    if (status < 0)
        return status;
    wire_store_u16(at, (uint16_t)sealed_bytes);
    queued(session, LENGTH_BYTES + sealed_bytes);
    return 0;
}

static int send_message(struct session *session, uint8_t type, const void *head, size_t head_bytes, const void *body,
                        size_t body_bytes, struct err *err)
{
    uint8_t small[TYPE_BYTES + SESSION_HEAD_BYTES];
    if (head_bytes > 0)
        memcpy(small + TYPE_BYTES, head, head_bytes);
    size_t small_bytes = TYPE_BYTES + head_bytes;
    const uint8_t *at = body;
    int status;
    do {
        size_t part = body_bytes < FRAME_PLAIN_BYTES - small_bytes ? body_bytes : FRAME_PLAIN_BYTES - small_bytes;
        small[0] = part < body_bytes ? type | MORE : type;
        status = send_frame(session, small, small_bytes, at, part, err);
        at = at ? at + part : NULL;
        body_bytes -= part;
        small_bytes = TYPE_BYTES;
    } while (status == 0 && body_bytes > 0);
    if (status < 0)
        session->state = SESSION_CLOSED; /* half a message may be queued: nothing sensible can follow it */
    return status;
}

int session_send(struct session *session, uint8_t type, const void *head, size_t head_bytes, const void *body,
                 size_t body_bytes, struct err *err)
{
    if (session->state != SESSION_OPEN)
        return err_set(err, ERR_CLOSED, "the session is not open");
    if (type >= SESSION_TYPE_END || head_bytes > SESSION_HEAD_BYTES || body_bytes > LIMIT_CONTROL_BYTES - head_bytes)
        return err_set(err, ERR_INVALID, "a message of type %u and %zu bytes cannot be sent", type,
                       head_bytes + body_bytes);
    if (session->out.waiting_bytes + head_bytes + body_bytes > LIMIT_SESSION_OUT_BYTES)
        return err_set(err, ERR_LIMIT, "the peer reads too slowly: %zu bytes are waiting", session->out.waiting_bytes);
    return send_message(session, type, head, head_bytes, body, body_bytes, err);
}

size_t session_room(const struct session *session)
{
    if (session->state != SESSION_OPEN || session->out.waiting_bytes >= LIMIT_SESSION_BULK_BYTES)
        return 0;
    return LIMIT_SESSION_BULK_BYTES - session->out.waiting_bytes;
}

/* ---- round-trip time (RFC 6298, section 2; alpha 1/8, beta 1/4) ---- */

static void measure_rtt(struct session *session)
{
    session->asked = false;
    uint64_t took = session->now_ms - session->asked_ms;
    uint32_t rtt = took < LIMIT_SESSION_DEAD_MS ? (uint32_t)took : LIMIT_SESSION_DEAD_MS;
    if (!session->measured) {
        session->measured = true;
        session->rtt_x8 = 8 * rtt;
        session->rtt_var_x4 = 2 * rtt;
        return;
    }
    uint32_t smoothed = session->rtt_x8 / 8;
    uint32_t off = smoothed > rtt ? smoothed - rtt : rtt - smoothed;
    session->rtt_var_x4 = session->rtt_var_x4 - session->rtt_var_x4 / 4 + off;
    session->rtt_x8 = session->rtt_x8 - session->rtt_x8 / 8 + rtt;
}

static int send_ping(struct session *session, struct err *err)
{
    uint8_t token[8];
    wire_store_u64(token, session->now_ms);
    session->asked = true;
    session->asked_ms = session->now_ms;
    session->ping_ms = session->now_ms + LIMIT_SESSION_PING_MS;
    return send_message(session, TYPE_PING, token, sizeof token, NULL, 0, err);
}

/* ---- handshake ---- */

static int write_handshake(struct session *session, struct err *err)
{
    /* A dialer speaks of itself only to whom it knows. */
    bool show = !session->config.dialer || noise_remote_static(session->noise);
    OWNED(buf_release) struct buf message = BUF(HANDSHAKE_FRAME_BYTES);
    size_t payload_bytes = show ? ABILITIES_BYTES + session->config.payload_bytes : 0;
    int status = noise_write(session->noise, session->payload, payload_bytes, &message, err);
    if (status < 0)
        return status;
    uint8_t *at = transfer_outbox_reserve(&session->out, LENGTH_BYTES + message.len);
    if (!at)
        return err_set(err, ERR_NOMEM, "no memory for a handshake");
    wire_store_u16(at, (uint16_t)message.len);
    memcpy(at + LENGTH_BYTES, message.data, message.len);
    queued(session, LENGTH_BYTES + message.len);
    session->asked = true;
    session->asked_ms = session->now_ms;
    return 0;
}

static int open_session(struct session *session, struct err *err)
{
    bool aes = session->config.has_aes && session->abilities & ABILITY_AES;
    int status = noise_split(session->noise, aes ? CRYPTO_AES256_GCM : CRYPTO_CHACHA20_POLY1305, &session->send,
                             &session->receive, err);
    if (status < 0)
        return status;
    memcpy(session->binding, noise_hash(session->noise), sizeof session->binding);
    noise_free(STEAL(session->noise));
    session->state = SESSION_OPEN;
    status = send_ping(session, err);
    if (status == 0 && session->config.on_open)
        session->config.on_open(session->config.ctx, &session->peer);
    return status;
}

/* Who the peer is, and what it can do. */
static int take_payload(struct session *session, const uint8_t *remote, const struct buf *payload, struct err *err)
{
    if (payload->len < ABILITIES_BYTES)
        return err_set(err, ERR_PROTOCOL, "a handshake message without a payload");
    session->abilities = payload->data[0];
    return session->config.verify(session->config.ctx, remote, payload->data + ABILITIES_BYTES,
                                  payload->len - ABILITIES_BYTES, &session->peer, err);
}

static int handshake_frame(struct session *session, struct span frame, struct err *err)
{
    OWNED(buf_release) struct buf payload = BUF(HANDSHAKE_FRAME_BYTES);
    int status = noise_read(session->noise, frame.data, frame.len, &payload, err);
    if (status < 0)
        return status;
    if (session->asked)
        measure_rtt(session);
    const uint8_t *remote = noise_remote_static(session->noise);
    if (remote)
        status = take_payload(session, remote, &payload, err);
    else if (payload.len > 0)
        status = err_set(err, ERR_PROTOCOL, "the first handshake message carries a payload");
    if (status == 0 && noise_may_write(session->noise))
        status = write_handshake(session, err);
    return status == 0 && noise_is_done(session->noise) ? open_session(session, err) : status;
}

int session_new(const struct session_config *config, uint64_t now_ms, struct session **ret_session, struct err *err)
{
    if (config->payload_bytes > LIMIT_HANDSHAKE_PAYLOAD_BYTES)
        return err_set(err, ERR_LIMIT, "a handshake payload of %zu bytes is too long", config->payload_bytes);
    OWNED(owned_session) struct session *session = calloc(1, sizeof *session);
    if (session)
        session->payload = malloc(ABILITIES_BYTES + config->payload_bytes);
    if (!session || !session->payload)
        return err_set(err, ERR_NOMEM, "no memory for a session");
    session->payload[0] = config->has_aes ? ABILITY_AES : 0;
    if (config->payload_bytes > 0)
        memcpy(session->payload + ABILITIES_BYTES, config->payload, config->payload_bytes);
    session->config = *config;
    session->config.static_secret = NULL;
    session->config.payload = NULL;
    session->in = BUF(LENGTH_BYTES + LIMIT_FRAME_BYTES);
    session->message = BUF(LIMIT_CONTROL_BYTES);
    session->now_ms = session->heard_ms = now_ms;
    session->deadline_ms = now_ms + LIMIT_HANDSHAKE_MS;

    static const char version[] = "cmig/2";
    uint8_t prologue[sizeof version - 1 + ID_BYTES];
    memcpy(prologue, version, sizeof version - 1);
    memcpy(prologue + sizeof version - 1, config->cluster.b, ID_BYTES);
    int status = noise_new(&(struct noise_config){.pattern = NOISE_XX,
                                                  .initiator = config->dialer,
                                                  .prologue = prologue,
                                                  .prologue_bytes = sizeof prologue,
                                                  .static_secret = config->static_secret},
                           &session->noise, err);
    if (status == 0 && config->dialer)
        status = write_handshake(session, err);
    if (status < 0)
        return status;
    *ret_session = STEAL(session);
    return 0;
}

void session_free(struct session *session)
{
    if (!session)
        return;
    transfer_outbox_release(&session->out);
    noise_free(session->noise);
    noise_cipher_release(&session->send);
    noise_cipher_release(&session->receive);
    buf_release(&session->in);
    buf_release(&session->message);
    free(session->payload);
    crypto_wipe(session, sizeof *session);
    free(session);
}

/* ---- open ---- */

static int answer_ping(struct session *session, const uint8_t *data, size_t len, struct err *err)
{
    if (len != 8)
        return err_set(err, ERR_PROTOCOL, "a ping of %zu bytes", len);
    /* Who pings and does not read the answers gets none. */
    if (session->out.waiting_bytes > LIMIT_SESSION_OUT_BYTES)
        return 0;
    return send_message(session, TYPE_PONG, data, len, NULL, 0, err);
}

static int take_pong(struct session *session, const uint8_t *data, size_t len, struct err *err)
{
    if (len != 8 || !session->asked || wire_load_u64(data) != session->asked_ms)
        return err_set(err, ERR_PROTOCOL, "a pong without its ping");
    measure_rtt(session);
    return 0;
}

static int take_close(struct session *session, const uint8_t *data, size_t len, struct err *err)
{
    if (len != 1 || data[0] == SESSION_REASON_NONE)
        return err_set(err, ERR_PROTOCOL, "a close of %zu bytes", len);
    session->reason = data[0] <= SESSION_REASON_OVERLOAD ? data[0] : SESSION_REASON_DONE;
    session->state = SESSION_CLOSED;
    session->deadline_ms = session->now_ms + LIMIT_SESSION_CLOSE_MS;
    return 0;
}

static int take_message(struct session *session, uint8_t type, const uint8_t *data, size_t len, struct err *err)
{
    switch (type) {
    case TYPE_PING:
        return answer_ping(session, data, len, err);
    case TYPE_PONG:
        return take_pong(session, data, len, err);
    case TYPE_CLOSE:
        return take_close(session, data, len, err);
    default:
        if (type > TYPE_CLOSE)
            return err_set(err, ERR_PROTOCOL, "a message of unknown type %u", type);
        return session->config.on_message(session->config.ctx, type, data, len, err);
    }
}

/* Add to the message that began in an earlier frame, or begin it; deliver it when whole. */
static int join_message(struct session *session, uint8_t type, bool more, struct span part, struct err *err)
{
    if (session->message.len > 0 && type != session->message_type)
        return err_set(err, ERR_PROTOCOL, "a message of type %u inside one of type %u", type, session->message_type);
    if (part.len == 0)
        return err_set(err, ERR_PROTOCOL, "an empty part of a message");
    if (buf_add(&session->message, part.data, part.len) < 0)
        return err_set(err, ERR_PROTOCOL, "a message of more than %u bytes", LIMIT_CONTROL_BYTES);
    session->message_type = type;
    if (more)
        return 0;
    struct buf whole = session->message;
    session->message = BUF(LIMIT_CONTROL_BYTES);
    int status = take_message(session, type, whole.data, whole.len, err);
    buf_release(&whole);
    return status;
}

static int message_frame(struct session *session, struct span frame, struct err *err)
{
    int status = noise_cipher_open(&session->receive, frame.data, frame.len, err);
    if (status < 0)
        return status;
    bool more = frame.data[0] & MORE;
    uint8_t type = frame.data[0] & (uint8_t)~MORE;
    struct span part = {frame.data + TYPE_BYTES, frame.len - NOISE_TAG_BYTES - TYPE_BYTES};
    if (more || session->message.len > 0)
        return join_message(session, type, more, part, err);
    return take_message(session, type, part.data, part.len, err);
}

/* ---- input ---- */

static int check_length(const struct session *session, size_t frame_bytes, struct err *err)
{
    bool handshake = session->state == SESSION_HANDSHAKE;
    size_t least = handshake ? CRYPTO_DH_BYTES : TYPE_BYTES + NOISE_TAG_BYTES;
    size_t most = handshake ? HANDSHAKE_FRAME_BYTES : LIMIT_FRAME_BYTES;
    if (frame_bytes < least || frame_bytes > most)
        return err_set(err, ERR_PROTOCOL, "a frame of %zu bytes", frame_bytes);
    return 0;
}

/* Move up to `want` bytes of the input to session->in. */
static int stash(struct session *session, struct span *input, size_t want, struct err *err)
{
    size_t part = want < input->len ? want : input->len;
    if (buf_add(&session->in, input->data, part) < 0)
        return err_set(err, ERR_NOMEM, "no memory for a frame");
    input->data += part;
    input->len -= part;
    return 0;
}

/* 1 and the next frame: in place if the input has all of it, else joined in session->in, which the caller clears.
 * 0: the input is used up. */
static int next_frame(struct session *session, struct span *input, struct span *ret_frame, struct err *err)
{
    int status = 0;
    if (session->in.len == 0 && input->len >= LENGTH_BYTES) {
        size_t frame_bytes = wire_load_u16(input->data);
        status = check_length(session, frame_bytes, err);
        if (status < 0)
            return status;
        if (input->len - LENGTH_BYTES >= frame_bytes) {
            *ret_frame = (struct span){input->data + LENGTH_BYTES, frame_bytes};
            input->data += LENGTH_BYTES + frame_bytes;
            input->len -= LENGTH_BYTES + frame_bytes;
            return 1;
        }
    }
    if (session->in.len < LENGTH_BYTES)
        status = stash(session, input, LENGTH_BYTES - session->in.len, err);
    if (status < 0 || session->in.len < LENGTH_BYTES)
        return status;
    size_t frame_bytes = wire_load_u16(session->in.data);
    status = check_length(session, frame_bytes, err);
    if (status == 0)
        status = stash(session, input, LENGTH_BYTES + frame_bytes - session->in.len, err);
    if (status < 0 || session->in.len < LENGTH_BYTES + frame_bytes)
        return status;
    *ret_frame = (struct span){session->in.data + LENGTH_BYTES, frame_bytes};
    return 1;
}

int session_input(struct session *session, uint64_t now_ms, uint8_t *data, size_t len_bytes, struct err *err)
{
    session->now_ms = session->heard_ms = now_ms;
    session->in_bytes += len_bytes;
    struct span input = {data, len_bytes};
    struct span frame = {0};
    int status = 0;
    while (input.len > 0 && session->state != SESSION_CLOSED) {
        status = next_frame(session, &input, &frame, err);
        if (status <= 0)
            break;
        status = session->state == SESSION_HANDSHAKE ? handshake_frame(session, frame, err)
                                                     : message_frame(session, frame, err);
        if (session->in.len > 0)
            buf_clear(&session->in);
        if (status < 0)
            break;
    }
    if (status < 0)
        session->state = SESSION_CLOSED;
    return status;
}

int session_input_end(struct session *session, struct err *err)
{
    bool in_order = session->state == SESSION_CLOSED;
    session->state = SESSION_CLOSED;
    return in_order ? 0 : err_set(err, ERR_CLOSED, "the connection was cut");
}

void session_close(struct session *session, enum session_reason reason)
{
    if (session->state == SESSION_OPEN) {
        uint8_t code = (uint8_t)reason;
        send_message(session, TYPE_CLOSE, &code, sizeof code, NULL, 0, NULL);
    }
    session->state = SESSION_CLOSED;
    session->deadline_ms = session->now_ms + LIMIT_SESSION_CLOSE_MS;
}

/* ---- time ---- */

static int tick_open(struct session *session, uint64_t *ret_wake_ms, struct err *err)
{
    uint64_t now = session->now_ms;
    uint64_t dead_ms = session->heard_ms + LIMIT_SESSION_DEAD_MS;
    if (now >= dead_ms)
        return err_set(err, ERR_TIMEOUT, "the peer has been silent for %u s", LIMIT_SESSION_DEAD_MS / 1000);
    uint64_t drain_ms = session->out.waiting_bytes > 0 ? session->drain_since_ms + LIMIT_SESSION_DRAIN_MS : UINT64_MAX;
    if (now >= drain_ms) {
        if (session->drained < LIMIT_SESSION_DRAIN_BYTES)
            return err_set(err, ERR_TIMEOUT, "the peer took %zu bytes in %u s", session->drained,
                           LIMIT_SESSION_DRAIN_MS / 1000);
        session->drain_since_ms = now;
        session->drained = 0;
        drain_ms = now + LIMIT_SESSION_DRAIN_MS;
    }
    if (!session->asked && now >= session->ping_ms) {
        if (session->out.waiting_bytes == 0)
            transfer_outbox_trim(&session->out);
        int status = send_ping(session, err);
        if (status < 0)
            return status;
    }
    uint64_t wake = dead_ms < drain_ms ? dead_ms : drain_ms;
    *ret_wake_ms = !session->asked && session->ping_ms < wake ? session->ping_ms : wake;
    return 0;
}

int session_tick(struct session *session, uint64_t now_ms, uint64_t *ret_wake_ms, struct err *err)
{
    session->now_ms = now_ms;
    int status = 0;
    if (session->state == SESSION_OPEN)
        status = tick_open(session, ret_wake_ms, err);
    else if (session->state == SESSION_CLOSED && session->out.waiting_bytes == 0)
        *ret_wake_ms = UINT64_MAX;
    else if (now_ms < session->deadline_ms)
        *ret_wake_ms = session->deadline_ms;
    else
        status = err_set(err, ERR_TIMEOUT,
                         session->state == SESSION_HANDSHAKE ? "the handshake was not done within %u ms"
                                                             : "the rest was not taken within %u ms",
                         session->state == SESSION_HANDSHAKE ? LIMIT_HANDSHAKE_MS : LIMIT_SESSION_CLOSE_MS);
    if (status < 0)
        session->state = SESSION_CLOSED;
    return status;
}

/* ---- queries ---- */

enum session_state session_state(const struct session *session)
{
    return session->state;
}

enum session_reason session_close_reason(const struct session *session)
{
    return session->reason;
}

const struct id *session_peer(const struct session *session)
{
    return session->noise ? NULL : &session->peer;
}

bool session_uses_aes(const struct session *session)
{
    return session->send.kind == CRYPTO_AES256_GCM;
}

const uint8_t *session_binding(const struct session *session)
{
    return session->binding;
}

void session_get_stats(const struct session *session, struct session_stats *ret_stats)
{
    *ret_stats = (struct session_stats){.in_bytes = session->in_bytes,
                                        .out_bytes = session->out_bytes,
                                        .waiting_bytes = session->out.waiting_bytes,
                                        .rtt_ms = session->rtt_x8 / 8,
                                        .rtt_var_ms = session->rtt_var_x4 / 4};
}
