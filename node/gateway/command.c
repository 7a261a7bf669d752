#include "node/gateway/command.h"

#include <stdio.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/gateway/view.h"

#define W COMMAND_WRITES
#define S COMMAND_SUBSCRIBED
#define F COMMAND_FAST
#define P COMMAND_PUBSUB

/* In order of their names: they are searched by halves. */
const struct command commands[] = {
    {"auth", -2, F, 0, 0, 0, command_auth, "connection", "Refused: no password is set"},
    {"client", -2, 0, 0, 0, 0, command_client, "connection", "GETNAME, ID, INFO, LIST, SETINFO or SETNAME"},
    {"command", -1, 0, 0, 0, 0, command_command, "server", "What commands there are: COUNT, DOCS, INFO, LIST"},
    {"config", -2, 0, 0, 0, 0, command_config, "server", "GET: a few settings that clients ask for"},
    {"dbsize", 1, F, 0, 0, 0, command_dbsize, "server", "How many sets this node has in memory"},
    {"del", -2, W, 1, -1, 1, command_del, "generic", "Remove sets with all their members"},
    {"echo", 2, F, 0, 0, 0, command_echo, "connection", "Give back a text"},
    {"exists", -2, F, 1, -1, 1, command_exists, "generic", "How many of these sets exist"},
    {"expire", -3, W | F, 1, 1, 1, command_expire, "generic", "Remove a set after some seconds"},
    {"expireat", -3, W | F, 1, 1, 1, command_expireat, "generic", "Remove a set at a second since 1970"},
    {"expiretime", 2, F, 1, 1, 1, command_expiretime, "generic", "When a set will be removed, in seconds since 1970"},
    {"hello", -1, F, 0, 0, 0, command_hello, "connection", "Agree on RESP2, tell of the server"},
    {"info", -1, 0, 0, 0, 0, command_info, "server", "The state of this server"},
    {"keys", 2, 0, 0, 0, 0, command_keys, "generic", "Names of sets that this node has in memory"},
    {"persist", 2, W | F, 1, 1, 1, command_persist, "generic", "Do not remove a set after all"},
    {"pexpire", -3, W | F, 1, 1, 1, command_pexpire, "generic", "Remove a set after some milliseconds"},
    {"pexpireat", -3, W | F, 1, 1, 1, command_pexpireat, "generic", "Remove a set at a millisecond since 1970"},
    {"pexpiretime", 2, F, 1, 1, 1, command_pexpiretime, "generic", "When a set will be removed, in milliseconds"},
    {"ping", -1, S | F, 0, 0, 0, command_ping, "connection", "Is anybody there"},
    {"pttl", 2, F, 1, 1, 1, command_pttl, "generic", "How long a set has left, in milliseconds"},
    {"publish", 3, P | F, 0, 0, 0, command_publish, "pubsub", "Send a message to all subscribers of a channel"},
    {"quit", -1, S | F, 0, 0, 0, command_quit, "connection", "Close the connection"},
    {"reset", 1, S | F, 0, 0, 0, command_reset, "connection", "Forget subscriptions and the client's name"},
    {"scan", -2, 0, 0, 0, 0, command_scan, "generic", "Names of sets that this node has in memory, some at a time"},
    {"select", 2, F, 0, 0, 0, command_select, "connection", "Database 0 is the only one"},
    {"subscribe", -2, S | P, 0, 0, 0, command_subscribe, "pubsub", "Receive the messages of channels"},
    {"ttl", 2, F, 1, 1, 1, command_ttl, "generic", "How long a set has left, in seconds"},
    {"type", 2, F, 1, 1, 1, command_type, "generic", "zset or none"},
    {"unlink", -2, W | F, 1, -1, 1, command_del, "generic", "Remove sets with all their members"},
    {"unsubscribe", -1, S | P, 0, 0, 0, command_unsubscribe, "pubsub", "Receive them no longer"},
    {"wait", 3, 0, 0, 0, 0, command_wait, "generic", "Answers 0: which holders have a write is not tracked"},
    {"zadd", -4, W | F, 1, 1, 1, command_zadd, "sorted-set", "Add members or change their scores"},
    {"zcard", 2, F, 1, 1, 1, command_zcard, "sorted-set", "How many members there are"},
    {"zcount", 4, F, 1, 1, 1, command_zcount, "sorted-set", "How many members have scores in a range"},
    {"zincrby", 4, W | F, 1, 1, 1, command_zincrby, "sorted-set", "Add to the score of a member"},
    {"zlexcount", 4, F, 1, 1, 1, command_zlexcount, "sorted-set", "How many members have names in a range"},
    {"zmscore", -3, F, 1, 1, 1, command_zmscore, "sorted-set", "The scores of several members"},
    {"zpopmax", -2, W | F, 1, 1, 1, command_zpopmax, "sorted-set", "Take out the members with the highest scores"},
    {"zpopmin", -2, W | F, 1, 1, 1, command_zpopmin, "sorted-set", "Take out the members with the lowest scores"},
    {"zrange", -4, 0, 1, 1, 1, command_zrange, "sorted-set", "Members in a range of ranks, scores or names"},
    {"zrangebylex", -4, 0, 1, 1, 1, command_zrangebylex, "sorted-set", "Members in a range of names"},
    {"zrangebyscore", -4, 0, 1, 1, 1, command_zrangebyscore, "sorted-set", "Members in a range of scores"},
    {"zrank", 3, F, 1, 1, 1, command_zrank, "sorted-set", "How many members are before this one"},
    {"zrem", -3, W | F, 1, 1, 1, command_zrem, "sorted-set", "Remove members"},
    {"zremrangebylex", 4, W, 1, 1, 1, command_zremrangebylex, "sorted-set", "Remove members in a range of names"},
    {"zremrangebyrank", 4, W, 1, 1, 1, command_zremrangebyrank, "sorted-set", "Remove members in a range of ranks"},
    {"zremrangebyscore", 4, W, 1, 1, 1, command_zremrangebyscore, "sorted-set", "Remove members in a range of scores"},
    {"zrevrange", -4, 0, 1, 1, 1, command_zrevrange, "sorted-set", "Members in a range of ranks, backwards"},
    {"zrevrangebylex", -4, 0, 1, 1, 1, command_zrevrangebylex, "sorted-set", "Members in a range of names, backwards"},
    {"zrevrangebyscore", -4, 0, 1, 1, 1, command_zrevrangebyscore, "sorted-set", "The same of scores, backwards"},
    {"zrevrank", 3, F, 1, 1, 1, command_zrevrank, "sorted-set", "How many members are behind this one"},
    {"zscan", -3, 0, 1, 1, 1, command_zscan, "sorted-set", "Members and scores, some at a time"},
    {"zscore", 3, F, 1, 1, 1, command_zscore, "sorted-set", "The score of a member"},
};
const size_t command_count = sizeof commands / sizeof *commands;

