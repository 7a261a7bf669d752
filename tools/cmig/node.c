#include <stdio.h>
#include <string.h>

#include "node/base/id.h"
#include "node/base/log.h"
#include "tools/cmig/cmig.h"

static void line(const char *name, const char *value)
{
    char safe[512];
    printf("%-12s %s\n", name, *value ? log_text(value, strlen(value), safe, sizeof safe) : "-");
}

/* Addresses are one text, or an array of them. */
static void join(const json_t *value, char *text, size_t size)
{
    size_t i, used = 0;
    json_t *element;
    snprintf(text, size, "%s", json_is_string(value) ? json_string_value(value) : "");
    json_array_foreach(value, i, element)
    {
        if (used < size && json_is_string(element))
            used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", json_string_value(element));
    }
}

static void print_dht(const json_t *status)
{
    const json_t *dht = json_object_get(status, "dht"), *place = json_object_get(dht, "place");
    uint64_t up_s = api_json_number(status, "uptime_s");
    double packets = api_json_real(dht, "sent") + api_json_real(dht, "received");
    char text[256];
    snprintf(text, sizeof text, "%llu contacts, %llu records held, %llu of its own, %.2f packets/s",
             (unsigned long long)api_json_number(dht, "contacts"), (unsigned long long)api_json_number(dht, "records"),
             (unsigned long long)api_json_number(dht, "published"), up_s ? packets / (double)up_s : packets);
    line("dht", text);
    snprintf(text, sizeof text, "%llu keys, %llu watched here by others",
             (unsigned long long)api_json_number(dht, "watches"), (unsigned long long)api_json_number(dht, "watchers"));
    line("watches", text);
    snprintf(text, sizeof text, "%.1f %.1f %.1f + %.1f ms", json_number_value(json_array_get(place, 0)),
             json_number_value(json_array_get(place, 1)), json_number_value(json_array_get(place, 2)),
             json_number_value(json_array_get(place, 3)));
    line("place", text);
}

static void print_registry(const json_t *registry)
{
    unsigned long long port = api_json_number(registry, "resp");
    char text[256], clients[64] = "";
    if (port > 0)
        snprintf(clients, sizeof clients, ", RESP port %llu with %llu clients", port,
                 (unsigned long long)api_json_number(registry, "clients"));
    snprintf(text, sizeof text, "%llu sets with %llu members in memory, %llu not given to others yet%s",
             (unsigned long long)api_json_number(registry, "sets"),
             (unsigned long long)api_json_number(registry, "members"),
             (unsigned long long)api_json_number(registry, "unsaid"), clients);
    line("registry", text);
}

static void print_status(const json_t *status)
{
    char text[512], a[SHOW_SIZE], b[SHOW_SIZE], c[SHOW_SIZE];
    const json_t *store = json_object_get(status, "store");
    const json_t *runtime = json_object_get(status, "runtime");
    uint64_t quota = api_json_number(store, "quota_bytes");
    line("node", api_json_text(status, "node"));
    line("name", api_json_text(status, "name"));
    line("cluster", api_json_text(status, "cluster"));
    line("version", api_json_text(status, "version"));
    line("up", show_ms(api_json_number(status, "uptime_s") * 1000, a));
    join(json_object_get(status, "listen"), text, sizeof text);
    line("listens on", text);
    line("known as", api_json_text(status, "address"));
    snprintf(text, sizeof text, "%llu", (unsigned long long)api_json_number(status, "peers"));
    line("peers", text);
    print_dht(status);
    print_registry(json_object_get(status, "registry"));
    snprintf(text, sizeof text, "%llu objects, %s%s%s, disk has %s free",
             (unsigned long long)api_json_number(store, "objects"), show_bytes(api_json_number(store, "bytes"), a),
             quota ? " of " : "", quota ? show_bytes(quota, b) : "",
             show_bytes(api_json_number(store, "disk_free_bytes"), c));
    line("store", text);
    snprintf(text, sizeof text, "%llu", (unsigned long long)api_json_number(status, "containers"));
    line("containers", text);
    line("runc", api_json_text(runtime, "runc"));
    line("criu", api_json_text(runtime, "criu"));
}

int node_status(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *status = NULL;
    int code = api_client_call(cmig->client, &(struct api_call){.route = API_ROUTE_status}, &status, err);
    if (code < 0)
        return code;
    if (cmig->json)
        show_json(status);
    else
        print_status(status);
    return 0;
}

