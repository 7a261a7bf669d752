/*
 * What the command line chooses: sizes, the workload, and the models of the network. Each has a default that --help
 * shows; docs/simulator.md says what each model is.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/sim/command.h"

struct options {
    uint64_t seed;
    struct command_list nodes;
    struct command_list keys;
    struct command_list dead_percent;
    struct command_list liars_percent;
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

extern const struct flag options_flags[];
extern const size_t options_flag_count;
