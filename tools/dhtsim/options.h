/*
 * What the command line chooses: sizes, the workload, and the models of the network. Each has a default that --help
 * shows; docs/simulator.md says what each model is.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPTIONS_LIST_MAX 16

/* A list of numbers as given by "1000,10000". */
struct options_list {
    uint64_t values[OPTIONS_LIST_MAX];
    size_t count;
};

struct options {
    uint64_t seed;
    struct options_list nodes;
    struct options_list keys;
    struct options_list dead_percent;
    struct options_list liars_percent;
    uint64_t gets;
    uint64_t gets_per_s;
    uint64_t askers; /* 0: any node */
    uint64_t days;
    uint64_t hours;
    uint64_t warm_hours;
    bool join;  /* nodes join through others, instead of beginning with ideal tables */
    bool awake; /* all nodes do their upkeep, also where a scenario would let them rest */
    bool ed25519;

    uint64_t rtt_ms;
    uint64_t jitter_percent;
    double loss_percent;
    double duplicate_percent;
    double reorder_percent;
    double one_way_percent;
    double slow_percent;
    uint64_t slow_ms;
    uint64_t skew_ms;
    uint64_t session_minutes;
    uint64_t pause_minutes;
    uint64_t rejoin_percent;
    uint64_t stable_percent;
    uint64_t split_percent;
    uint64_t split_minutes;

    const char *plots; /* directory, or NULL */
    bool json;
    bool quiet;
};

/* One command of the program. */
struct command {
    const char *name;
    const char *what;     /* it shows */
    const char *flags;    /* the workload flags that it looks at, each after a space */
    const char *defaults; /* flags set before those of the user */
    const char *example;
    int (*run)(const struct options *options);
};

/* Fill in from the arguments behind the command's name. False after a message on standard error. */
bool options_parse(const struct command *command, int count, char **arguments, struct options *ret_options);
void options_help_of(const struct command *command);
/* Of the models of the network, which all commands take. */
void options_help_of_models(void);
