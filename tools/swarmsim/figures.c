#include "tools/swarmsim/figures.h"

#include <stdio.h>

#include "tools/sim/memory.h"
#include "tools/sim/plot.h"
#include "tools/sim/sample.h"
#include "tools/swarmsim/node.h"
#include "transfer/message.h"

static double percent(double part, double whole)
{
    return whole > 0 ? 100 * part / whole : 0;
}

static double could_send(const struct swarm *swarm, uint64_t until_us)
{
    double sum = 0;
    for (uint32_t i = 0; i < swarm->n_nodes; i++)
        sum += (double)swarm->nodes[i].wires.up_bytes_per_s * (double)until_us / 1e6;
    return sum;
}

static uint64_t all_messages(const struct swarm *swarm)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < 256; i++)
        sum += swarm->tally.messages[i];
    return sum;
}

void figures_take(struct swarm *swarm, uint8_t group, struct figures *ret_figures)
{
    struct figures figures = {0};
    struct sample times_us = {0};
    struct sample times = {0}; /* millionths of the ideal */
    uint64_t wanted = 0;
    uint64_t duplicate = 0;
    uint64_t needed = 0;
    for (size_t i = 0; i < swarm->n_demands; i++) {
        const struct demand *demand = &swarm->demands[i];
        if (demand->excused || (group != FIGURES_ALL && demand->group != group))
            continue;
        wanted += swarm->catalogue.objects[demand->object].size_bytes;
        duplicate += demand->duplicate_bytes;
        uint64_t took_us = demand->end_us - demand->start_us;
        if (demand->end_us == 0 || demand->status < 0) {
            figures.failed++;
            continue;
        }
        needed += swarm->catalogue.objects[demand->object].size_bytes;
        sample_add(&times_us, took_us);
        sample_add(&times, took_us * 1000000 / demand->ideal_us);
    }
    const struct tally *tally = &swarm->tally;
    figures.done = times.count;
    figures.median_s = (double)sample_permille(&times_us, 500) / 1e6;
    figures.median_x = (double)sample_permille(&times, 500) / 1e6;
    figures.p99_x = (double)sample_permille(&times, 990) / 1e6;
    figures.last_x = (double)sample_permille(&times, 1000) / 1e6;
    figures.seed_copies = (double)tally->seed_bytes / (double)swarm->catalogue.objects[0].size_bytes;
    figures.wasted_percent = percent((double)tally->chunk_bytes - (double)needed, (double)needed);
    figures.duplicate_percent = percent((double)duplicate, (double)wanted);
    figures.control_percent = percent((double)(tally->wire_bytes - tally->chunk_bytes), (double)tally->wire_bytes);
    figures.other_per_chunk = (double)(all_messages(swarm) - tally->messages[MESSAGE_CHUNK]) /
                              (double)(tally->messages[MESSAGE_CHUNK] ? tally->messages[MESSAGE_CHUNK] : 1);
    figures.up_percent = percent((double)tally->wire_bytes, could_send(swarm, swarm->now_us - SWARM_START_US));
    sample_release(&times);
    sample_release(&times_us);
    *ret_figures = figures;
}

void figures_report(const struct figures *figures, const struct swarm *swarm, struct report *report)
{
    report_count(report, figures->done);
    report_count(report, figures->failed);
    report_number(report, figures->median_x, 3);
    report_number(report, figures->p99_x, 3);
    report_number(report, figures->last_x, 3);
    report_number(report, figures->seed_copies, 2);
    report_number(report, figures->wasted_percent, 2);
    report_number(report, figures->duplicate_percent, 2);
    report_number(report, figures->control_percent, 2);
    report_count(report, swarm->tally.messages[MESSAGE_CHUNK]);
    report_number(report, figures->other_per_chunk, 2);
    report_number(report, figures->up_percent, 1);
}

static void note_messages(struct report *report, const struct swarm *swarm)
{
    char text[512] = "";
    size_t at = 0;
    for (unsigned type = 0; type < 256; type++) {
        if (swarm->tally.messages[type] > 0 && at < sizeof text)
            at += (size_t)snprintf(text + at, sizeof text - at, " %s %llu", transfer_message_name((uint8_t)type),
                                   (unsigned long long)swarm->tally.messages[type]);
    }
    report_note(report, "%u nodes: messages:%s", swarm->n_nodes, text);
}

void figures_note(struct report *report, struct swarm *swarm)
{
    struct figures figures;
    figures_take(swarm, FIGURES_ALL, &figures);
    report_note(report,
                "%u nodes: the seed sent %.2f copies; %.2f %% came twice; %.2f other messages per chunk; %.1f %% of "
                "the uplinks in use",
                swarm->n_nodes, figures.seed_copies, figures.duplicate_percent, figures.other_per_chunk,
                figures.up_percent);
}

void figures_plot(const struct swarm *swarm, const char *directory, const char *name)
{
    struct plot plot = {.title = "Receivers that have all, and uplinks in use",
                        .x_label = "virtual s",
                        .y_label = "%",
                        .from_zero = true};
    struct sample ends = {0};
    size_t done = plot_line(&plot, "have all");
    size_t up = plot_line(&plot, "uplinks in use");
    size_t n_slots = (swarm->now_us - SWARM_START_US) / SWARM_SLOT_US;
    size_t step = n_slots / PLOT_POINTS + 1;
    double could = could_send(swarm, SWARM_SLOT_US) * (double)step;
    for (size_t i = 0; i < swarm->n_demands; i++) {
        if (swarm->demands[i].end_us > 0)
            sample_add(&ends, swarm->demands[i].end_us - SWARM_START_US);
    }
    for (size_t slot = 0; slot + step <= n_slots && slot + step <= swarm->sent_cap; slot += step) {
        uint64_t end_us = (slot + step) * SWARM_SLOT_US;
        double sent = 0;
        for (size_t i = slot; i < slot + step; i++)
            sent += (double)swarm->sent_in[i];
        plot_add(&plot, up, (double)end_us / 1e6, percent(sent, could));
        plot_add(&plot, done, (double)end_us / 1e6,
                 percent((double)sample_up_to(&ends, end_us), (double)swarm->n_demands));
    }
    sample_release(&ends);
    plot_write(&plot, directory, name);
}

void figures_note_run(struct report *report, const struct swarm *swarm)
{
    double ran_s = (double)swarm->ran_ms / 1000;
    note_messages(report, swarm);
    if (swarm->tally.refused > 0 || swarm->tally.liars_named > 0 || swarm->tally.protocol_errors > 0)
        report_note(report, "%u nodes: %llu sessions refused, %llu times a liar was named, %llu protocol errors",
                    swarm->n_nodes, (unsigned long long)swarm->tally.refused,
                    (unsigned long long)swarm->tally.liars_named, (unsigned long long)swarm->tally.protocol_errors);
    report_note(report, "%u nodes: %.2f virtual s in %.1f s, %.0f MiB in memory, %llu ticks", swarm->n_nodes,
                (double)(swarm->now_us - SWARM_START_US) / 1e6, ran_s, (double)memory_resident() / (1 << 20),
                (unsigned long long)swarm->tally.ticks);
    report_note(report, "%u nodes: seed %llu, events %llu, hash %016llx", swarm->n_nodes,
                (unsigned long long)swarm->options->seed, (unsigned long long)swarm->events,
                (unsigned long long)swarm->hash);
    if (swarm->stopped)
        report_note(report, "stopped by the user: what there was until then");
}
