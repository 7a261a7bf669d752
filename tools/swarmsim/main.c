/* swarmsim: the daemon's own exchange with thousands of nodes in one process, on a virtual network and clock. */
#include <signal.h>
#include <stdio.h>

#include "node/base/crypto.h"
#include "tools/sim/memory.h"
#include "tools/swarmsim/options.h"
#include "tools/swarmsim/scenario.h"

static const struct command commands[] = {
    {"crowd", "one seed, and everybody wants the same at once", " receivers size", "",
     "swarmsim crowd --receivers 10000 --size 1024 --plots plots", scenario_crowd},
    {"faults", "the same, while receivers die, fall silent or are cut off, and others lie",
     " receivers size killed liars stalled cut cut-s", "killed=1 liars=1 stalled=1",
     "swarmsim faults --receivers 8 --killed 1 --liars 1 --stalled 1", scenario_faults},
    {"arrivals", "receivers come one after the other, and perhaps leave when they have all",
     " receivers size over stay", "receivers=100", "swarmsim arrivals --receivers 100 --over 30 --stay 5",
     scenario_arrivals},
    {"mixed", "a crowd with fast and slow wires", " receivers size slow slow-up slow-down", "receivers=50",
     "swarmsim mixed --receivers 50 --slow 50 --slow-up 10 --slow-down 20", scenario_mixed},
    {"classes", "every receiver wants four objects at once, one of each class", " receivers size",
     "receivers=20 size=32", "swarmsim classes --receivers 20 --size 32", scenario_classes},
    {"churn", "receivers live for a while, and others take their places", " receivers size minutes life",
     "receivers=50", "swarmsim churn --receivers 50 --minutes 5 --life 60", scenario_churn},
};

static const char intro[] =
    "The daemon's own exchange of objects, many nodes in one process, on a virtual network and clock. The same flags\n"
    "and seed give the same run; the hash at the end says so. Ctrl-C prints what there is until then.";

int main(int argc, char **argv)
{
    memory_use_huge_pages(argv);
    struct err err = {0};
    struct options options = {0};
    const struct program program = {.name = "swarmsim",
                                    .intro = intro,
                                    .flags = options_flags,
                                    .n_flags = options_flag_count,
                                    .commands = commands,
                                    .n_commands = sizeof commands / sizeof commands[0]};
    if (crypto_init(&err) < 0) {
        fprintf(stderr, "swarmsim: %s\n", err.text);
        return 1;
    }
    /* Ctrl-C is looked at between events, swarm.c */
    sigset_t interrupt;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, NULL);
    return command_main(&program, argc, argv, &options);
}