#undef W
#undef S
#undef F
#undef P

/* What scripts may try that cannot be had here, with the reason. */
static const struct {
    const char *name, *why;
} refused[] = {
    {"multi", "a mesh has no transactions"},
    {"exec", "a mesh has no transactions"},
    {"discard", "a mesh has no transactions"},
    {"watch", "a mesh has no transactions"},
    {"unwatch", "a mesh has no transactions"},
    {"psubscribe", "channels are found by their whole names, use SUBSCRIBE"},
    {"punsubscribe", "channels are found by their whole names, use UNSUBSCRIBE"},
    {"eval", "there are no scripts here"},
    {"evalsha", "there are no scripts here"},
};

/* -1, 0, 1 as the name, in any case, is before, at or behind a lower-case one. */
static int compare_name(const char *name, size_t name_len, const char *lower)
{
    for (size_t i = 0; i < name_len; i++) {
        char c = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] + 'a' - 'A') : name[i];
        if (c != lower[i] || c == 0)
            return (unsigned char)c < (unsigned char)lower[i] ? -1 : 1;
    }
    return lower[name_len] ? -1 : 0;
}

const struct command *command_find(const char *name, size_t name_len)
{
    size_t begin = 0;
    size_t end = command_count;
    while (begin < end) {
        size_t middle = (begin + end) / 2;
        int order = compare_name(name, name_len, commands[middle].name);
        if (order == 0)
            return &commands[middle];
        if (order < 0)
            end = middle;
        else
            begin = middle + 1;
    }
    return NULL;
}

