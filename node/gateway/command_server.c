/* Commands about the server: what it can do, how it is set, how it is. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/gateway/command.h"

#define INFO_MAX_BYTES 16384

/* Nobody counts the holders of one write: it is on this disk, which is what its own reply says. */
void command_wait(struct call *call)
{
    int64_t count, timeout;
    if (!command_integer(call, 1, &count))
        return;
    if (!resp_parse_integer(&call->args[2], &timeout))
        resp_put(call->out, "-ERR timeout is not an integer or out of range\r\n");
    else if (timeout < 0)
        resp_put(call->out, "-ERR timeout is negative\r\n");
    else
        resp_put_integer(call->out, 0);
}

/* ---- COMMAND ---- */

static void put_command(struct buf *out, const struct command *command)
{
    const struct {
        unsigned flag;
        const char *name;
    } flags[] = {{COMMAND_WRITES, "write"}, {COMMAND_FAST, "fast"}, {COMMAND_PUBSUB, "pubsub"}};
    bool reads = command->first_key > 0 && !(command->flags & COMMAND_WRITES);
    size_t count = reads;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        count += (command->flags & flags[i].flag) != 0;
    resp_put_array(out, 10);
    resp_put_text(out, command->name);
    resp_put_integer(out, command->arity);
    resp_put_array(out, count);
    if (reads)
        resp_put(out, "+readonly\r\n");
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (command->flags & flags[i].flag)
            buf_addf(out, "+%s\r\n", flags[i].name);
    resp_put_integer(out, command->first_key);
    resp_put_integer(out, command->last_key);
    resp_put_integer(out, command->key_step);
    /* Categories of access, tips, key specifications, subcommands. */
    for (int i = 0; i < 4; i++)
        resp_put_array(out, 0);
}

static void put_docs(struct buf *out, const struct command *command)
{
    resp_put_text(out, command->name);
    resp_put_array(out, 4);
    resp_put_text(out, "summary");
    resp_put_text(out, command->summary);
    resp_put_text(out, "group");
    resp_put_text(out, command->group);
}

static void command_info_part(struct call *call)
{
    bool all = call->count <= 2;
    resp_put_array(call->out, all ? command_count : call->count - 2);
    for (size_t i = 0; all && i < command_count; i++)
        put_command(call->out, &commands[i]);
    for (size_t i = 2; i < call->count; i++) {
        const struct command *command = command_find(call->args[i].data, call->args[i].len);
        if (command)
            put_command(call->out, command);
        else
            resp_put(call->out, RESP_NIL);
    }
}

static void command_docs_part(struct call *call)
{
    bool all = call->count == 2;
    size_t known = all ? command_count : 0;
    for (size_t i = 2; i < call->count; i++)
        known += command_find(call->args[i].data, call->args[i].len) != NULL;
    resp_put_array(call->out, 2 * known);
    for (size_t i = 0; all && i < command_count; i++)
        put_docs(call->out, &commands[i]);
    for (size_t i = 2; i < call->count; i++) {
        const struct command *command = command_find(call->args[i].data, call->args[i].len);
        if (command)
            put_docs(call->out, command);
    }
}

static void command_list_part(struct call *call)
{
    resp_put_array(call->out, command_count);
    for (size_t i = 0; i < command_count; i++)
        resp_put_text(call->out, commands[i].name);
}

void command_command(struct call *call)
{
    if (call->count == 1 || command_is(&call->args[1], "INFO"))
        command_info_part(call);
    else if (command_is(&call->args[1], "DOCS"))
        command_docs_part(call);
    else if (command_is(&call->args[1], "COUNT") && call->count == 2)
        resp_put_integer(call->out, (int64_t)command_count);
    else if (command_is(&call->args[1], "LIST") && call->count == 2)
        command_list_part(call);
    else
        resp_put_error(call->out, "ERR unknown subcommand '%.128s'. Try COMMAND HELP.", call->args[1].data);
}

/* ---- CONFIG ---- */

#define TEXT_OF(number) TEXT_OF_(number)
#define TEXT_OF_(number) #number

/* What redis-benchmark and client libraries ask for, in the words of redis.conf. */
static const struct {
    const char *name, *value;
} settings[] = {
    {"appendfsync", "always"}, {"appendonly", "yes"}, {"databases", "1"}, {"maxclients", TEXT_OF(LIMIT_RESP_CLIENTS)},
    {"maxmemory", "0"},        {"save", ""},          {"timeout", "0"},
};
#define SETTING_COUNT (sizeof settings / sizeof *settings)

static bool is_asked_for(const struct call *call, const char *name)
{
    for (size_t i = 2; i < call->count; i++)
        if (command_matches(call->args[i].data, call->args[i].len, name, strlen(name)))
            return true;
    return false;
}

