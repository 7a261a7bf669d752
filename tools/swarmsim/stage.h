/*
 * What the scenarios share: swarms of one seed and receivers, trouble for some of them, and rows of a report.
 */
#pragma once

#include "tools/sim/report.h"
#include "tools/swarmsim/figures.h"
#include "tools/swarmsim/options.h"
#include "tools/swarmsim/swarm.h"

#define STAGE_SEED 0u /* the number of the node that has all */

uint64_t stage_bytes_per_s(uint64_t mbit_per_s);
/* The least time in which all could have it, whoever sends what to whom: the seed has to send it once, the slowest has
 * to receive it, and all uplinks together carry as many copies as there are receivers (Kumar and Ross, Peer-assisted
 * file distribution, HotWeb 2006). */
uint64_t stage_ideal_us(const struct swarm *swarm, uint64_t size_bytes, uint32_t first, uint32_t n_receivers);
/* A seed, receivers 1 to n_receivers, others after them; the seed has all of the objects. */
void stage_init(struct swarm *swarm, const struct options *options, uint32_t n_receivers, uint32_t n_others,
                uint32_t n_objects, const uint64_t *sizes_bytes);
/* Things go wrong between a tenth and a half of that time: receivers die, fall silent, are cut off; others lie. */
void stage_trouble(struct swarm *swarm, uint32_t n_receivers, uint64_t ideal_us);
/* Kill the node at that time; nobody waits for it any more. */
void stage_kill_at(struct swarm *swarm, uint32_t node, uint64_t at_us);