/* ---- replies that several commands give ---- */

bool command_is(const struct resp_arg *arg, const char *word)
{
    return strlen(word) == arg->len && strncasecmp(arg->data, word, arg->len) == 0;
}

void command_wrong_count(struct call *call)
{
    resp_put_error(call->out, "ERR wrong number of arguments for '%s' command", call->command->name);
}

void command_syntax_error(struct call *call)
{
    resp_put(call->out, "-ERR syntax error\r\n");
}

bool command_integer(struct call *call, size_t index, int64_t *ret_value)
{
    if (resp_parse_integer(&call->args[index], ret_value))
        return true;
    resp_put(call->out, "-ERR value is not an integer or out of range\r\n");
    return false;
}

bool command_length(struct call *call, size_t index, size_t *ret_value)
{
    int64_t value = 0;
    if (!resp_parse_integer(&call->args[index], &value) || value < 0) {
        resp_put(call->out, "-ERR value is out of range, must be positive\r\n");
        return false;
    }
    *ret_value = (size_t)value;
    return true;
}

void command_failed(struct call *call, const struct err *err)
{
    resp_put_error(call->out, "%s %s", err->code == ERR_LIMIT || err->code == ERR_NOMEM ? "OOM" : "ERR", err->text);
}

struct set *command_set(struct call *call, size_t index)
{
    struct set *set = NULL;
    sets_want(call->sets, call->args[index].data, call->args[index].len, &set);
    return set;
}

/* ---- carrying out ---- */

static void put_unknown(const struct resp_command *request, struct buf *out)
{
    char args[160] = "";
    size_t len = 0;
    const struct resp_arg *name = &request->args[0];
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (compare_name(name->data, name->len, refused[i].name) == 0) {
            resp_put_error(out, "ERR %s is not supported: %s", refused[i].name, refused[i].why);
            return;
        }
    }
    for (size_t i = 1; i < request->count && len < 128; i++)
        len += (size_t)snprintf(args + len, sizeof args - len, "'%.*s' ", (int)(128 - len), request->args[i].data);
    resp_put_error(
        out,
        "ERR unknown command '%.128s', with args beginning with: %s- sorted sets and channels are kept here, "
        "COMMAND LIST names what there is",
        name->data, args);
}

/* Have all sets in memory that the command names. */
static enum sets_state want_sets(struct call *call)
{
    const struct command *command = call->command;
    enum sets_state worst = SETS_READY;
    if (command->first_key == 0)
        return SETS_READY;
    size_t last = command->last_key < 0 ? call->count - 1 : (size_t)command->last_key;
    for (size_t i = (size_t)command->first_key; i <= last; i += (size_t)command->key_step) {
        struct set *set = NULL;
        enum sets_state state = sets_want(call->sets, call->args[i].data, call->args[i].len, &set);
        if (state == SETS_WAIT || worst == SETS_READY)
            worst = state;
        if (i == (size_t)command->first_key)
            call->set = set;
    }
    return worst;
}

