#include "tools/dhtsim/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum type { NUMBER, SHARE, LIST, TEXT, SWITCH };

struct flag {
    const char *name;
    enum type type;
    size_t offset;
    bool of_model; /* taken by every command */
    uint64_t min, max;
    const char *usual;
    const char *what;
};

#define FIELD(name) offsetof(struct options, name)
#define MANY 1000000000u

/* All flags. `usual` is given first, then the command's own defaults, then what the user says. */
static const struct flag flags[] = {
    {"nodes", LIST, FIELD(nodes), false, 4, 8000000, "1000", "nodes of the mesh; several sizes one after the other"},
    {"keys", LIST, FIELD(keys), false, 1, 16000000, "1000",
     "records published at the start, each under a key of its own"},
    {"gets", NUMBER, FIELD(gets), false, 0, MANY, "1000", "reads"},
    {"gets-per-s", NUMBER, FIELD(gets_per_s), false, 1, MANY, "1000", "reads started in a virtual second, in the mesh"},
    {"askers", NUMBER, FIELD(askers), false, 0, 16000000, "1000", "nodes that publish and read; 0 for any"},
    {"dead", LIST, FIELD(dead_percent), false, 0, 99, "0,5,10,20,30,50", "percent of the nodes that die at once"},
    {"liars", LIST, FIELD(liars_percent), false, 0, 90, "0", "percent of the nodes that lie to whoever asks them"},
    {"days", NUMBER, FIELD(days), false, 0, 365, "7", "virtual days"},
    {"hours", NUMBER, FIELD(hours), false, 0, 8760, "2", "virtual hours that are measured"},
    {"warm", NUMBER, FIELD(warm_hours), false, 0, 8760, "2", "virtual hours before that"},
    {"split", NUMBER, FIELD(split_percent), false, 0, 99, "30",
     "percent of the nodes that are cut off from the others"},
    {"split-minutes", NUMBER, FIELD(split_minutes), false, 0, 10000, "60", "for so long"},
    {"session", NUMBER, FIELD(session_minutes), false, 1, 100000, "120",
     "median life of a node, minutes; 80 % live 4 x"},
    {"pause", NUMBER, FIELD(pause_minutes), false, 1, 100000, "10",
     "median minutes until one takes a dead node's place"},
    {"rejoin", NUMBER, FIELD(rejoin_percent), false, 0, 100, "50",
     "percent that come back as who they were, with their disk"},
    {"stable", NUMBER, FIELD(stable_percent), false, 0, 100, "5", "percent that never die; they publish"},

    {"seed", NUMBER, FIELD(seed), true, 0, UINT64_MAX, "7421", "of all randomness: the same seed, the same run"},
    {"join", SWITCH, FIELD(join), true, 0, 0, "no", "nodes join through others; else tables are ideal at the start"},
    {"awake", SWITCH, FIELD(awake), true, 0, 0, "no", "upkeep of all nodes, where it is left out to save time"},
    {"ed25519", SWITCH, FIELD(ed25519), true, 0, 0, "no", "real signatures instead of a fast keyed hash"},
    {"rtt", NUMBER, FIELD(rtt_ms), true, 1, 10000, "60", "median round trip, ms"},
    {"jitter", NUMBER, FIELD(jitter_percent), true, 0, 300, "15",
     "sigma of a lognormal factor on each packet's time, percent"},
    {"loss", SHARE, FIELD(loss_percent), true, 0, 100, "0", "percent of packets lost"},
    {"duplicate", SHARE, FIELD(duplicate_percent), true, 0, 100, "0", "percent that arrive twice"},
    {"reorder", SHARE, FIELD(reorder_percent), true, 0, 100, "0", "percent held up, by up to 4 median round trips"},
    {"one-way", SHARE, FIELD(one_way_percent), true, 0, 100, "0",
     "percent of ordered pairs between which nothing arrives"},
    {"slow", SHARE, FIELD(slow_percent), true, 0, 100, "0", "percent of nodes that are slow"},
    {"slow-ms", NUMBER, FIELD(slow_ms), true, 0, 60000, "400", "median by which a slow node's packets are late, ms"},
    {"skew", NUMBER, FIELD(skew_ms), true, 0, 86400000, "30000", "wall clocks are off by up to so many ms, either way"},
    {"plots", TEXT, FIELD(plots), true, 0, 0, NULL, "write SVG plots into this directory"},
    {"json", SWITCH, FIELD(json), true, 0, 0, "no", "results as JSON on standard output"},
    {"quiet", SWITCH, FIELD(quiet), true, 0, 0, "no", "no progress on standard error"},
};

#define FLAG_COUNT (sizeof flags / sizeof flags[0])

static bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 0);
    if (errno || end == text || *end || *text == '-' || value < min || value > max)
        return false;
    *ret_value = value;
    return true;
}

