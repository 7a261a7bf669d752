#include "node/config_keys.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "node/bandwidth.h"
#include "node/base/file.h"
#include "node/base/id.h"
#include "node/base/limits.h"
#include "node/identity/identity.h"

#define RESP_PORT 7379 /* Redis has 6379, which may be in use beside */
#define DEFAULT_FLOOR_PERCENT 5
#define DEFAULT_FLOOR_CAP (10ull << 30)
#define DEFAULT_WORKERS 4
#define DEFAULT_SCRUB_DAYS 7
#define PRICE_MAX 1000000u
#define DEFAULT_LOG_MAX (10ull << 20)

typedef int set_fn(struct config *config, const struct config_entry *entry, const char *value, struct err *err);
static set_fn set_path, set_program, set_name, set_level, set_count, set_listen, set_advertise, set_peers, set_bytes,
    set_quota, set_floor, set_policy, set_price, set_bandwidth, set_resp;

#define FIELD(name) .offset = offsetof(struct config, name)
#define KEY(...) .key = {__VA_ARGS__}

static const struct config_entry entries[CONFIG_KEYS] = {
    {KEY("dir", "node", "PATH", "/var/lib/cmig; $XDG_STATE_HOME/cmig or ~/.local/state/cmig for ordinary users",
         "/var/lib/cmig", "Where the node keeps its key, its content and its records. One directory is one node."),
     set_path, FIELD(dir)},
    {KEY("socket", "node", "PATH",
         "/run/cmig/node.sock; $XDG_RUNTIME_DIR/cmig/node.sock for ordinary users; DIR/node.sock with another dir",
         "/run/cmig/node.sock", "The socket that cmig talks to."),
     set_path, FIELD(socket)},
    {KEY("name", "node", "NAME", "the host name", "edge-1",
         "What people call this node. It is shown beside the node's id and proves nothing."),
     set_name, FIELD(name)},
    {KEY("log", "node", "LEVEL", "info", "info", "What is logged: error, warn, info or debug."), set_level, FIELD(log)},
    {KEY("workers", "node", "N", "4", "4", "Threads for hashing, compression and disk."), set_count, FIELD(workers),
     .min = 1, .max = 64},
    {KEY("listen", "network", "ADDR:PORT", "[::]:7421 and 0.0.0.0:7421", "[::]:7421 0.0.0.0:7421",
         "Where other nodes reach this one, by UDP and TCP. May be repeated, or hold several separated by spaces."),
     set_listen, FIELD(listen), .is_list = true},
    {KEY("advertise", "network", "ADDR:PORT", "discovered", "192.0.2.7:7421",
         "The address told to other nodes, where it is not the one that this node sees, as behind a forwarded port."),
     set_advertise, FIELD(advertise)},
    {KEY("peers", "network", "HOST[:PORT]", "those met before", "edge-2.example.org [2001:db8::7]:7421",
         "Members to look for at the start. May be repeated, or hold several separated by spaces."),
     set_peers, FIELD(peers), .is_list = true},
    {KEY("bandwidth", "network", "NAME=BYTES", "no limits", "up=10M down=50M peer-up=4M prefetch-up=512K",
         "The most that is sent and received, in bytes a second: up and down for all of it, peer-up and peer-down for "
         "each peer, and the same after freeze-, volume-, layer- and prefetch- for transfers of that kind. K, M, G and "
         "T are powers of 1024. May be repeated, or hold several separated by spaces. cmig bandwidth changes it while "
         "the node runs."),
     set_bandwidth, FIELD(bandwidth), .is_list = true},
    {KEY("policy", "network", "POLICY", "cost", "0.6*cost+0.3*score+0.1*version",
         "Which nodes content is got from first: cost, nearest, money, score or version, or a weighted mixture of "
         "them. "
         "cmig why shows what a policy makes of the nodes."),
     set_policy, FIELD(policy)},
    {KEY("price", "network", "NUMBER", "0", "0.02",
         "What a GiB from this node costs whoever gets it, in a unit that the operators of the mesh agree on. Others "
         "weigh it where their policy has money in it."),
     set_price, FIELD(price)},
    {KEY("dht_records", "network", "N", "262144", "262144",
         "How many records of others this node keeps for the mesh; each takes about 320 bytes of memory, and its "
         "data."),
     set_count, FIELD(dht_records), .min = 1024, .max = 16u << 20},
    {KEY("block_contacts", "network", "N", "0", "3",
         "How many nodes of one address block (/24, or /48 of IPv6) may be in the DHT's table, two thirds of them in "
         "one "
         "bucket; 0 is no limit. For meshes over the internet that admit people nobody knows: 3. Not for nodes that "
         "share a network."),
     set_count, FIELD(block_contacts), .max = 4096},
    {KEY("quota", "store", "BYTES", "none", "none",
         "The most that stored content may take, or none: then the floor alone decides."),
     set_quota, FIELD(quota_bytes), .min = 1ull << 20, .max = 1ull << 60},
    {KEY("floor", "store", "BYTES|N%", "5%, but not more than 10G", "5%",
         "Free disk that is left to others: an amount, or a share of the file system."),
     set_floor, FIELD(floor), .max = 1ull << 60},
    {KEY("scrub_days", "store", "N", "7", "7",
         "In so many days all that is stored is read and compared with its checksums, a little at a time; what has "
         "rotted is fetched again from other nodes. 0: only when cmig scrub says so."),
     set_count, FIELD(scrub_days), .max = 3650},
    {KEY("runc", "runtime", "PROGRAM", "runc", "runc", "The program that runs containers: a path, or a name in $PATH."),
     set_program, FIELD(runc)},
    {KEY("criu", "runtime", "PROGRAM", "the one of tools/setup in /opt/cmig, else criu", "criu",
         "The program that checkpoints and restores them: a path, or a name in $PATH."),
     set_program, FIELD(criu)},
    {KEY("log_max", "runtime", "BYTES", "10M", "10M", "The most that is kept of each container's output."), set_bytes,
     FIELD(log_max_bytes), .min = 64u << 10, .max = 1ull << 40},
    {KEY("api_group", "api", "GROUP", "cmig", "cmig", "The group whose members may use the socket."), set_name,
     FIELD(api_group)},
    {KEY("resp", "api", "ADDR:PORT", "off", "127.0.0.1:7379",
         "Where Redis clients reach the registry, or off. There is no password: whoever reaches the address may change "
         "every set."),
     set_resp, FIELD(resp)},
};

