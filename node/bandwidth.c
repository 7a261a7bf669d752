#include "node/bandwidth.h"

#include <stdio.h>
#include <string.h>

#include "node/config.h"

static const char *const scopes[] = {"", "peer-", "freeze-", "volume-", "layer-", "prefetch-"};
_Static_assert(sizeof scopes / sizeof *scopes == BANDWIDTH_NAMES / 2, "one for all, one for each peer, the classes");

const char *bandwidth_name(size_t index, char name[BANDWIDTH_NAME_SIZE])
{
    snprintf(name, BANDWIDTH_NAME_SIZE, "%s%s", scopes[index / 2], index % 2 ? "down" : "up");
    return name;
}

uint64_t *bandwidth_of(struct exchange_limits *limits, size_t index)
{
    struct exchange_rates *rates = index % 2 ? &limits->down : &limits->up;
    switch (index / 2) {
    case 0:
        return &rates->total;
    case 1:
        return &rates->peer;
    default:
        return &rates->classes[index / 2 - 2];
    }
}

static size_t find(const char *name)
{
    char known[BANDWIDTH_NAME_SIZE];
    size_t index = 0;
    while (index < BANDWIDTH_NAMES && strcmp(bandwidth_name(index, known), name) != 0)
        index++;
    return index;
}

int bandwidth_set(struct exchange_limits *limits, const char *name, const char *value, struct err *err)
{
    size_t index = find(name);
    uint64_t bytes = 0;
    if (index == BANDWIDTH_NAMES)
        return err_set(err, ERR_INVALID,
                       "'%.40s' limits nothing: that is up or down, or one of them after peer-, freeze-, volume-, "
                       "layer- or prefetch-",
                       name);
    if (strcmp(value, "none") != 0 && (!config_parse_bytes(value, &bytes) || bytes > BANDWIDTH_MAX))
        return err_set(err, ERR_INVALID, "'%s' must be bytes a second, as 512K, 10M, 1.5G, or none", name);
    *bandwidth_of(limits, index) = bytes;
    return 0;
}

int bandwidth_set_word(struct exchange_limits *limits, const char *word, struct err *err)
{
    char name[BANDWIDTH_NAME_SIZE] = "";
    const char *equals = strchr(word, '=');
    if (!equals)
        return err_set(err, ERR_INVALID, "'%.40s' is no NAME=BYTES, as up=10M", word);
    if ((size_t)(equals - word) >= sizeof name)
        return err_set(err, ERR_INVALID, "'%.40s' limits nothing: its name is too long", word);
    memcpy(name, word, (size_t)(equals - word));
    return bandwidth_set(limits, name, equals + 1, err);
}