static void add_rate(struct table *table, uint64_t bytes_per_s)
{
    char rate[SHOW_SIZE], text[SHOW_SIZE + 2];
    snprintf(text, sizeof text, "%s/s", show_bytes(bytes_per_s, rate));
    table_add(table, bytes_per_s ? text : "-");
}

int node_peers(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *reply = NULL;
    int code = api_client_call(cmig->client, &(struct api_call){.route = API_ROUTE_peer_list}, &reply, err);
    if (code < 0 || cmig->json) {
        if (code == 0)
            show_json(reply);
        return code;
    }
    OWNED(owned_table)
    struct table *table = table_new("NODE NAME ADDRESS DIRECTION STATE >SINCE >RTT >GOODPUT >SENT >RECEIVED");
    size_t i;
    json_t *peer;
    json_array_foreach(json_object_get(reply, "peers"), i, peer)
    {
        char text[SHOW_SIZE];
        table_add_id(table, api_json_text(peer, "node"), cmig->full);
        table_add(table, api_json_text(peer, "name"));
        table_add(table, api_json_text(peer, "address"));
        table_add(table, api_json_text(peer, "direction"));
        table_add(table, api_json_text(peer, "state"));
        table_add(table, show_ms(api_json_number(peer, "since_s") * 1000, text));
        snprintf(text, sizeof text, "%.1f ms", api_json_real(peer, "rtt_ms"));
        table_add(table, text);
        add_rate(table, api_json_number(peer, "goodput_bytes_per_s"));
        table_add_bytes(table, api_json_number(peer, "sent_bytes"));
        table_add_bytes(table, api_json_number(peer, "received_bytes"));
    }
    return table_print(table, err);
}

static void add_newest(struct table *table, const json_t *snapshots, bool full)
{
    const json_t *newest = NULL;
    size_t i;
    json_t *snapshot;
    json_array_foreach(snapshots, i, snapshot)
    {
        uint64_t epoch = api_json_number(snapshot, "epoch"), newest_epoch = api_json_number(newest, "epoch");
        if (!newest || epoch > newest_epoch ||
            (epoch == newest_epoch && api_json_number(snapshot, "counter") > api_json_number(newest, "counter")))
            newest = snapshot;
    }
    char version[64] = "";
    if (newest)
        snprintf(version, sizeof version, "%llu.%llu", (unsigned long long)api_json_number(newest, "epoch"),
                 (unsigned long long)api_json_number(newest, "counter"));
    table_add_number(table, json_array_size(snapshots));
    table_add(table, version);
    table_add_id(table, api_json_text(newest, "digest"), full);
}

int node_volumes(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *reply = NULL;
    int code = api_client_call(cmig->client, &(struct api_call){.route = API_ROUTE_volume_list}, &reply, err);
    if (code < 0 || cmig->json) {
        if (code == 0)
            show_json(reply);
        return code;
    }
    OWNED(owned_table) struct table *table = table_new("GUID >SIZE >SNAPSHOTS NEWEST DIGEST USED-BY PATH");
    size_t i;
    json_t *volume;
    json_array_foreach(json_object_get(reply, "volumes"), i, volume)
    {
        table_add(table, api_json_text(volume, "guid"));
        table_add_bytes(table, api_json_number(volume, "size_bytes"));
        add_newest(table, json_object_get(volume, "snapshots"), cmig->full);
        char users[256];
        join(json_object_get(volume, "in_use_by"), users, sizeof users);
        table_add(table, users);
        table_add(table, api_json_text(volume, "path"));
    }
    return table_print(table, err);
}

/* The words as the daemon takes them: {"up": "10M"}. */
static int read_bandwidth(struct cmig *cmig, json_t *body, struct err *err)
{
    for (int i = 0; i < cmig->operand_count; i++) {
        const char *word = cmig->operands[i], *equals = strchr(word, '=');
        if (!equals || equals == word)
            return args_misuse(cmig, err, "'%.60s' is no NAME=BYTES, as up=10M", word);
        OWNED(owned_free) char *name = strndup(word, (size_t)(equals - word));
        if (!name || json_object_set_new(body, name, json_string(equals + 1)) < 0)
            return args_misuse(cmig, err, "the operand is not UTF-8");
    }
    return 0;
}

