#include "tests/lab/relay_control.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define WORDS_MAX 12

struct order {
    struct net *net;
    struct buf *answer; /* borrowed */
    control_attach_cb attach;
    void *ctx;
    char *words[WORDS_MAX];
    int count;
};

static int obey_node(struct order *order, struct err *err);
static int obey_rate(struct order *order, struct err *err);
static int obey_set(struct order *order, struct err *err);
static int obey_cut(struct order *order, struct err *err);
static int obey_show(struct order *order, struct err *err);
static int obey_zero(struct order *order, struct err *err);

static const struct {
    const char *name;
    int operands; /* that it needs */
    int (*obey)(struct order *order, struct err *err);
} commands[] = {
    {"node", 3, obey_node}, {"rate", 1, obey_rate}, {"set", 2, obey_set},   {"cut", 2, obey_cut},
    {"heal", 2, obey_cut},  {"show", 0, obey_show}, {"zero", 0, obey_zero},
};

int control_obey(struct net *net, char *line, struct buf *answer, control_attach_cb attach, void *ctx, struct err *err)
{
    struct order order = {.net = net, .answer = answer, .attach = attach, .ctx = ctx};
    char *state;
    for (char *word = strtok_r(line, " \t\n", &state); word; word = strtok_r(NULL, " \t\n", &state)) {
        if (order.count == WORDS_MAX)
            return err_set(err, ERR_INVALID, "more than %d words", WORDS_MAX);
        order.words[order.count++] = word;
    }
    if (order.count == 0)
        return err_set(err, ERR_INVALID, "no command");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(order.words[0], commands[i].name) != 0)
            continue;
        if (order.count <= commands[i].operands)
            return err_set(err, ERR_INVALID, "'%s' takes %d operands", commands[i].name, commands[i].operands);
        return commands[i].obey(&order, err);
    }
    return err_set(err, ERR_INVALID, "no command '%s'", order.words[0]);
}

/* ---- numbers with units ---- */

struct unit {
    const char *name;
    double factor;
};

