/*
 * Policies: which of several nodes that have something it is to be got from. A policy is a weighted sum of terms,
 *
 *   "cost"   "0.6*cost+0.3*score+0.1*version"   "nearest"   "score"   "version"
 *
 * and says of each candidate a value, the highest of which is chosen. Pure functions over an array: no clock, no
 * network, so that what was decided can be shown (`cmig why`).
 *
 * Each term is a number from 0 to 1, 1 for the best of the candidates:
 *   score    (score - lowest) / (highest - lowest), scores beyond +-1e15 counting as that
 *   version  the number of different versions below it / the number of different versions but one
 *   cost     lowest cost / cost: half for one that costs twice as much
 *   nearest  shortest round trip / round trip, likewise
 *   money    lowest price / price, as the nodes say it (0 for what has a price where something is free)
 * and 1 for all where all are equal. The weights are scaled to a sum of 1.
 *
 * The cost is the seconds that a MiB is expected to take: a round trip, the transfer, and a second for each failure so
 * far. What was measured counts before what is claimed:
 *   round trip   measured on the link; else the distance of the coordinates; else POLICY_RTT_UNKNOWN_S
 *   transfer     by the measured goodput; until POLICY_PROVED_BYTES have come from the node, as slow as it claims if
 *                that is slower; with nothing measured as it claims, else POLICY_TRANSFER_UNKNOWN_S; up to four times
 * as long for a node that says that it is busy, until POLICY_PROVED_BYTES have come: after that its goodput tells A
 * claim is a score below zero: score = -cost. It counts from 0.001 s to an hour; what is not finite or not below zero
 * claims nothing. Nobody costs nothing: a round trip takes at least 0.1 ms.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dht/dht.h"

#define POLICY_TEXT_SIZE 128
#define POLICY_RTT_UNKNOWN_S 0.5
#define POLICY_TRANSFER_UNKNOWN_S 1.0
#define POLICY_PROVED_BYTES (1u << 20)

enum policy_term { POLICY_SCORE, POLICY_VERSION, POLICY_COST, POLICY_NEAREST, POLICY_MONEY, POLICY_TERMS };

struct policy {
    double weight[POLICY_TERMS]; /* >= 0, the sum 1 */
};

/* Decide by cost alone. */
struct policy policy_default(void);
/* ERR_INVALID with a text for the user. Weights are decimal numbers up to 1000; each term may be named once. */
int policy_parse(const char *text, struct policy *ret_policy, struct err *err);
/* The policy as policy_parse reads it; returns `text`. */
const char *policy_text(const struct policy *policy, char text[POLICY_TEXT_SIZE]);
/* In which order the DHT is to be read, so that the first few are likely to hold the best. */
enum dht_order policy_order(const struct policy *policy);

/* One node, another than ourselves, that has it. Times are in seconds; negative: not known. */
struct policy_candidate {
    struct id node;
    double score;
    struct dht_version version;
    double rtt_s;               /* measured */
    double distance_s;          /* by network coordinates */
    double goodput_bytes_per_s; /* measured; 0: not yet */
    uint64_t received_bytes;    /* from it */
    unsigned failures;
    double load;    /* 0 to 1: how busy it says that it is */
    uint32_t price; /* of a GiB, as it says, in thousandths */
    size_t index;   /* the caller's, to find again what this is about */
    /* filled in by policy_rank */
    double cost_s;
    double value; /* 0 to 1 */
};

/* Fill in cost and value, and sort: the best first; of equal ones the cheaper, then the one with the lower id. */
void policy_rank(const struct policy *policy, struct policy_candidate *candidates, size_t count);
/* What the score claims that a MiB takes, as it counts; negative: nothing. */
double policy_claim_s(double score);
