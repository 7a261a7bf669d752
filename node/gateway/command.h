/*
 * Commands: what clients ask, by name, as Redis 7.0 answers. The table is in command.c; what the commands do is in
 * command_*.c, which append replies to a buffer and know no sockets.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "node/base/addr.h"
#include "node/gateway/channels.h"
#include "node/gateway/resp.h"
#include "node/gateway/sets.h"

/* Versions that clients look at: of the commands' semantics, and of this program. */
#define COMMAND_REDIS_VERSION "7.0.15"

struct session;
typedef void (*session_cb)(void *ctx, struct session *session);

/* What INFO tells and commands count, of the server as a whole. */
struct command_house {
    struct sets *sets;         /* borrowed */
    struct channels *channels; /* borrowed */
    uint64_t started_ms;       /* wall */
    uint16_t port;
    size_t clients;
    size_t waiting; /* clients, for sets */
    uint64_t connections;
    uint64_t refused; /* connections */
    uint64_t cut;     /* clients that did not read */
    uint64_t commands;
    /* Call back for the session of each client. */
    void (*each_session)(void *ctx, session_cb cb, void *cb_ctx);
    void *ctx; /* borrowed */
};

#define SESSION_NAME_MAX_BYTES 64

/* One client, as commands see it. */
struct session {
    uint64_t id;
    struct addr addr;
    uint64_t since_ms; /* wall */
    uint64_t used_ms;  /* wall */
    char name[SESSION_NAME_MAX_BYTES + 1];
    const char *last; /* the last command, static */
    bool ending;      /* after what was replied */
    struct subscriber subscriber;
};

struct command;

/* One command being carried out. */
struct call {
    const struct command *command;
    const struct resp_arg *args; /* borrowed, as all here */
    size_t count;                /* of args; the name is args[0] */
    struct buf *out;
    struct session *session;
    struct command_house *house;
    struct sets *sets; /* house->sets */
    struct set *set; /* the first that the command names; may have no members, which to a client is the same as none */
};

typedef void (*command_cb)(struct call *call);

enum {
    COMMAND_WRITES = 1 << 0,     /* changes sets: refused while nothing can be made durable */
    COMMAND_SUBSCRIBED = 1 << 1, /* also while subscribed to something */
    COMMAND_FAST = 1 << 2,       /* told by COMMAND INFO */
    COMMAND_PUBSUB = 1 << 3,     /* likewise */
};

struct command {
    const char *name; /* lower case */
    int arity;        /* with the name; negative: at least so many */
    unsigned flags;
    int first_key, last_key, key_step; /* as COMMAND INFO tells: positions of the names of sets; 0: none */
    command_cb run;
    const char *group;
    const char *summary;
};

/* In order of their names. */
extern const struct command commands[];
extern const size_t command_count;
const struct command *command_find(const char *name, size_t name_len);

enum command_result {
    COMMAND_DONE, /* replied */
    COMMAND_WAIT, /* nothing was done: again, when sets are ready or a commit is over */
};
/* Carry out a command. */
enum command_result command_run(struct command_house *house, struct session *session,
                                const struct resp_command *request, struct buf *out);

/* ---- for command_*.c ---- */

/* Is this word, in any case, the argument? `word` is in upper case. */
bool command_is(const struct resp_arg *arg, const char *word);
/* "ERR wrong number of arguments for 'name' command" */
void command_wrong_count(struct call *call);
void command_syntax_error(struct call *call);
/* An integer, or "ERR value is not an integer or out of range" and false. */
bool command_integer(struct call *call, size_t index, int64_t *ret_value);
/* A length that is not negative, or "ERR value is out of range, must be positive" and false. */
bool command_length(struct call *call, size_t index, size_t *ret_value);
/* Reply with what a function of sets.h failed with. */
void command_failed(struct call *call, const struct err *err);
/* The set that args[index] names, which is one of the command's keys; as call->set. */
struct set *command_set(struct call *call, size_t index);
/* Scores or names from min to max; or the error for what they are not, and false. */
bool command_scores(struct call *call, size_t min_index, size_t max_index, struct set_scores *ret_scores);
bool command_names(struct call *call, size_t min_index, size_t max_index, struct set_bound ret_ends[2]);
/* Ranks as Redis counts them, from the end if negative, both included: those of the set that there are. */
struct set_range command_ranks(const struct set *set, int64_t first, int64_t last);
/* Does the text fit a pattern of *, ?, [a-z], [^a] and backslashes, as Redis understands them? */
bool command_matches(const char *pattern, size_t pattern_len, const char *text, size_t text_len);
/* ---- what the table names ---- */

/* command_read.c */
void command_zcard(struct call *call);
void command_zcount(struct call *call);
void command_zlexcount(struct call *call);
void command_zmscore(struct call *call);
void command_zrange(struct call *call);
void command_zrangebylex(struct call *call);
void command_zrangebyscore(struct call *call);
void command_zrank(struct call *call);
void command_zrevrange(struct call *call);
void command_zrevrangebylex(struct call *call);
void command_zrevrangebyscore(struct call *call);
void command_zrevrank(struct call *call);
void command_zscore(struct call *call);

/* command_write.c */
void command_zadd(struct call *call);
void command_zincrby(struct call *call);
void command_zpopmax(struct call *call);
void command_zpopmin(struct call *call);
void command_zrem(struct call *call);
void command_zremrangebylex(struct call *call);
void command_zremrangebyrank(struct call *call);
void command_zremrangebyscore(struct call *call);

/* command_keys.c */
void command_dbsize(struct call *call);
void command_del(struct call *call);
void command_exists(struct call *call);
void command_expire(struct call *call);
void command_expireat(struct call *call);
void command_expiretime(struct call *call);
void command_keys(struct call *call);
void command_persist(struct call *call);
void command_pexpire(struct call *call);
void command_pexpireat(struct call *call);
void command_pexpiretime(struct call *call);
void command_pttl(struct call *call);
void command_scan(struct call *call);
void command_ttl(struct call *call);
void command_type(struct call *call);
void command_zscan(struct call *call);

/* command_client.c */
void command_auth(struct call *call);
void command_client(struct call *call);
void command_echo(struct call *call);
void command_hello(struct call *call);
void command_ping(struct call *call);
void command_publish(struct call *call);
void command_quit(struct call *call);
void command_reset(struct call *call);
void command_select(struct call *call);
void command_subscribe(struct call *call);
void command_unsubscribe(struct call *call);

/* command_server.c */
void command_command(struct call *call);
void command_config(struct call *call);
void command_info(struct call *call);
void command_wait(struct call *call);