static int print_bandwidth(const json_t *reply, struct err *err)
{
    OWNED(owned_table) struct table *table = table_new("LIMIT >BYTES/S");
    const char *name;
    json_t *value;
    char text[SHOW_SIZE];
    json_object_foreach((json_t *)reply, name, value)
    {
        uint64_t bytes = (uint64_t)json_integer_value(value);
        table_add(table, name);
        table_add(table, bytes ? show_bytes(bytes, text) : "none");
    }
    return table_print(table, err);
}

int node_bandwidth(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *reply = NULL;
    OWNED(owned_json) json_t *body = cmig->operand_count > 0 ? json_object() : NULL;
    int code = body ? read_bandwidth(cmig, body, err) : 0;
    if (code < 0)
        return code;
    struct api_call call = {.route = body ? API_ROUTE_bandwidth_set : API_ROUTE_bandwidth_get, .body = body};
    code = api_client_call(cmig->client, &call, &reply, err);
    if (code < 0)
        return code;
    if (!cmig->json)
        return print_bandwidth(reply, err);
    show_json(reply);
    return 0;
}

/* ---- scrub ---- */

struct scrubbing {
    struct progress progress;
    json_t *result; /* owned */
};

static int on_scrub_event(void *ctx, const json_t *event, struct err *err)
{
    struct scrubbing *scrubbing = ctx;
    (void)err;
    if (strcmp(api_json_text(event, "event"), API_EVENT_PROGRESS) == 0) {
        progress_draw(&scrubbing->progress, "scrubbing", api_json_number(event, "done_bytes"),
                      api_json_number(event, "total_bytes"), 0, 0);
    } else {
        json_decref(scrubbing->result);
        scrubbing->result = json_incref((json_t *)event);
    }
    return 0;
}

static void print_scrub(const json_t *scrub)
{
    char text[256], size[SHOW_SIZE];
    if (json_is_true(json_object_get(scrub, "running"))) {
        snprintf(text, sizeof text, "under way, %s read", show_bytes(api_json_number(scrub, "done_bytes"), size));
        line("pass", text);
    }
    snprintf(text, sizeof text, "%llu finished, the last %s%s, with %llu pieces rotten",
             (unsigned long long)api_json_number(scrub, "passes"), *api_json_text(scrub, "last_finished") ? "at " : "",
             *api_json_text(scrub, "last_finished") ? api_json_text(scrub, "last_finished") : "never",
             (unsigned long long)api_json_number(scrub, "last_rotten"));
    line("passes", text);
    snprintf(text, sizeof text, "%llu pieces since the node runs; %llu objects broken, %llu fetched again",
             (unsigned long long)api_json_number(scrub, "rotten"), (unsigned long long)api_json_number(scrub, "broken"),
             (unsigned long long)api_json_number(scrub, "repaired"));
    line("rotten", text);
}

static int run_scrub(struct cmig *cmig, json_t **ret_result, struct err *err)
{
    struct scrubbing scrubbing = {0};
    progress_init(&scrubbing.progress, cmig);
    int code = api_client_events(cmig->client, &(struct api_call){.route = API_ROUTE_scrub_start}, API_EVENT_RESULT,
                                 on_scrub_event, &scrubbing, err);
    progress_end(&scrubbing.progress);
    *ret_result = scrubbing.result;
    return code;
}

int node_scrub(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *reply = NULL;
    int code = args_flag(cmig, "status")
                   ? api_client_call(cmig->client, &(struct api_call){.route = API_ROUTE_scrub_status}, &reply, err)
                   : run_scrub(cmig, &reply, err);
    if (code < 0)
        return code;
    if (cmig->json)
        show_json(reply);
    else
        print_scrub(reply);
    return 0;
}

int node_log_level(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *reply = NULL;
    OWNED(owned_json) json_t *body = json_pack("{s:s}", "level", cmig->operands[0]);
    if (!body)
        return args_misuse(cmig, err, "the level is not UTF-8");
    int code =
        api_client_call(cmig->client, &(struct api_call){.route = API_ROUTE_log_level, .body = body}, &reply, err);
    if (code < 0)
        return code;
    if (cmig->json)
        show_json(reply);
    else
        puts(api_json_text(reply, "level"));
    return 0;
}
