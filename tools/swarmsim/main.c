/* swarmsim: the daemon's own exchange with thousands of nodes in one process, on a virtual network and clock. */
#include <signal.h>
#include <stdio.h>

#include "node/base/crypto.h"
#include "tools/swarmsim/options.h"
#include "tools/swarmsim/scenario.h"

static const struct command commands[] = {
    {"crowd", "one seed, and everybody wants the same at once", " receivers size", "",
     "swarmsim crowd --receivers 10000 --size 1024 --plots plots", scenario_crowd},
};

static const char intro[] =
    "The daemon's own exchange of objects, many nodes in one process, on a virtual network and clock. The same flags\n"
    "and seed give the same run; the hash at the end says so. Ctrl-C prints what there is until then.";

int main(int argc, char **argv)
{
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
