#include "tools/swarmsim/options.h"

#define FIELD(name) offsetof(struct options, name)

const struct flag options_flags[] = {
    {"receivers", FLAG_LIST, FIELD(receivers), false, 1, 1000000, "8",
     "nodes that want the object; several sizes one after the other"},
    {"size", FLAG_NUMBER, FIELD(size_mib), false, 1, 1u << 20, "64", "of the object, MiB"},
    {"killed", FLAG_NUMBER, FIELD(killed), false, 0, 1000000, "0", "receivers that die on the way"},
    {"liars", FLAG_NUMBER, FIELD(liars), false, 0, 1000000, "0",
     "nodes besides that claim to have all and give other bytes"},
    {"stalled", FLAG_NUMBER, FIELD(stalled), false, 0, 1000000, "0", "receivers that fall silent on the way, for good"},
    {"cut", FLAG_NUMBER, FIELD(cut), false, 0, 1000000, "0", "receivers that are cut off on the way, for a while"},
    {"cut-s", FLAG_NUMBER, FIELD(cut_s), false, 1, 1000000, "3", "for so many s"},
    {"over", FLAG_NUMBER, FIELD(over_s), false, 0, 1000000, "30", "s over which the receivers arrive"},
    {"stay", FLAG_NUMBER, FIELD(stay_s), false, 0, 1000000, "0", "s that they stay when they have all; 0: for good"},
    {"slow", FLAG_NUMBER, FIELD(slow_percent), false, 0, 100, "50", "percent of the receivers that have slow wires"},
    {"slow-up", FLAG_NUMBER, FIELD(slow_up_mbit), false, 1, 100000, "10", "Mbit/s that those send"},
    {"slow-down", FLAG_NUMBER, FIELD(slow_down_mbit), false, 1, 100000, "20", "Mbit/s that those receive"},
    {"minutes", FLAG_NUMBER, FIELD(minutes), false, 1, 100000, "5", "virtual minutes"},
    {"life", FLAG_NUMBER, FIELD(life_s), false, 1, 1000000, "60", "s that a receiver lives in the mean"},

    {"seed", FLAG_NUMBER, FIELD(seed), true, 0, UINT64_MAX, "7421", "of all randomness: the same seed, the same run"},
    {"up", FLAG_NUMBER, FIELD(up_mbit), true, 1, 100000, "100", "Mbit/s that a node sends"},
    {"down", FLAG_NUMBER, FIELD(down_mbit), true, 1, 100000, "100", "Mbit/s that it receives"},
    {"seed-up", FLAG_NUMBER, FIELD(seed_up_mbit), true, 0, 100000, "0",
     "Mbit/s that those send who have all at the start; 0: as the others"},
    {"delay", FLAG_NUMBER, FIELD(delay_ms), true, 1, 10000, "5", "ms from one node to another"},
    {"spread", FLAG_NUMBER, FIELD(spread_percent), true, 0, 100, "20",
     "percent by which the delay of a pair may differ from that, either way"},
    {"quantum", FLAG_NUMBER, FIELD(quantum_kib), true, 1, 1u << 20, "32",
     "KiB of one session that leave a node before those of the next; less is slower"},
    {"sessions", FLAG_NUMBER, FIELD(sessions), true, 1, 65535, "256", "that a node has at most"},
    {"heard", FLAG_NUMBER, FIELD(heard), true, 0, 200, "40",
     "nodes that a fetch wants, beyond which it learns of no more from peers"},
    {"dht", FLAG_NUMBER, FIELD(dht_ms), true, 0, 60000, "30", "ms that a read or a write of the DHT takes"},
    {"job", FLAG_NUMBER, FIELD(job_us), true, 0, 1000000, "100", "us that blocking work on the store takes"},
    {"patience", FLAG_NUMBER, FIELD(patience_s), true, 1, 1000000, "60", "s without progress, then a fetch gives up"},
    {"limit", FLAG_NUMBER, FIELD(limit), true, 1, 1000000, "20", "times size / rate, then the run is ended"},
    {"lively", FLAG_SWITCH, FIELD(lively), true, 0, 0, "no",
     "deadlines are looked at after every message, as in the daemon; slower"},
    {"plots", FLAG_TEXT, FIELD(plots), true, 0, 0, NULL, "write SVG plots into this directory"},
    {"json", FLAG_SWITCH, FIELD(json), true, 0, 0, "no", "results as JSON on standard output"},
    {"quiet", FLAG_SWITCH, FIELD(quiet), true, 0, 0, "no", "no progress on standard error"},
};

const size_t options_flag_count = sizeof options_flags / sizeof options_flags[0];
