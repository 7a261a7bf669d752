/* What the two files of the server share: server.c (accepting, the loop, lifecycle) and server_client.c (one client).
 */
#pragma once

#include "node/base/log.h"
#include "node/gateway/server.h"
#include "node/net/listener.h"

#define READ_BYTES (64u << 10)

/* Of the bytes in `out`, those from `at` on may be sent when `commit` is durable. */
struct hold {
    size_t at;
    uint64_t commit;
};

struct client {
    TAILQ_ENTRY(client)
    entry;
    TAILQ_ENTRY(client)
    waiting_entry;
    struct server *server; /* borrowed */
    uv_tcp_t tcp;
    uv_write_t write;
    struct session session;
    struct resp_reader *reader; /* owned */
    struct resp_command request;
    bool has_request; /* which is not carried out yet */
    bool waiting;     /* for a set or a commit, in the list of these */
    bool stalled;     /* has much to read first */
    bool reading;
    bool heard_all; /* the client has ended its side */
    bool doomed;    /* to be closed when the turn of the loop ends */
    bool writing;
    struct buf out;       /* replies, in order */
    struct buf sending;   /* given to libuv */
    size_t counted;       /* of both, in server->out_bytes */
    struct hold holds[2]; /* commits that are under way: one being written, one that gathers */
    size_t hold_count;
    uint64_t amid_ms; /* since when a command has been arriving; 0: none is */
};

TAILQ_HEAD(client_list, client);

struct server {
    struct server_config config;
    struct command_house house;
    struct listener *listener; /* owned */
    struct client_list clients;
    struct client_list waiting;
    uv_timer_t timer;
    uv_prepare_t before_poll;
    uv_check_t after_poll;
    uv_idle_t gathering; /* runs while a commit is put off, so that polls do not block */
    unsigned handles;    /* open ones, of clients too */
    size_t doomed;
    size_t held;        /* clients with held replies */
    size_t writers;     /* that were held when the last commit ended */
    uint64_t commit_ns; /* when it began, on uv_hrtime */
    uint64_t gather_until_ns;
    size_t out_bytes;
    uint64_t next_id;
    uint64_t second_ms;
    struct log_limit foreign, refused;
    bool closing;
    char read_buffer[READ_BYTES];
};

static inline uint64_t server_mono_ms(const struct server *server)
{
    return clock_mono_ms(&server->config.clock);
}

/* ---- server_client.c ---- */

/* A connection that was accepted becomes a client: counted, and read from. */
void server_client_begin(struct client *client);
/* Close it at the end of this turn of the loop, and say why in the log. */
void server_client_cut(struct client *client, const char *why);
/* Close it now; not from within a callback of its own. */
void server_client_close(struct client *client);

/* Carry out what has arrived, then send all replies at once. */
void server_client_process(struct client *client);
/* Send what may be sent. */
void server_client_flush(struct client *client);
/* Replies that wait for a commit up to this one wait no longer: send them. */
void server_client_release(struct client *client, uint64_t durable);
/* They will not come: tell why instead, and end. */
void server_client_fail(struct client *client, const struct err *err);
