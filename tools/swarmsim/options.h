/*
 * What the command line chooses: the swarm, its network, and what goes wrong. Each has a default that --help shows;
 * docs/simulator.md says what each model is.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/sim/command.h"

struct options {
    uint64_t seed;
    struct command_list receivers;
    uint64_t size_mib;
    uint64_t killed;
    uint64_t liars;
    uint64_t stalled;
    uint64_t cut; /* nodes that are silent for cut_s */
    uint64_t cut_s;
    uint64_t over_s;
    uint64_t stay_s; /* after they have all; 0: for good */
    uint64_t slow_percent;
    uint64_t slow_up_mbit;
    uint64_t slow_down_mbit;
    uint64_t minutes;
    uint64_t life_s;

    uint64_t up_mbit;
    uint64_t down_mbit;
    uint64_t seed_up_mbit; /* 0: as the others */
    uint64_t delay_ms;
    uint64_t spread_percent;
    uint64_t quantum_kib;
    uint64_t sessions;
    uint64_t heard;
    uint64_t dht_ms;
    uint64_t job_us;
    uint64_t patience_s;
    uint64_t limit; /* times size / rate, then the run ends */
    bool lively;

    const char *plots; /* directory, or NULL */
    bool json;
    bool quiet;
};

extern const struct flag options_flags[];
extern const size_t options_flag_count;
