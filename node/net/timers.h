/*
 * One-shot timers that nobody has to own: call back once, later, unless all are closed before.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "node/base/err.h"

struct timers;

int timers_new(uv_loop_t *loop, struct timers **ret_timers, struct err *err);
/* Call back after delay_ms, never from inside. ERR_NOMEM ends the process: a forgotten deadline would be worse. */
void timers_after(struct timers *timers, uint64_t delay_ms, void (*cb)(void *ctx), void *ctx);
/* No callback comes after this; run the loop until timers_closed, then free. */
void timers_close(struct timers *timers);
bool timers_closed(const struct timers *timers);
void timers_free(struct timers *timers);
