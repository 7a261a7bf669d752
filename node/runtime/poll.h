/*
 * Noticing the end of containers.
 */
#pragma once

#include "node/runtime/table.h"

/* Of a taken entry: if its first process has ended, reap it where it is our child, and set *ret_exit_code (as in
 * runtime_container). True then; false if it lives or none is known. */
bool runtime_poll_collect(struct runtime *runtime, struct runtime_entry *entry, int *ret_exit_code);

/* The same after waiting for it up to timeout_ms. */
bool runtime_poll_wait(struct runtime *runtime, struct runtime_entry *entry, uint64_t timeout_ms, int *ret_exit_code);
