/*
 * The scenarios: each builds its swarms, lets them run and reports. They return the program's exit code.
 */
#pragma once

#include "tools/swarmsim/options.h"

int scenario_crowd(const struct options *options);
int scenario_faults(const struct options *options);
int scenario_arrivals(const struct options *options);
int scenario_mixed(const struct options *options);
int scenario_classes(const struct options *options);
int scenario_churn(const struct options *options);
