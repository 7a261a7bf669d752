/*
 * What a run was, below the table of its report.
 */
#pragma once

#include "tools/dhtsim/world.h"
#include "tools/sim/report.h"

/* Events, rate, memory, and the hash. */
void report_run(struct report *report, const struct world *world);
