/*
 * What CRIU is told beyond its engine's arguments, and what it says when it fails.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "node/base/err.h"

/* In the bundle; the container's annotation "org.criu.config" names it, so that no other file is read for it. The
 * engine remembers the annotation for the container's life and reads the same file at dumps and restores, hence it is
 * written anew before each. */
#define CRIU_CONFIG_NAME "criu.conf"
/* In the bundle, 0700: CRIU's logs of the last operation. */
#define CRIU_WORK_NAME "criu"

enum criu_operation { CRIU_DUMP, CRIU_RESTORE };

/* Write the configuration and empty the work directory. */
int runtime_criu_prepare(const char *bundle, enum criu_operation operation, struct err *err);

/* Append to the text of a set error what CRIU's log of the bundle's last operation names as errors, towards its end,
 * and where the whole log is. */
void runtime_criu_explain(const char *bundle, enum criu_operation operation, struct err *err);
