/* dhtsim: the daemon's own DHT code with up to a million nodes in one process, on a virtual network and clock. */
#include <signal.h>
#include <stdio.h>

#include "node/base/crypto.h"
#include "tools/dhtsim/options.h"
#include "tools/dhtsim/scenario.h"

static const struct command commands[] = {
    {"hops", "how many hops and how long a read takes, against the size of the mesh",
     " nodes keys gets gets-per-s askers", "nodes=1000,10000,100000 keys=1000 gets=10000 gets-per-s=5000 askers=0",
     "dhtsim hops --nodes 1000,10000,100000,1000000 --gets 100000 --plots plots", scenario_hops},
    {"fail", "success and time of reads after a share of the nodes has died at once",
     " nodes keys gets gets-per-s askers dead", "nodes=10000 keys=1000 gets=10000 gets-per-s=5000 askers=0",
     "dhtsim fail --nodes 100000 --gets 100000 --dead 0,5,10,20,30,50 --plots plots", scenario_fail},
    {"churn", "whether acknowledged records outlive the nodes that come and go",
     " nodes keys gets days session pause rejoin stable", "nodes=1000 keys=2000 gets=200",
     "dhtsim churn --nodes 1000 --days 7 --loss 1 --plots plots", scenario_churn},
    {"idle", "what a mesh costs when nobody uses it", " nodes hours warm", "nodes=1000 hours=4 warm=4",
     "dhtsim idle --nodes 1000 --warm 24 --hours 24", scenario_idle},
    {"load", "how records and requests spread over the nodes, with popular keys", " nodes keys gets gets-per-s askers",
     "nodes=10000 keys=1000,10000,100000 gets=100000 gets-per-s=10000 askers=0",
     "dhtsim load --nodes 10000 --keys 1000,10000,100000 --plots plots", scenario_load},
    {"partition", "a mesh that is cut in two, written to on both sides, and healed",
     " nodes keys gets split split-minutes", "nodes=1000 keys=500 gets=1000",
     "dhtsim partition --nodes 1000 --split 30 --split-minutes 120", scenario_partition},
    {"liars", "reads and writes among nodes that lie to whoever asks them", " nodes keys gets gets-per-s askers liars",
     "nodes=10000 keys=500 gets=5000 gets-per-s=2000 askers=0 liars=0,5,10,20,30",
     "dhtsim liars --nodes 10000 --liars 0,10,20,30 --plots plots", scenario_liars},
    {"memory", "what a node costs in memory with the tables of a mesh that is long there", " nodes", "nodes=100000",
     "dhtsim memory --nodes 1000000", scenario_memory},
};

static const char intro[] =
    "The daemon's own DHT code, many nodes in one process, on a virtual network and clock. The same flags and\n"
    "seed give the same run; the hash at the end says so. Ctrl-C prints what there is until then.";

/* Ctrl-C is looked at between events, world.c. */
static void block_interrupts(void)
{
    sigset_t interrupt;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, NULL);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    struct options options = {0};
    const struct program program = {.name = "dhtsim",
                                    .intro = intro,
                                    .flags = options_flags,
                                    .n_flags = options_flag_count,
                                    .commands = commands,
                                    .n_commands = sizeof commands / sizeof commands[0]};
    if (crypto_init(&err) < 0) {
        fprintf(stderr, "dhtsim: %s\n", err.text);
        return 1;
    }
    block_interrupts();
    return command_main(&program, argc, argv, &options);
}
