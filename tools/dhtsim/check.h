/*
 * Invariants that hold in every mesh at any time, looked at from outside:
 *
 * 1. Who is in a node's tables has answered it (or was there from the start).
 * 2. No node holds more records than it may.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct node;
struct world;

struct check;

/* NULL for worlds too large for a bit for each pair: then nothing is noted. */
struct check *check_new(size_t nodes);
void check_free(struct check *check);

/* `from` has answered `to`. */
void check_answered(struct check *check, uint32_t to, uint32_t from);
/* Somebody new has the number. */
void check_forget(struct check *check, uint32_t number);
/* Look at all living nodes; what is broken is told on standard error, the first few times. The number of breaches. */
uint64_t check_look(struct world *world);
