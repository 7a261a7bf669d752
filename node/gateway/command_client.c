/* Commands about the connection itself, and publish and subscribe. */
#include <stdio.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/gateway/command.h"

#define LIST_MAX_BYTES (LIMIT_RESP_CLIENTS * 256)

void command_ping(struct call *call)
{
    bool subscribed = call->session->subscriber.count > 0;
    if (call->count > 2) {
        command_wrong_count(call);
        return;
    }
    if (subscribed) {
        resp_put_array(call->out, 2);
        resp_put_text(call->out, "pong");
    }
    if (call->count == 2)
        resp_put_bulk(call->out, call->args[1].data, call->args[1].len);
    else if (subscribed)
        resp_put_text(call->out, "");
    else
        resp_put(call->out, "+PONG\r\n");
}

void command_echo(struct call *call)
{
    resp_put_bulk(call->out, call->args[1].data, call->args[1].len);
}

void command_quit(struct call *call)
{
    resp_put(call->out, RESP_OK);
    call->session->ending = true;
}

void command_select(struct call *call)
{
    int64_t index;
    if (!command_integer(call, 1, &index))
        return;
    if (index != 0)
        resp_put(call->out, "-ERR DB index is out of range\r\n");
    else
        resp_put(call->out, RESP_OK);
}