static const struct unit rates[] = {{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {NULL, 0}};
static const struct unit times[] = {{"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {NULL, 0}};
static const struct unit sizes[] = {{"k", 1024}, {"m", 1048576}, {NULL, 0}};
static const struct unit shares[] = {{"%", 0.01}, {NULL, 0}};

static bool parse_unit(const char *text, const struct unit *units, double max, double *ret_value)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || !(number >= 0))
        return false;
    for (; units->name; units++)
        if (strcmp(end, units->name) == 0 && number * units->factor <= max) {
            *ret_value = number * units->factor;
            return true;
        }
    return false;
}

static int parse_number(const char *text, const struct unit *units, double max, uint64_t *ret_value, struct err *err)
{
    double value;
    if (!parse_unit(text, units, max, &value))
        return err_set(err, ERR_INVALID, "'%s' is not within what is possible, or has no unit", text);
    *ret_value = (uint64_t)value;
    return 0;
}

static int parse_time(const char *text, uint64_t *ret_ns, struct err *err)
{
    return parse_number(text, times, 60e9, ret_ns, err);
}

static int parse_share(const char *text, double *ret_share, struct err *err)
{
    if (!parse_unit(text, shares, 1, ret_share))
        return err_set(err, ERR_INVALID, "'%s' is no share from 0%% to 100%%", text);
    return 0;
}

static int parse_rate(const char *text, uint64_t *ret_rate, struct err *err)
{
    *ret_rate = 0;
    int result = strcmp(text, "none") == 0 ? 0 : parse_number(text, rates, 100e9, ret_rate, err);
    if (result == 0 && strcmp(text, "none") != 0 && *ret_rate < 1000)
        return err_set(err, ERR_INVALID, "less than 1kbit: cut it instead");
    return result;
}

/* The value of `name=value`, NULL if the word is something else. */
static const char *value_of(const char *word, const char *name)
{
    size_t len = strlen(name);
    return strncmp(word, name, len) == 0 && word[len] == '=' ? word + len + 1 : NULL;
}

/* ---- nodes, one or all ---- */

struct range {
    unsigned begin, end;
};

static int parse_nodes(const struct order *order, const char *word, struct range *ret_range, struct err *err)
{
    if (strcmp(word, "all") == 0) {
        *ret_range = (struct range){0, net_node_count(order->net)};
        return 0;
    }
    int node = net_find_node(order->net, word);
    if (node < 0)
        return err_set(err, ERR_NOTFOUND, "no node '%s'", word);
    *ret_range = (struct range){(unsigned)node, (unsigned)node + 1};
    return 0;
}

static int obey_node(struct order *order, struct err *err)
{
    struct in_addr address;
    if (inet_pton(AF_INET, order->words[3], &address) != 1)
        return err_set(err, ERR_INVALID, "'%s' is no IPv4 address", order->words[3]);
    int node = net_add_node(order->net, order->words[1], ntohl(address.s_addr), err);
    return node < 0 ? node : order->attach(order->ctx, (unsigned)node, order->words[2], err);
}

/* ---- links ---- */

static int parse_queue(const char *text, struct net_link *link, struct err *err)
{
    double bytes = 0;
    if (parse_unit(text, sizes, 1e9, &bytes) && bytes > 0) {
        link->queue_bytes = (uint64_t)bytes;
        return 0;
    }
    link->queue_bytes = 0;
    return parse_time(text, &link->queue_ns, err);
}

static int parse_links(const struct order *order, struct net_link *up, struct net_link *down, struct err *err)
{
    for (int i = 2, result = 0; i < order->count; i++) {
        const char *word = order->words[i], *value;
        if ((value = value_of(word, "up")))
            result = parse_rate(value, &up->rate_bits_per_s, err);
        else if ((value = value_of(word, "down")))
            result = parse_rate(value, &down->rate_bits_per_s, err);
        else if ((value = value_of(word, "queue")))
            (void)((result = parse_queue(value, up, err)) == 0 && (result = parse_queue(value, down, err)));
        else
            result = err_set(err, ERR_INVALID, "a link has no '%s'", word);
        if (result < 0)
            return result;
    }
    return 0;
}

static int obey_rate(struct order *order, struct err *err)
{
    struct range nodes = {0};
    int result = parse_nodes(order, order->words[1], &nodes, err);
    for (unsigned i = nodes.begin; result == 0 && i < nodes.end; i++) {
        struct net_node *node = net_node(order->net, i);
        struct net_link up = node->up, down = node->down;
        result = parse_links(order, &up, &down, err);
        if (result == 0) {
            node->up = up;
            node->down = down;
        }
    }
    return result;
}

/* ---- paths ---- */

typedef int (*path_change_cb)(const struct order *order, int first_word, struct net_path *path, struct err *err);

static int change_path(const struct order *order, int first_word, path_change_cb cb, unsigned from, unsigned to,
                       struct err *err)
{
    struct net_path changed = *net_path(order->net, from, to);
    int result = cb(order, first_word, &changed, err);
    if (result == 0)
        *net_path(order->net, from, to) = changed;
    return result;
}

static int change_paths(const struct order *order, path_change_cb cb, struct err *err)
{
    struct range from = {0}, to = {0};
    int result = parse_nodes(order, order->words[1], &from, err);
    if (result == 0)
        result = parse_nodes(order, order->words[2], &to, err);
    if (result < 0)
        return result;
    bool one_way = order->count > 3 && strcmp(order->words[3], "one-way") == 0;
    int first_word = one_way ? 4 : 3;
    for (unsigned i = from.begin; i < from.end; i++)
        for (unsigned j = to.begin; j < to.end && result == 0; j++) {
            if (i == j)
                continue;
            result = change_path(order, first_word, cb, i, j, err);
            if (result == 0 && !one_way)
                result = change_path(order, first_word, cb, j, i, err);
        }
    return result;
}

static int set_words(const struct order *order, int first_word, struct net_path *path, struct err *err)
{
    for (int i = first_word, result = 0; i < order->count; i++) {
        const char *word = order->words[i], *value;
        if ((value = value_of(word, "delay")))
            result = parse_time(value, &path->delay_ns, err);
        else if ((value = value_of(word, "jitter")))
            result = parse_time(value, &path->jitter_ns, err);
        else if ((value = value_of(word, "late")))
            result = parse_time(value, &path->late_ns, err);
        else if ((value = value_of(word, "loss")))
            result = parse_share(value, &path->loss, err);
        else if ((value = value_of(word, "reorder")))
            result = parse_share(value, &path->reorder, err);
        else
            result = err_set(err, ERR_INVALID, "a path has no '%s'", word);
        if (result < 0)
            return result;
    }
    return 0;
}

static int cut_word(const struct order *order, int first_word, struct net_path *path, struct err *err)
{
    if (first_word < order->count)
        return err_set(err, ERR_INVALID, "'%s': what is that?", order->words[first_word]);
    path->cut = strcmp(order->words[0], "cut") == 0;
    return 0;
}

static int obey_set(struct order *order, struct err *err)
{
    return change_paths(order, set_words, err);
}

static int obey_cut(struct order *order, struct err *err)
{
    return change_paths(order, cut_word, err);
}

/* ---- counters ---- */

static int obey_zero(struct order *order, struct err *err)
{
    (void)err;
    net_zero_counters(order->net);
    return 0;
}

static uint64_t cpu_ms(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

static void show_node(struct net *net, unsigned number, struct buf *answer)
{
    const struct net_node *node = net_node(net, number);
    struct net_path sum = {0};
    for (unsigned i = 0; i < net_node_count(net); i++) {
        const struct net_path *out = net_path(net, number, i), *in = net_path(net, i, number);
        sum.sent_bytes += out->sent_bytes;
        sum.sent_packets += out->sent_packets;
        sum.received_bytes += in->received_bytes;
        sum.received_packets += in->received_packets;
    }
    buf_addf(answer,
             "\"%s\": {\"sent_bytes\": %" PRIu64 ", \"sent_packets\": %" PRIu64 ", \"received_bytes\": %" PRIu64
             ", \"received_packets\": %" PRIu64 ", \"up_dropped\": %" PRIu64 ", \"down_dropped\": %" PRIu64 "}",
             node->name, sum.sent_bytes, sum.sent_packets, sum.received_bytes, sum.received_packets,
             node->up.dropped_packets, node->down.dropped_packets);
}

static void show_paths(struct net *net, unsigned from, struct buf *answer)
{
    const char *comma = "";
    buf_addf(answer, "\"%s\": {", net_node(net, from)->name);
    for (unsigned to = 0; to < net_node_count(net); to++) {
        const struct net_path *path = net_path(net, from, to);
        if (from == to)
            continue;
        buf_addf(answer,
                 "%s\"%s\": {\"sent_bytes\": %" PRIu64 ", \"sent_packets\": %" PRIu64 ", \"received_bytes\": %" PRIu64
                 ", \"received_packets\": %" PRIu64 ", \"lost_packets\": %" PRIu64 "}",
                 comma, net_node(net, to)->name, path->sent_bytes, path->sent_packets, path->received_bytes,
                 path->received_packets, path->lost_packets);
        comma = ", ";
    }
    buf_add_str(answer, "}");
}

static int obey_show(struct order *order, struct err *err)
{
    struct buf *answer = order->answer;
    const struct net_lateness *lateness = net_lateness(order->net);
    double frames = lateness->frames ? (double)lateness->frames : 1;
    buf_addf(answer,
             "{\"cpu_ms\": %" PRIu64 ", \"frames\": %" PRIu64
             ", \"late\": {\"mean_us\": %.1f, \"max_us\": %.1f, \"over_300us\": %.6f},\n \"nodes\": {",
             cpu_ms(), lateness->frames, (double)lateness->sum_ns / frames / 1e3, (double)lateness->max_ns / 1e3,
             (double)lateness->late_frames / frames);
    for (unsigned i = 0; i < net_node_count(order->net); i++) {
        buf_add_str(answer, i ? ",\n  " : "\n  ");
        show_node(order->net, i, answer);
    }
    buf_add_str(answer, "},\n \"paths\": {");
    for (unsigned i = 0; i < net_node_count(order->net); i++) {
        buf_add_str(answer, i ? ",\n  " : "\n  ");
        show_paths(order->net, i, answer);
    }
    buf_add_str(answer, "}}\n");
    return answer->failed ? err_set(err, ERR_LIMIT, "too much to show") : 0;
}
