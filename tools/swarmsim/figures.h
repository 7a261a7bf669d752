/*
 * What a run is measured by: how long the receivers took against size / rate, what the seed sent, what was wasted.
 */
#pragma once

#include "tools/sim/report.h"
#include "tools/swarmsim/swarm.h"

#define FIGURES_COLUMNS                                                                                                \
    "done failed p50_x p99_x last_x seed_copies wasted_% duplicate_% control_% chunk_messages other_messages up_%"

struct figures {
    size_t done;
    size_t failed; /* or not done at the end */
    double median_s;
    double median_x, p99_x, last_x; /* times the ideal */
    double seed_copies;
    double wasted_percent;    /* bytes of chunks that were sent and not needed, of those that were */
    double duplicate_percent; /* bytes that came twice, of those that were wanted */
    double control_percent;   /* bytes on the wire that are not chunks, of all */
    double other_per_chunk;   /* messages that are not chunks, per chunk */
    double up_percent;        /* of what the uplinks could carry until the last was done */
};

/* Of the demands of this group, or of all. */
#define FIGURES_ALL 255
void figures_take(struct swarm *swarm, uint8_t group, struct figures *ret_figures);
/* The cells of FIGURES_COLUMNS. */
void figures_report(const struct figures *figures, const struct swarm *swarm, struct report *report);
/* What they say of the whole swarm, in words, where a table has only groups. */
void figures_note(struct report *report, struct swarm *swarm);
/* Who was done when, and how much of the uplinks was in use: directory/name.svg. Nothing if the directory is NULL. */
void figures_plot(const struct swarm *swarm, const char *directory, const char *name);
/* What the run was, below the table. */
void figures_note_run(struct report *report, const struct swarm *swarm);