static bool parse_share(const char *text, uint64_t max, double *ret_value)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0) || value > (double)max)
        return false;
    *ret_value = value;
    return true;
}

static bool parse_list(const char *text, uint64_t min, uint64_t max, struct options_list *ret_list)
{
    char copy[256];
    if (strlen(text) >= sizeof copy)
        return false;
    memcpy(copy, text, strlen(text) + 1);
    ret_list->count = 0;
    char *state;
    for (char *part = strtok_r(copy, ",", &state); part; part = strtok_r(NULL, ",", &state)) {
        if (ret_list->count == OPTIONS_LIST_MAX || !parse_number(part, min, max, &ret_list->values[ret_list->count]))
            return false;
        ret_list->count++;
    }
    return ret_list->count > 0;
}

static bool set_flag(const struct flag *flag, const char *text, struct options *options)
{
    void *field = (char *)options + flag->offset;
    switch (flag->type) {
    case NUMBER:
        return parse_number(text, flag->min, flag->max, field);
    case SHARE:
        return parse_share(text, flag->max, field);
    case LIST:
        return parse_list(text, flag->min, flag->max, field);
    case TEXT:
        *(const char **)field = text;
        return true;
    case SWITCH:
        *(bool *)field = strcmp(text, "yes") == 0;
        return true;
    }
    return false;
}

/* Does the command look at the flag? */
static bool is_taken(const struct command *command, const struct flag *flag)
{
    if (flag->of_model)
        return true;
    size_t len = strlen(flag->name);
    for (const char *at = command->flags; (at = strstr(at, flag->name)); at++)
        if (at[-1] == ' ' && (at[len] == ' ' || at[len] == '\0'))
            return true;
    return false;
}

static const struct flag *find_flag(const struct command *command, const char *argument)
{
    for (size_t i = 0; i < FLAG_COUNT; i++)
        if (strncmp(argument, "--", 2) == 0 && strcmp(argument + 2, flags[i].name) == 0)
            return is_taken(command, &flags[i]) ? &flags[i] : NULL;
    return NULL;
}

static bool parse_arguments(const struct command *command, int count, char **arguments, struct options *options)
{
    for (int i = 0; i < count; i++) {
        const struct flag *flag = find_flag(command, arguments[i]);
        if (!flag) {
            fprintf(stderr, "dhtsim %s: '%s' is no flag of it; see dhtsim %s --help\n", command->name, arguments[i],
                    command->name);
            return false;
        }
        const char *value = flag->type == SWITCH ? "yes" : i + 1 < count ? arguments[++i] : NULL;
        if (!value || !set_flag(flag, value, options)) {
            fprintf(stderr, "dhtsim %s: --%s does not take '%s'\n", command->name, flag->name, value ? value : "");
            return false;
        }
    }
    return true;
}

/* The command's own default of a flag, from "name=value name=value"; else the usual one. NULL for none. */
static const char *default_of(const struct command *command, const struct flag *flag, char *text, size_t text_size)
{
    size_t len = strlen(flag->name);
    const char *at = command->defaults;
    while (at && *at) {
        size_t word = strcspn(at, " ");
        if (strncmp(at, flag->name, len) == 0 && at[len] == '=') {
            snprintf(text, text_size, "%.*s", (int)(word - len - 1), at + len + 1);
            return text;
        }
        at += word + (at[word] == ' ');
    }
    return flag->usual;
}

bool options_parse(const struct command *command, int count, char **arguments, struct options *ret_options)
{
    *ret_options = (struct options){0};
    for (size_t i = 0; i < FLAG_COUNT; i++) {
        char text[128];
        const char *value = default_of(command, &flags[i], text, sizeof text);
        if (value)
            set_flag(&flags[i], value, ret_options);
    }
    return parse_arguments(command, count, arguments, ret_options);
}

static void help_of_flag(const struct command *command, const struct flag *flag)
{
    static const char *const words[] = {
        [NUMBER] = " N", [SHARE] = " PERCENT", [LIST] = " N,N", [TEXT] = " DIR", [SWITCH] = ""};
    char left[64];
    char text[128];
    const char *usual = default_of(command, flag, text, sizeof text);
    snprintf(left, sizeof left, "--%s%s", flag->name, words[flag->type]);
    printf("  %-24s%s", left, flag->what);
    if (usual && flag->type != SWITCH)
        printf(" (%s)", usual);
    printf("\n");
}

void options_help_of(const struct command *command)
{
    for (size_t i = 0; i < FLAG_COUNT; i++)
        if (!flags[i].of_model && is_taken(command, &flags[i]))
            help_of_flag(command, &flags[i]);
}

void options_help_of_models(void)
{
    static const struct command any = {0};
    for (size_t i = 0; i < FLAG_COUNT; i++)
        if (flags[i].of_model)
            help_of_flag(&any, &flags[i]);
}