const struct config_entry *config_entry_at(size_t index)
{
    return &entries[index];
}

static void *field_of(struct config *config, const struct config_entry *entry)
{
    return (char *)config + entry->offset;
}

static int set_text(struct config *config, const struct config_entry *entry, char *text, struct err *err)
{
    char **field = field_of(config, entry);
    if (!text)
        return err_set(err, ERR_NOMEM, "no memory for a value");
    free(*field);
    *field = text;
    return 0;
}

/* ---- values ---- */

static bool is_clean_path(const char *text)
{
    if (strlen(text) >= LIMIT_PATH_BYTES)
        return false;
    for (const char *at = text; *at; at++)
        if (iscntrl((unsigned char)*at))
            return false;
    return text[0] == '/';
}

static int set_path(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    if (!is_clean_path(value))
        return err_set(err, ERR_INVALID, "must be a path from the root, '/...', without control characters");
    return set_text(config, entry, strdup(value), err);
}

static int set_program(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    if (!is_clean_path(value) && !name_is_valid(value))
        return err_set(err, ERR_INVALID, "must be a path from the root, '/...', or the name of a program in $PATH");
    return set_text(config, entry, strdup(value), err);
}

static int set_name(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    if (!name_is_valid(value))
        return err_set(err, ERR_INVALID, "must be 1 to %d of A-Z a-z 0-9 . _ - and begin with a letter or digit",
                       NAME_MAX_BYTES);
    return set_text(config, entry, strdup(value), err);
}

static int set_level(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    if (!log_parse_level(value, field_of(config, entry)))
        return err_set(err, ERR_INVALID, "must be error, warn, info or debug");
    return 0;
}

static int set_policy(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    return policy_parse(value, field_of(config, entry), err);
}

static int set_price(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    char *end;
    double price = strtod(value, &end);
    (void)entry;
    if (value[strspn(value, "0123456789.")] || *end || !(price >= 0 && price <= PRICE_MAX))
        return err_set(err, ERR_INVALID, "must be a number from 0 to %u, in steps of 0.001", PRICE_MAX);
    config->price = (uint32_t)(price * 1000 + 0.5);
    return 0;
}