void command_config(struct call *call)
{
    if (!command_is(&call->args[1], "GET")) {
        resp_put(call->out, "-ERR only CONFIG GET is supported: settings are in cmig.conf(5)\r\n");
        return;
    }
    if (call->count < 3) {
        resp_put(call->out, "-ERR wrong number of arguments for 'config|get' command\r\n");
        return;
    }
    size_t count = 0;
    for (size_t i = 0; i < SETTING_COUNT; i++)
        count += is_asked_for(call, settings[i].name);
    resp_put_array(call->out, 2 * count);
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        if (is_asked_for(call, settings[i].name)) {
            resp_put_text(call->out, settings[i].name);
            resp_put_text(call->out, settings[i].value);
        }
    }
}

/* ---- INFO ---- */

static void info_server(const struct call *call, struct buf *text)
{
    uint64_t up_s = (sets_wall_ms(call->sets) - call->house->started_ms) / 1000;
    buf_addf(text,
             "redis_version:%s\r\ncmig_version:%s\r\nredis_mode:standalone\r\nprocess_id:%ld\r\ntcp_port:%u\r\n"
             "uptime_in_seconds:%llu\r\nuptime_in_days:%llu\r\n",
             COMMAND_REDIS_VERSION, CMIG_VERSION, (long)getpid(), call->house->port, (unsigned long long)up_s,
             (unsigned long long)up_s / 86400);
}

static void info_clients(const struct call *call, struct buf *text)
{
    buf_addf(text, "connected_clients:%zu\r\nmaxclients:%d\r\nblocked_clients:%zu\r\n", call->house->clients,
             LIMIT_RESP_CLIENTS, call->house->waiting);
}

static void info_persistence(const struct call *call, struct buf *text)
{
    struct sets_stats stats;
    sets_stats(call->sets, &stats);
    buf_addf(text, "loading:0\r\naof_enabled:1\r\naof_last_write_status:%s\r\ncommits:%llu\r\ndamaged_rows:%llu\r\n",
             sets_failure(call->sets) ? "err" : "ok", (unsigned long long)stats.durable,
             (unsigned long long)stats.bad_rows);
}

static void info_stats(const struct call *call, struct buf *text)
{
    const struct command_house *house = call->house;
    buf_addf(text,
             "total_connections_received:%llu\r\ntotal_commands_processed:%llu\r\nrejected_connections:%llu\r\n"
             "client_output_buffer_limit_disconnections:%llu\r\npubsub_channels:%zu\r\npubsub_patterns:0\r\n",
             (unsigned long long)house->connections, (unsigned long long)house->commands,
             (unsigned long long)house->refused, (unsigned long long)house->cut, channels_count(house->channels));
}

static void info_replication(const struct call *call, struct buf *text)
{
    (void)call;
    buf_add_str(text, "role:master\r\nconnected_slaves:0\r\n");
}

static void info_keyspace(const struct call *call, struct buf *text)
{
    size_t count = sets_count(call->sets);
    if (count > 0)
        buf_addf(text, "db0:keys=%zu,expires=0,avg_ttl=0\r\n", count);
}

static void info_mesh(const struct call *call, struct buf *text)
{
    struct sets_stats stats;
    sets_stats(call->sets, &stats);
    buf_addf(text,
             "sets_in_memory:%zu\r\nsets_watched:%zu\r\nsets_written_here:%zu\r\nmembers_in_memory:%zu\r\n"
             "members_not_yet_given_to_the_mesh:%zu\r\n",
             stats.sets, stats.live, stats.own_sets, stats.members, stats.unsaid);
}

static bool wants_section(const struct call *call, const char *name)
{
    for (size_t i = 1; i < call->count; i++) {
        const struct resp_arg *arg = &call->args[i];
        if (command_is(arg, name) || command_is(arg, "ALL") || command_is(arg, "DEFAULT") ||
            command_is(arg, "EVERYTHING"))
            return true;
    }
    return call->count == 1;
}

void command_info(struct call *call)
{
    static const struct {
        const char *name;
        void (*add)(const struct call *call, struct buf *text);
    } sections[] = {{"Server", info_server}, {"Clients", info_clients},         {"Persistence", info_persistence},
                    {"Stats", info_stats},   {"Replication", info_replication}, {"Keyspace", info_keyspace},
                    {"Mesh", info_mesh}};
    OWNED(buf_release) struct buf text = BUF(INFO_MAX_BYTES);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        if (!wants_section(call, sections[i].name))
            continue;
        buf_addf(&text, "%s# %s\r\n", text.len > 0 ? "\r\n" : "", sections[i].name);
        sections[i].add(call, &text);
    }
    resp_put_bulk(call->out, text.data, text.len);
}