/* Redis without a password has the user "default", whom any password suits. */
void command_auth(struct call *call)
{
    if (call->count > 3)
        command_syntax_error(call);
    else if (call->count == 2)
        resp_put(call->out, "-ERR AUTH <password> called without any password configured for the default user. Are you "
                            "sure your configuration is correct?\r\n");
    else if (strcmp(call->args[1].data, "default") == 0)
        resp_put(call->out, RESP_OK);
    else
        resp_put(call->out, "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
}

/* ---- names of clients ---- */

static bool set_name(struct call *call, const struct resp_arg *name)
{
    for (size_t i = 0; i < name->len; i++) {
        if (name->data[i] < '!' || name->data[i] > '~') {
            resp_put(call->out, "-ERR Client names cannot contain spaces, newlines or special characters.\r\n");
            return false;
        }
    }
    if (name->len > SESSION_NAME_MAX_BYTES) {
        resp_put_error(call->out, "ERR the name of a client has at most %d bytes", SESSION_NAME_MAX_BYTES);
        return false;
    }
    memcpy(call->session->name, name->data, name->len + 1);
    return true;
}

static void put_hello(struct call *call)
{
    resp_put_array(call->out, 14);
    resp_put_text(call->out, "server");
    resp_put_text(call->out, "redis");
    resp_put_text(call->out, "version");
    resp_put_text(call->out, COMMAND_REDIS_VERSION);
    resp_put_text(call->out, "proto");
    resp_put_integer(call->out, 2);
    resp_put_text(call->out, "id");
    resp_put_integer(call->out, (int64_t)call->session->id);
    resp_put_text(call->out, "mode");
    resp_put_text(call->out, "standalone");
    resp_put_text(call->out, "role");
    resp_put_text(call->out, "master");
    resp_put_text(call->out, "modules");
    resp_put_array(call->out, 0);
}

void command_hello(struct call *call)
{
    int64_t version = 2;
    if (call->count > 1 && !resp_parse_integer(&call->args[1], &version)) {
        resp_put(call->out, "-ERR Protocol version is not an integer or out of range\r\n");
        return;
    }
    if (version != 2) {
        resp_put(call->out, "-NOPROTO unsupported protocol version\r\n");
        return;
    }
    for (size_t i = 2; i < call->count; i++) {
        size_t left = call->count - i - 1;
        if (command_is(&call->args[i], "AUTH") && left >= 2 && strcmp(call->args[i + 1].data, "default") == 0) {
            i += 2;
        } else if (command_is(&call->args[i], "AUTH") && left >= 2) {
            resp_put(call->out, "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
            return;
        } else if (command_is(&call->args[i], "SETNAME") && left >= 1) {
            if (!set_name(call, &call->args[++i]))
                return;
        } else {
            resp_put_error(call->out, "ERR Syntax error in HELLO option '%s'", call->args[i].data);
            return;
        }
    }
    put_hello(call);
}

static void add_session_line(void *ctx, struct session *session)
{
    struct buf *lines = ctx;
    char addr[ADDR_TEXT_SIZE];
    uint64_t now = session->used_ms > session->since_ms ? session->used_ms : session->since_ms;
    buf_addf(lines,
             "id=%llu addr=%s name=%s age=%llu idle=0 flags=%s db=0 sub=%zu psub=0 multi=-1 cmd=%s user=default "
             "resp=2\n",
             (unsigned long long)session->id, addr_text(&session->addr, addr), session->name,
             (unsigned long long)(now - session->since_ms) / 1000, session->subscriber.count > 0 ? "P" : "N",
             session->subscriber.count, session->last ? session->last : "NULL");
}

static void client_getname(struct call *call)
{
    if (call->session->name[0])
        resp_put_text(call->out, call->session->name);
    else
        resp_put(call->out, RESP_NIL);
}

static void client_id(struct call *call)
{
    resp_put_integer(call->out, (int64_t)call->session->id);
}

static void client_info(struct call *call)
{
    OWNED(buf_release) struct buf line = BUF(LIST_MAX_BYTES);
    add_session_line(&line, call->session);
    resp_put_bulk(call->out, line.data, line.len);
}

static void client_list(struct call *call)
{
    OWNED(buf_release) struct buf lines = BUF(LIST_MAX_BYTES);
    call->house->each_session(call->house->ctx, add_session_line, &lines);
    resp_put_bulk(call->out, lines.data, lines.len);
}

/* What library the client is: taken, and not used. */
static void client_setinfo(struct call *call)
{
    resp_put(call->out, RESP_OK);
}

static void client_setname(struct call *call)
{
    if (set_name(call, &call->args[2]))
        resp_put(call->out, RESP_OK);
}

void command_client(struct call *call)
{
    static const struct {
        const char *word, *name;
        size_t count;
        command_cb run;
    } parts[] = {{"GETNAME", "getname", 2, client_getname}, {"ID", "id", 2, client_id},
                 {"INFO", "info", 2, client_info},          {"LIST", "list", 2, client_list},
                 {"SETINFO", "setinfo", 4, client_setinfo}, {"SETNAME", "setname", 3, client_setname}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!command_is(&call->args[1], parts[i].word))
            continue;
        if (call->count == parts[i].count)
            parts[i].run(call);
        else
            resp_put_error(call->out, "ERR wrong number of arguments for 'client|%s' command", parts[i].name);
        return;
    }
    resp_put_error(call->out, "ERR unknown subcommand '%.128s'. Try CLIENT HELP.", call->args[1].data);
}

/* ---- publish and subscribe ---- */

static void put_subscribed(struct call *call, const char *what, const void *name, size_t name_len)
{
    resp_put_array(call->out, 3);
    resp_put_text(call->out, what);
    if (name)
        resp_put_bulk(call->out, name, name_len);
    else
        resp_put(call->out, RESP_NIL);
    resp_put_integer(call->out, (int64_t)call->session->subscriber.count);
}

void command_subscribe(struct call *call)
{
    for (size_t i = 1; i < call->count; i++) {
        struct err err;
        const struct resp_arg *name = &call->args[i];
        int status =
            name->len > LIMIT_SET_NAME_BYTES
                ? err_set(&err, ERR_LIMIT, "the name of a channel has at most %d bytes", LIMIT_SET_NAME_BYTES)
                : channels_subscribe(call->house->channels, &call->session->subscriber, name->data, name->len, &err);
        if (status < 0)
            resp_put_error(call->out, "ERR %s", err.text);
        else
            put_subscribed(call, "subscribe", name->data, name->len);
    }
}

/* Unsubscribe from everything; told if `out`. */
static size_t unsubscribe_all(struct call *call, bool told)
{
    char copy[LIMIT_SET_NAME_BYTES];
    const void *name;
    size_t count = 0, len;
    for (; channels_first_of(&call->session->subscriber, &name, &len); count++) {
        memcpy(copy, name, len);
        channels_unsubscribe(call->house->channels, &call->session->subscriber, copy, len);
        if (told)
            put_subscribed(call, "unsubscribe", copy, len);
    }
    return count;
}

void command_unsubscribe(struct call *call)
{
    if (call->count == 1 && unsubscribe_all(call, true) == 0)
        put_subscribed(call, "unsubscribe", NULL, 0);
    for (size_t i = 1; i < call->count; i++) {
        const struct resp_arg *name = &call->args[i];
        channels_unsubscribe(call->house->channels, &call->session->subscriber, name->data, name->len);
        put_subscribed(call, "unsubscribe", name->data, name->len);
    }
}

void command_reset(struct call *call)
{
    unsubscribe_all(call, false);
    call->session->name[0] = 0;
    resp_put(call->out, "+RESET\r\n");
}

void command_publish(struct call *call)
{
    struct err err;
    size_t receivers = 0;
    const struct resp_arg *name = &call->args[1], *message = &call->args[2];
    if (name->len > LIMIT_SET_NAME_BYTES)
        resp_put_error(call->out, "ERR the name of a channel has at most %d bytes", LIMIT_SET_NAME_BYTES);
    else if (message->len > LIMIT_RESP_MESSAGE_BYTES)
        resp_put_error(call->out, "ERR a message has at most %d bytes", LIMIT_RESP_MESSAGE_BYTES);
    else if (channels_publish(call->house->channels, name->data, name->len, message->data, message->len, &receivers,
                              &err) < 0)
        resp_put_error(call->out, "ERR not published: %s", err.text);
    else
        resp_put_integer(call->out, (int64_t)receivers);
}