/* The first of the sets that it names whose name is that of a view; NULL: none. */
static const struct resp_arg *find_view(const struct call *call)
{
    const struct command *command = call->command;
    size_t last = command->last_key < 0 ? call->count - 1 : (size_t)command->last_key;
    for (size_t i = (size_t)command->first_key; command->first_key > 0 && i <= last; i += (size_t)command->key_step)
        if (view_is_meant(call->args[i].data, call->args[i].len))
            return &call->args[i];
    return NULL;
}

static bool view_is_allowed(struct call *call, const struct resp_arg *name)
{
    struct view view;
    if (call->command->flags & COMMAND_WRITES)
        resp_put(call->out, "-READONLY names that begin with '" VIEW_PREFIX
                            "' show what nodes provide, as they say it themselves\r\n");
    else if (!view_parse(name->data, name->len, &view))
        resp_put(call->out, "-ERR no such view, there are cmig:object:sha256:HEX, cmig:app:IMAGE, cmig:volume:GUID, "
                            "cmig:image:NAME, cmig:route:NAME and "
                            "'cmig:service:IMAGE USER'\r\n");
    else
        return true;
    return false;
}

static bool names_are_short(const struct call *call)
{
    const struct command *command = call->command;
    size_t last = command->last_key < 0 ? call->count - 1 : (size_t)command->last_key;
    for (size_t i = (size_t)command->first_key; command->first_key > 0 && i <= last; i += (size_t)command->key_step)
        if (call->args[i].len > LIMIT_SET_NAME_BYTES)
            return false;
    return true;
}

/* May it be carried out at all? If not, the reason is the reply. */
static bool is_allowed(struct call *call)
{
    const struct command *command = call->command;
    size_t least = (size_t)(command->arity < 0 ? -command->arity : command->arity);
    if (call->count < least || (command->arity > 0 && call->count > least)) {
        command_wrong_count(call);
        return false;
    }
    if (call->session->subscriber.count > 0 && !(command->flags & COMMAND_SUBSCRIBED)) {
        resp_put_error(call->out,
                       "ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are "
                       "allowed in this context",
                       command->name);
        return false;
    }
    if (!names_are_short(call)) {
        resp_put_error(call->out, "ERR the name of a set has at most %d bytes", LIMIT_SET_NAME_BYTES);
        return false;
    }
    const struct resp_arg *view = find_view(call);
    return !view || view_is_allowed(call, view);
}

/* Can what it writes be made durable? */
static bool can_write(struct call *call)
{
    const struct err *failure = sets_failure(call->sets);
    if (!failure)
        return true;
    resp_put_error(call->out, "MISCONF nothing can be written now: %s", failure->text);
    return false;
}

static enum command_result run_with_sets(struct call *call)
{
    switch (want_sets(call)) {
    case SETS_WAIT:
        return COMMAND_WAIT;
    case SETS_UNKNOWN:
        resp_put(call->out, "-TRYAGAIN the mesh could not be read, and nothing is known here of this set\r\n");
        return COMMAND_DONE;
    case SETS_FULL:
        resp_put_error(call->out, "OOM %d sets are in memory, and no more can be", LIMIT_SETS);
        return COMMAND_DONE;
    case SETS_READY:
        break;
    }
    call->command->run(call);
    return COMMAND_DONE;
}

enum command_result command_run(struct command_house *house, struct session *session,
                                const struct resp_command *request, struct buf *out)
{
    struct call call = {.command = command_find(request->args[0].data, request->args[0].len),
                        .args = request->args,
                        .count = request->count,
                        .out = out,
                        .session = session,
                        .house = house,
                        .sets = house->sets};
    if (!call.command) {
        put_unknown(request, out);
        return COMMAND_DONE;
    }
    session->last = call.command->name;
    if (!is_allowed(&call))
        return COMMAND_DONE;
    if (call.command->flags & COMMAND_WRITES) {
        if (!can_write(&call))
            return COMMAND_DONE;
        if (sets_is_full(house->sets))
            return COMMAND_WAIT;
    }
    return run_with_sets(&call);
}
