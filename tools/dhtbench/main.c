/* dhtbench: what the DHT of so many nodes over loopback costs and how long it takes. Figures go to standard output as
 * one JSON object, what is going on to standard error. tools/bench dht runs it beside others. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/log.h"
#include "tools/dhtbench/bench.h"

static const char usage[] =
    "usage: dhtbench [--nodes N] [--threads N] [--idle SECONDS] [--ops N] [--many N] [--phases LIST] [--memory]\n"
    "\n"
    "  --nodes N       nodes over loopback UDP, in this process (50)\n"
    "  --threads N     loops that they are dealt out to (2)\n"
    "  --idle SECONDS  how long the idle cost is measured (60)\n"
    "  --ops N         operations one at a time (1000)\n"
    "  --many N        operations 32 at a time (20000)\n"
    "  --phases LIST   of idle,values,set1000,set10000,watch,kill (all)\n"
    "  --memory        records in memory alone, without a store\n";

struct options {
    struct fleet_options fleet;
    struct bench bench;
    const char *phases;
};

static bool parse(int argc, char **argv, struct options *options)
{
    static const struct option flags[] = {{"nodes", required_argument, NULL, 'n'},
                                          {"threads", required_argument, NULL, 't'},
                                          {"idle", required_argument, NULL, 'i'},
                                          {"ops", required_argument, NULL, 'o'},
                                          {"many", required_argument, NULL, 'm'},
                                          {"phases", required_argument, NULL, 'p'},
                                          {"memory", no_argument, NULL, 'M'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    for (int flag; (flag = getopt_long(argc, argv, "", flags, NULL)) != -1;) {
        unsigned long number = optarg ? strtoul(optarg, NULL, 10) : 0;
        switch (flag) {
        case 'n':
            options->fleet.nodes = (unsigned)number;
            break;
        case 't':
            options->fleet.workers = (unsigned)number;
            break;
        case 'i':
            options->bench.idle_s = (unsigned)number;
            break;
        case 'o':
            options->bench.ops = number;
            break;
        case 'm':
            options->bench.many = number;
            break;
        case 'p':
            options->phases = optarg;
            break;
        case 'M':
            options->fleet.on_disk = false;
            break;
        default:
            return false;
        }
    }
    return optind == argc && options->bench.ops > 0 && options->bench.many > 0;
}

static bool wants(const char *phases, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = phases; (at = strstr(at, name)); at += len)
        if ((at == phases || at[-1] == ',') && (at[len] == ',' || at[len] == '\0'))
            return true;
    return false;
}

/* Two nodes that come and go, so that the libraries' code is in memory before that of the nodes is measured. */
static void warm_up(const struct fleet_options *options)
{
    struct err err = {0};
    struct fleet *fleet;
    struct fleet_options two = *options;
    two.nodes = 2;
    two.workers = options->workers < 2 ? options->workers : 2;
    if (fleet_new(&two, &fleet, &err) < 0)
        fleet_die("cannot start", &err);
    fleet_start(fleet);
    for (int i = 0; i < 100 && fleet_ready(fleet, 1) < 2; i++)
        usleep(20000);
    fleet_free(fleet);
}

static void measure(struct bench *bench, const char *phases)
{
    bench_say("%u nodes start", bench->fleet->options.nodes);
    bench_boot(bench);
    if (wants(phases, "idle"))
        bench_idle(bench);
    if (wants(phases, "values"))
        bench_values(bench);
    if (wants(phases, "set1000"))
        bench_set(bench, 1000);
    if (wants(phases, "set10000"))
        bench_set(bench, 10000);
    if (wants(phases, "watch"))
        bench_watch(bench);
    if (wants(phases, "kill"))
        bench_kill(bench);
}

int main(int argc, char **argv)
{
    struct options options = {.fleet = {.nodes = 50, .workers = 2, .on_disk = true},
                              .bench = {.idle_s = 60, .ops = 1000, .many = 20000},
                              .phases = "idle,values,set1000,set10000,watch,kill"};
    struct err err = {0};
    if (!parse(argc, argv, &options)) {
        fputs(usage, stderr);
        return 2;
    }
    if (crypto_init(&err) < 0)
        fleet_die("cannot start", &err);
    signal(SIGPIPE, SIG_IGN);
    log_set_level(LOG_WARN);
    const char *tmp = getenv("TMPDIR");
    OWNED(owned_free) char *dir = file_path("%s/dhtbench-XXXXXX", tmp ? tmp : "/tmp");
    if (!dir || !mkdtemp(dir))
        fleet_die("no temporary directory", NULL);
    options.fleet.dir = dir;
    warm_up(&options.fleet);
    options.bench.memory_before = counters_memory();
    if (fleet_new(&options.fleet, &options.bench.fleet, &err) < 0)
        fleet_die("cannot start", &err);
    measure(&options.bench, options.phases);
    fleet_free(options.bench.fleet);
    file_remove_tree(dir, NULL);
    bench_print(&options.bench);
    return 0;
}
