/*
 * Transfer: encrypted sessions between two nodes, and the exchange of objects over them, from many peers at once.
 *
 * No sockets, no clock, no threads of its own, and no idea of the DHT: bytes, messages and the time (monotonic
 * milliseconds, `now_ms`) go in; bytes, messages, callbacks and the next wake-up come out. Blocking work on the store
 * goes through `struct jobs`. One thread calls everything here that belongs together.
 *
 * 1. Bytes that a fetch hands to the store have passed the digest of their chunk; an object is done only when its own
 *    digest fits. Who gave bytes that do not fit is named, dropped, and not asked again.
 * 2. The end of a stream is never the end of anything else: only a CLOSE frame ends a session in good order.
 * 3. Memory is bounded by limits.h whatever the size of an object and whatever peers do.
 * 4. Every wait has a deadline; what was verified is kept and announced, so a fetch resumes and a crowd becomes a
 * swarm.
 *
 * Wire format: docs/protocol-session.md.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/addr.h"
#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/id.h"
#include "node/base/jobs.h"
#include "node/base/scope.h"
#include "store/store.h"

/* ==== sessions: Noise_XX_25519_ChaChaPoly_BLAKE2b over one byte stream, then AES-256-GCM where both can ==== */

/* Message types below this belong to the exchange, from here to SESSION_TYPE_END - 1 to the application. */
#define SESSION_TYPE_APP 0x40
#define SESSION_TYPE_END 0x78

/* Why a peer ended a session in good order. */
enum session_reason {
    SESSION_REASON_NONE,      /* it did not */
    SESSION_REASON_DONE,      /* nothing more to say */
    SESSION_REASON_SHUTDOWN,  /* the node stops */
    SESSION_REASON_DUPLICATE, /* another session with the same node is kept */
    SESSION_REASON_REVOKED,   /* the certificate is no longer good */
    SESSION_REASON_OVERLOAD,  /* too many sessions */
};

enum session_state { SESSION_HANDSHAKE, SESSION_OPEN, SESSION_CLOSED };

struct session;

#define SESSION_HEAD_BYTES 128
/* Head and body of up to this much travel in one frame, without a copy at either end. With the type byte 32 KiB and 48
 * bytes: libcrypto 3.0's Poly1305 is a quarter slower on AVX-512 when what it gets at once is 64 to 127 bytes past a
 * multiple of 128, and here it never is, for heads of up to 32 bytes. */
#define SESSION_FRAME_BYTES (32768 + 47)

struct session_config {
    bool dialer;                  /* sends the first handshake message */
    const uint8_t *static_secret; /* X25519, CRYPTO_DH_BYTES; copied */
    struct id cluster;            /* part of the prologue: both sides must mean the same */
    const void *payload;          /* shown to the peer, encrypted; at most LIMIT_HANDSHAKE_PAYLOAD_BYTES; copied */
    size_t payload_bytes;
    bool has_aes; /* crypto_has_aes; AES-256-GCM is what a session between two that have it uses */
    /* Is the peer, whose key and payload these are, allowed here? 0 and *ret_peer, or a negative code: the session
     * ends. A dialer's payload is sent only after its verify has accepted the listener. */
    int (*verify)(void *ctx, const uint8_t remote_static[32], const void *payload, size_t payload_bytes,
                  struct id *ret_peer, struct err *err);
    /* The handshake is done and both sides are known. May send; may not free the session. Optional. */
    void (*on_open)(void *ctx, const struct id *peer);
    /* One whole message; `data` lives until the callback returns. May send and close; may not free the session.
     * A negative return ends the session with that error. */
    int (*on_message)(void *ctx, uint8_t type, const uint8_t *data, size_t len_bytes, struct err *err);
    void *ctx; /* borrowed */
};

/* The handshake deadline (LIMIT_HANDSHAKE_MS) runs from here. */
int session_new(const struct session_config *config, uint64_t now_ms, struct session **ret_session, struct err *err);
void session_free(struct session *session);
OWNED_DEFINE(owned_session, struct session, session_free)

