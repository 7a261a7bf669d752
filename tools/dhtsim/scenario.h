/*
 * The scenarios: each builds its worlds, lets things happen and reports. They return the program's exit code.
 */
#pragma once

#include "tools/dhtsim/options.h"

int scenario_hops(const struct options *options);
int scenario_fail(const struct options *options);
int scenario_churn(const struct options *options);
int scenario_idle(const struct options *options);
int scenario_load(const struct options *options);
int scenario_partition(const struct options *options);
int scenario_liars(const struct options *options);
int scenario_memory(const struct options *options);