static int set_count(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    unsigned *field = field_of(config, entry);
    uint64_t number;
    if (!isdigit((unsigned char)value[strlen(value) - 1]) || !config_parse_bytes(value, &number) ||
        number < entry->min || number > entry->max)
        return err_set(err, ERR_INVALID, "must be a number from %llu to %llu", (unsigned long long)entry->min,
                       (unsigned long long)entry->max);
    *field = (unsigned)number;
    return 0;
}

bool config_parse_bytes(const char *text, uint64_t *ret_bytes)
{
    const char *units = "KMGT";
    uint64_t whole = 0, part = 0, scale = 1;
    const char *at = text;
    for (; isdigit((unsigned char)*at); at++) {
        if (whole > (1ull << 63) / 10)
            return false;
        whole = whole * 10 + (uint64_t)(*at - '0');
    }
    if (at == text)
        return false;
    const char *point = *at == '.' ? at++ : NULL;
    for (; point && isdigit((unsigned char)*at) && scale < 1000000; at++, scale *= 10)
        part = part * 10 + (uint64_t)(*at - '0');
    const char *unit = *at ? strchr(units, *at) : NULL;
    if ((point && (scale == 1 || !unit)) || (unit ? at[1] : *at) != '\0')
        return false;
    unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    if (whole > (1ull << 63) >> shift)
        return false;
    *ret_bytes = (whole << shift) + (part << shift) / scale;
    return *ret_bytes <= 1ull << 63;
}