/* Bytes from the stream, in whatever pieces; decrypted in place, so `data` is scratch afterwards. 0, or a negative
 * code: the session is closed and the connection to be cut. Bytes after a CLOSE are ignored. */
int session_input(struct session *session, uint64_t now_ms, uint8_t *data, size_t len_bytes, struct err *err);
/* The stream has ended (FIN or reset). 0 after a CLOSE from either side, else ERR_CLOSED: it was cut. */
int session_input_end(struct session *session, struct err *err);

/* The next bytes for the stream: borrowed until session_sent of them or session_free. False when there are none. */
bool session_output(const struct session *session, const uint8_t **ret_data, size_t *ret_len_bytes);
/* The same for one write of many pieces: at most `max` of them, in order. Returns how many. */
struct session_piece {
    const uint8_t *data;
    size_t len_bytes;
};
size_t session_output_pieces(const struct session *session, struct session_piece *ret_pieces, size_t max);
/* The first len_bytes of what session_output or session_output_pieces gave have been taken. */
void session_sent(struct session *session, uint64_t now_ms, size_t len_bytes);

/* Send a message of head and body, one after the other: either may be empty, the head at most SESSION_HEAD_BYTES, both
 * together LIMIT_CONTROL_BYTES; type < SESSION_TYPE_END. Encrypts from where the bytes lie, in one pass. ERR_LIMIT, and
 * nothing sent, when LIMIT_SESSION_OUT_BYTES are waiting; ERR_CLOSED unless SESSION_OPEN. */
int session_send(struct session *session, uint8_t type, const void *head, size_t head_bytes, const void *body,
                 size_t body_bytes, struct err *err);
/* How many bytes of bulk should be sent now, so that what is urgent does not wait behind them: LIMIT_SESSION_BULK_BYTES
 * less what waits. 0 while not open. */
size_t session_room(const struct session *session);

/* Queue a CLOSE; the session takes no more messages either way. The caller writes what session_output still has. */
void session_close(struct session *session, enum session_reason reason);

/* Deadlines and pings. 0 and *ret_wake_ms (when to call again at the latest), or ERR_TIMEOUT: closed, to be cut. */
int session_tick(struct session *session, uint64_t now_ms, uint64_t *ret_wake_ms, struct err *err);

enum session_state session_state(const struct session *session);
enum session_reason session_close_reason(const struct session *session); /* the peer's */
const struct id *session_peer(const struct session *session);            /* NULL before SESSION_OPEN */
bool session_uses_aes(const struct session *session);                    /* from SESSION_OPEN on */
/* Hash of the handshake, the same on both sides and unique to the session, for binding other things to it (Noise
 * specification, section 11.2). 64 bytes; valid from SESSION_OPEN on. */
const uint8_t *session_binding(const struct session *session);

struct session_stats {
    uint64_t in_bytes;
    uint64_t out_bytes;     /* handed to the stream */
    uint64_t waiting_bytes; /* not yet */
    uint32_t rtt_ms;        /* smoothed as in RFC 6298, section 2; measured by the handshake, then by pings */
    uint32_t rtt_var_ms;
};
void session_get_stats(const struct session *session, struct session_stats *ret_stats);

/* ==== exchange: objects to and from peers ==== */

struct exchange;
struct exchange_peer;  /* one session of ours with a node */
struct exchange_fetch; /* one caller's wish for one object; several may share one transfer */

/* What a transfer is for. Lower numbers go first, none waits for good. On the wire. */
enum exchange_class {
    EXCHANGE_FREEZE = 0,   /* a checkpoint that a stopped container waits for */
    EXCHANGE_VOLUME = 1,   /* the state of a service on its way */
    EXCHANGE_LAYER = 2,    /* images, and what a user asked for */
    EXCHANGE_PREFETCH = 3, /* what nobody waits for */
    EXCHANGE_CLASSES
};

#define EXCHANGE_NAMES_FIRST 12u
#define EXCHANGE_NAMES 40u
#define EXCHANGE_NAMES_MS 8000u

