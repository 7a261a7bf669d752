#include "tools/dhtsim/report.h"

#include "tools/sim/memory.h"

void report_run(struct report *report, const struct world *world)
{
    double ran_s = (double)world->ran_ms / 1000;
    double resident = (double)memory_resident();
    report_note(report, "%zu nodes: %.1f virtual s, %llu packets sent, %llu arrived, %.0f packets/s of real time",
                world->count, (double)world->now_us / 1e6, (unsigned long long)world->sent,
                (unsigned long long)world->arrived, ran_s > 0 ? (double)world->arrived / ran_s : 0);
    report_note(report, "%zu nodes: %.0f MiB in memory, %.0f bytes a node", world->count, resident / (1 << 20),
                resident / (double)world->count);
    report_note(report, "%zu nodes: seed %llu, events %llu, hash %016llx", world->count,
                (unsigned long long)world->options->seed, (unsigned long long)world->events,
                (unsigned long long)world->hash);
    if (world->stopped)
        report_note(report, "stopped by the user: what there was until then");
}