/* "64K", "1T": the largest unit that leaves no rest. */
static const char *bytes_text(uint64_t bytes, char text[24])
{
    size_t unit = 0;
    while (unit < 4 && bytes > 0 && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    const char suffix[2] = {"\0KMGT"[unit]};
    snprintf(text, 24, "%llu%s", (unsigned long long)bytes, suffix);
    return text;
}

static int set_bytes(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    uint64_t *field = field_of(config, entry);
    uint64_t bytes;
    char least[24], most[24];
    if (!config_parse_bytes(value, &bytes) || bytes < entry->min || bytes > entry->max)
        return err_set(err, ERR_INVALID, "must be a number of bytes from %s to %s, as 512K, 10M, 1.5G",
                       bytes_text(entry->min, least), bytes_text(entry->max, most));
    *field = bytes;
    return 0;
}

static int set_quota(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    if (strcmp(value, "none") != 0)
        return set_bytes(config, entry, value, err);
    config->quota_bytes = 0;
    return 0;
}

static int set_floor(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    size_t len = strlen(value);
    struct config_floor floor = {0};
    uint64_t percent;
    char digits[3] = "";
    if (len < 2 || len > 3 || value[len - 1] != '%') {
        if (!config_parse_bytes(value, &floor.bytes) || floor.bytes > entry->max)
            return err_set(err, ERR_INVALID, "must be a number of bytes, as 20G, or a share from 0%% to 99%%");
        config->floor = floor;
        return 0;
    }
    memcpy(digits, value, len - 1);
    if (!isdigit((unsigned char)digits[len - 2]) || !config_parse_bytes(digits, &percent))
        return err_set(err, ERR_INVALID, "must be a number of bytes, as 20G, or a share from 0%% to 99%%");
    config->floor.percent = (unsigned)percent;
    config->floor.bytes = 0;
    return 0;
}

static int set_advertise(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    struct addr addr;
    (void)entry;
    if (!addr_parse(value, ADDR_DEFAULT_PORT, &addr) || !addr_is_usable(&addr))
        return err_set(err, ERR_INVALID,
                       "must be an address that others can reach, as 192.0.2.7:7421 or [2001:db8::7]:7421");
    config->advertise = addr;
    return 0;
}

static int set_resp(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    struct addr addr = {0};
    (void)entry;
    if (strcmp(value, "off") != 0 && !(addr_parse(value, RESP_PORT, &addr) && addr.port != 0))
        return err_set(err, ERR_INVALID, "must be an address of this machine, as 127.0.0.1:7379, or off");
    config->resp = addr;
    return 0;
}

/* Call add for each of the words in `value`, separated by spaces or commas. */
static int for_words(struct config *config, const char *value, int (*add)(struct config *, const char *, struct err *),
                     struct err *err)
{
    OWNED(owned_free) char *copy = strdup(value);
    char *rest = copy;
    int count = 0;
    if (!copy)
        return err_set(err, ERR_NOMEM, "no memory for a value");
    for (char *word; (word = strsep(&rest, " \t,"));) {
        int status = *word ? add(config, word, err) : 0;
        if (status < 0)
            return status;
        count += *word != '\0';
    }
    return count > 0 ? 0 : err_set(err, ERR_INVALID, "is empty");
}

static int add_listen(struct config *config, const char *word, struct err *err)
{
    struct addr addr;
    if (!addr_parse(word, ADDR_DEFAULT_PORT, &addr) || addr.port == 0 || !(addr_is_any(&addr) || addr_is_usable(&addr)))
        return err_set(err, ERR_INVALID, "must be an address of this machine, as [::]:7421 or 127.0.0.1:7421");
    if (config->listen_count == CONFIG_MAX_LISTEN)
        return err_set(err, ERR_INVALID, "holds more than %d addresses", CONFIG_MAX_LISTEN);
    config->listen[config->listen_count++] = addr;
    return 0;
}

static int set_listen(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    (void)entry;
    return for_words(config, value, add_listen, err);
}

static int add_peer(struct config *config, const char *word, struct err *err)
{
    char host[INVITATION_HOST_SIZE];
    uint16_t port;
    int status = invitation_parse_peer(word, ADDR_DEFAULT_PORT, host, &port, err);
    if (status < 0)
        return status;
    if (config->peer_count == CONFIG_MAX_PEERS)
        return err_set(err, ERR_INVALID, "holds more than %d peers", CONFIG_MAX_PEERS);
    char *copy = strdup(word);
    if (!copy)
        return err_set(err, ERR_NOMEM, "no memory for a value");
    config->peers[config->peer_count++] = copy;
    return 0;
}

static int add_bandwidth(struct config *config, const char *word, struct err *err)
{
    return bandwidth_set_word(&config->bandwidth, word, err);
}

static int set_bandwidth(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    (void)entry;
    return for_words(config, value, add_bandwidth, err);
}

static int set_peers(struct config *config, const struct config_entry *entry, const char *value, struct err *err)
{
    (void)entry;
    return for_words(config, value, add_peer, err);
}

void config_entry_reset(struct config *config, const struct config_entry *entry)
{
    if (entry->set == set_listen)
        config->listen_count = 0;
    if (entry->set == set_bandwidth)
        config->bandwidth = (struct exchange_limits){0};
    if (entry->set == set_peers)
        while (config->peer_count > 0)
            free(config->peers[--config->peer_count]);
}

/* ---- defaults ---- */

void config_init_numbers(struct config *config)
{
    config->log = LOG_INFO;
    config->workers = DEFAULT_WORKERS;
    config->scrub_days = DEFAULT_SCRUB_DAYS;
    config->floor = (struct config_floor){.percent = DEFAULT_FLOOR_PERCENT, .bytes = DEFAULT_FLOOR_CAP};
    config->log_max_bytes = DEFAULT_LOG_MAX;
    config->policy = policy_default();
    config->dht_records = LIMIT_DHT_RECORDS;
}

static const char *absolute(const char *path)
{
    return path && path[0] == '/' ? path : NULL; /* the XDG specification: others are to be ignored */
}

static char *default_dir(const struct config_place *place)
{
    if (place->root)
        return strdup("/var/lib/cmig");
    if (absolute(place->state_home))
        return file_path("%s/cmig", place->state_home);
    return absolute(place->home) ? file_path("%s/.local/state/cmig", place->home) : NULL;
}

static char *default_socket(const struct config *config, const struct config_place *place, const char *usual_dir)
{
    bool usual = usual_dir && strcmp(config->dir, usual_dir) == 0;
    if (usual && place->root)
        return strdup("/run/cmig/node.sock");
    if (usual && absolute(place->runtime_dir))
        return file_path("%s/cmig/node.sock", place->runtime_dir);
    return file_path("%s/node.sock", config->dir);
}

static int fill_paths(struct config *config, const struct config_place *place, struct err *err)
{
    OWNED(owned_free) char *usual_dir = default_dir(place);
    if (!config->dir && !usual_dir)
        return err_set(err, ERR_INVALID, "no place for the node's state: $HOME is not set; give --dir PATH");
    if (!config->dir)
        config->dir = strdup(usual_dir);
    if (config->dir && !config->socket)
        config->socket = default_socket(config, place, usual_dir);
    if (!config->dir || !config->socket)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    size_t room = sizeof((struct sockaddr_un *)0)->sun_path;
    if (strlen(config->socket) >= room)
        return err_set(err, ERR_INVALID,
                       "the socket's path '%s' is longer than the %zu bytes that a socket can have; give --socket PATH",
                       config->socket, room - 1);
    return 0;
}

static int fill_text(char **field, const char *text, struct err *err)
{
    if (!*field)
        *field = strdup(text);
    return *field ? 0 : err_set(err, ERR_NOMEM, "no memory for a value");
}

int config_fill_defaults(struct config *config, const struct config_place *place, struct err *err)
{
    const char *name = place->host_name && name_is_valid(place->host_name) ? place->host_name : "node";
    int status = fill_paths(config, place, err);
    if (status == 0)
        status = fill_text(&config->name, name, err);
    if (status == 0)
        status = fill_text(&config->runc, "runc", err);
    if (status == 0)
        status = fill_text(&config->criu, place->setup_criu ? place->setup_criu : "criu", err);
    if (status == 0)
        status = fill_text(&config->api_group, "cmig", err);
    if (status < 0 || config->listen_count > 0)
        return status;
    config->listen[0] = (struct addr){.family = 6, .port = ADDR_DEFAULT_PORT};
    config->listen[1] = (struct addr){.family = 4, .port = ADDR_DEFAULT_PORT};
    config->listen_count = 2;
    return 0;
}

/* ---- the table, told ---- */

size_t config_entry_find(const char *name, size_t name_len)
{
    for (size_t i = 0; i < CONFIG_KEYS; i++) {
        const char *known = entries[i].key.name;
        size_t at = 0;
        while (at < name_len && (name[at] == known[at] || (name[at] == '-' && known[at] == '_')))
            at++;
        if (at == name_len && !known[at])
            return i;
    }
    return CONFIG_KEYS;
}

bool config_key_at(size_t index, struct config_key *ret_key)
{
    if (index >= CONFIG_KEYS)
        return false;
    *ret_key = entries[index].key;
    return true;
}

/* Words of `text` in lines of at most 80 columns that begin with `indent`. */
static void add_wrapped(struct buf *buf, const char *indent, const char *text)
{
    size_t column = 0;
    while (*text) {
        size_t len = strcspn(text, " ");
        bool fits = column > 0 && column + 1 + len <= 80;
        if (!fits)
            buf_addf(buf, "%s%s", column > 0 ? "\n" : "", indent);
        buf_addf(buf, "%s%.*s", fits ? " " : "", (int)len, text);
        column = fits ? column + 1 + len : strlen(indent) + len;
        text += len;
        text += strspn(text, " ");
    }
    buf_add_str(buf, "\n");
}

static void add_default(struct buf *buf, const char *indent, const struct config_key *key)
{
    OWNED(owned_free) char *text = file_path("Default: %s.", key->default_text);
    if (text)
        add_wrapped(buf, indent, text);
}

void config_help(struct buf *buf)
{
    for (size_t i = 0; i < CONFIG_KEYS; i++) {
        const struct config_key *key = &entries[i].key;
        buf_addf(buf, "  --%s %s\n", key->name, key->unit);
        add_wrapped(buf, "      ", key->help);
        add_default(buf, "      ", key);
    }
}

void config_example(struct buf *buf)
{
    buf_add_str(buf, "# Configuration of cmig-node, read from " CONFIG_FILE " or the file of --config.\n"
                     "# Every key is also a flag of the command line, --key VALUE, which wins over this file.\n"
                     "# A comment is a line that begins with # or ;, or the rest of one after \" ;\".\n");
    const char *section = "";
    for (size_t i = 0; i < CONFIG_KEYS; i++) {
        const struct config_key *key = &entries[i].key;
        if (strcmp(section, key->section) != 0)
            buf_addf(buf, "\n[%s]\n", key->section);
        section = key->section;
        buf_add_str(buf, "\n");
        add_wrapped(buf, "# ", key->help);
        add_default(buf, "# ", key);
        buf_addf(buf, "#%s = %s\n", key->name, key->example);
    }
}