struct exchange_config {
    struct store *store; /* borrowed; outlives every job submitted */
    struct jobs jobs;
    struct rng rng;
    /* A node gave wrong bytes for `object`; `what` says which. It is already dropped for that fetch. Optional. */
    void (*on_liar)(void *ctx, const struct id *node, const struct id *object, const char *what);
    /* The first chunks of `object` are verified here: this node can be named as a provider of it. Optional. */
    void (*on_provide)(void *ctx, const struct id *object);
    /* A peer says that this node has some of `object`, or wants it, and can be reached there. Optional. */
    void (*on_peer)(void *ctx, const struct id *object, const struct id *node, const struct addr *addr);
    void *ctx; /* borrowed */
};

/* Of the nodes that on_peer names, a fetch turns to so many at most in its first age_ms. The names that are heard at
 * first are those of who came first: if all took only these, they would have to serve all the others. */
static inline unsigned exchange_names_taken(uint64_t age_ms)
{
    return age_ms < EXCHANGE_NAMES_MS
               ? (unsigned)(EXCHANGE_NAMES_FIRST + (EXCHANGE_NAMES - EXCHANGE_NAMES_FIRST) * age_ms / EXCHANGE_NAMES_MS)
               : EXCHANGE_NAMES;
}

/* Bytes a second, frames included; 0: no limit. What would pass any of them waits. */
struct exchange_rates {
    uint64_t total;
    uint64_t peer;                      /* to or from each */
    uint64_t classes[EXCHANGE_CLASSES]; /* of each class, all peers together */
};

struct exchange_limits {
    struct exchange_rates up;
    struct exchange_rates down;
};

int exchange_new(const struct exchange_config *config, struct exchange **ret_exchange, struct err *err);
/* Drops peers and fetches without calling back. Jobs in flight keep what they need until they are done. */
void exchange_free(struct exchange *exchange);
/* Retries, deadlines, hedges, announcements. Sets when to call again at the latest (UINT64_MAX: when something comes).
 */
void exchange_tick(struct exchange *exchange, uint64_t now_ms, uint64_t *ret_wake_ms);
/* From now on, also for what is under way. There are none at first. Call exchange_tick soon after. */
void exchange_set_limits(struct exchange *exchange, const struct exchange_limits *limits, uint64_t now_ms);

/* What a GiB from this node costs, in thousandths of the operators' unit: peers are told with what it has. 0 at first.
 */
void exchange_set_price(struct exchange *exchange, uint32_t price);

/* ---- peers ---- */

/* How an exchange reaches a peer. None of these may call the exchange. */
struct exchange_link {
    /* As session_send. A failure makes the exchange treat the peer as gone until it is removed. */
    int (*send)(void *ctx, uint8_t type, const void *head, size_t head_bytes, const void *body, size_t body_bytes);
    size_t (*room)(void *ctx);     /* as session_room */
    uint32_t (*rtt_ms)(void *ctx); /* smoothed round trip */
    /* Where others reach the node, which is told to those who want what it has; false: not known. Optional. */
    bool (*addr)(void *ctx, struct addr *ret_addr);
    void *ctx; /* borrowed until exchange_peer_remove */
};

int exchange_peer_add(struct exchange *exchange, const struct id *node, const struct exchange_link *link,
                      struct exchange_peer **ret_peer, struct err *err);
/* A message of type < SESSION_TYPE_APP. ERR_PROTOCOL: the session is to be ended. */
int exchange_peer_input(struct exchange_peer *peer, uint64_t now_ms, uint8_t type, const uint8_t *data,
                        size_t len_bytes, struct err *err);
/* There is room again. */
void exchange_peer_writable(struct exchange_peer *peer, uint64_t now_ms);
/* The session is gone: what was asked of it goes elsewhere. */
void exchange_peer_remove(struct exchange_peer *peer, uint64_t now_ms);

/* What has been measured. Kept for as long as the peer is here. */
struct exchange_cost {
    uint32_t rtt_ms;
    uint64_t goodput_bytes_per_s; /* smoothed over runs; 0: not measured yet */
    uint64_t received_bytes;      /* verified, of chunks as stored */
    uint64_t sent_bytes;
    uint32_t failures; /* stalls, refusals, lies */
    uint32_t waiting_runs;
    uint8_t load;   /* how much of its sending it has in use, as it said last; 255: all */
    uint32_t price; /* what a GiB from it costs, as it said, in thousandths of the operators' unit */
};
void exchange_peer_cost(const struct exchange_peer *peer, struct exchange_cost *ret_cost);

/* ---- fetching ---- */

struct exchange_progress {
    uint64_t done_bytes;  /* of the object: verified, wherever they came from */
    uint64_t total_bytes; /* 0 while unknown */
    uint64_t rate_bytes_per_s;
    unsigned peers; /* that have given or are giving */
};

struct exchange_share {
    struct id node;
    uint64_t bytes; /* of the object, verified, that came from it */
    uint32_t failures;
    bool liar;
};

/* What came as deltas, by how it was coded: as it is because that is shorter, against an older version that the
 * provider has, by a signature of an older version. */
#define EXCHANGE_CODECS 3
#define EXCHANGE_BASES 4
struct exchange_delta_stats {
    uint64_t gap_bytes[EXCHANGE_CODECS];  /* of the object */
    uint64_t wire_bytes[EXCHANGE_CODECS]; /* as sent */
    uint64_t signature_bytes;             /* sent to providers */
};

/* Who gave what, at the end. */
struct exchange_stats {
    uint64_t total_bytes;     /* of the object */
    uint64_t local_bytes;     /* were here already and did not move */
    uint64_t fetched_bytes;   /* came from peers: bytes of the object */
    uint64_t wire_bytes;      /* what that was as sent (compressed) */
    uint64_t duplicate_bytes; /* came twice */
    struct exchange_delta_stats deltas;
    uint64_t duration_ms;
    const struct exchange_share *shares; /* borrowed for the callback */
    size_t n_shares;
};

#define EXCHANGE_BASES 4

struct exchange_wish {
    uint8_t kind;  /* enum store_kind, recorded with the object */
    uint8_t class; /* enum exchange_class */
    /* Objects that may be here and resemble it, the likeliest first: what has changed then comes as deltas. Copied. The
     * store is asked as well for what resembles the recipe. */
    struct id bases[EXCHANGE_BASES];
    uint8_t n_bases;
    uint32_t give_up_ms; /* without progress; 0: EXCHANGE_GIVE_UP_MS */
    /* All optional. on_done comes once, never from inside exchange_fetch, and ends the wish; its status is 0,
     * ERR_UNAVAILABLE (nobody has it), ERR_CORRUPT (all lied), or what the store says. */
    void (*on_progress)(void *ctx, const struct exchange_progress *progress);
    void (*on_done)(void *ctx, int status, const struct err *err, const struct exchange_stats *stats);
    /* Nobody left to ask: add peers if there are more. Repeated while that stays so. */
    void (*on_want_peers)(void *ctx, const struct id *object);
    void *ctx; /* borrowed */
};
#define EXCHANGE_GIVE_UP_MS 20000

/* Wish for an object. The wish ends with on_done or exchange_fetch_cancel, and `*ret_fetch` with it. Wishes for one
 * object share a transfer, at the best class and the longest patience of them. Call exchange_tick soon after. */
int exchange_fetch(struct exchange *exchange, uint64_t now_ms, const struct id *object,
                   const struct exchange_wish *wish, struct exchange_fetch **ret_fetch, struct err *err);
/* A peer worth asking: a holder of the object or of an older version of it. `origin`: to be spared where others serve.
 */
void exchange_fetch_add_peer(struct exchange_fetch *fetch, struct exchange_peer *peer, bool origin, uint64_t now_ms);
/* No callbacks after this. What was verified stays in the store for the next try. */
void exchange_fetch_cancel(struct exchange_fetch *fetch);
