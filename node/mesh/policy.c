#include "node/mesh/policy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHT_MAX 1000.0
#define CLAIM_LEAST_S 0.001
#define CLAIM_MOST_S 3600.0
#define RTT_LEAST_S 0.0001 /* of others: clocks of this grain have measured 0 on loopback */
#define SCORE_MOST 1e15
#define FAILURE_S 1.0
#define LOAD_FACTOR 3.0 /* a node that is wholly busy is expected to need so much longer, and once the time itself */
#define MIB 1048576.0

static const char *const term_names[POLICY_TERMS] = {"score", "version", "cost", "nearest", "money"};

/* ---- text ---- */

struct policy policy_default(void)
{
    return (struct policy){.weight = {[POLICY_COST] = 1}};
}

/* "0.6*cost": at most so long as is given. */
static int parse_term(const char *text, size_t len, struct policy *policy, struct err *err)
{
    char word[32];
    double weight = 1;
    if (len == 0 || len >= sizeof word)
        return err_set(err, ERR_INVALID, "the policy has a term that is empty or too long");
    memcpy(word, text, len);
    word[len] = '\0';
    char *name = word, *star = strchr(word, '*');
    if (star) {
        *star = '\0';
        name = star + 1;
        size_t digits = strspn(word, "0123456789.");
        char *end;
        weight = strtod(word, &end);
        if (star == word || digits != strlen(word) || *end || !(weight > 0) || weight > WEIGHT_MAX)
            return err_set(err, ERR_INVALID, "the weight '%s' is no number above 0 and up to %.0f", word, WEIGHT_MAX);
    }
    size_t term = 0;
    while (term < POLICY_TERMS && strcmp(name, term_names[term]) != 0)
        term++;
    if (term == POLICY_TERMS)
        return err_set(err, ERR_INVALID, "'%s' is none of score, version, cost, nearest, money", name);
    if (policy->weight[term] > 0)
        return err_set(err, ERR_INVALID, "'%s' is in the policy twice", name);
    policy->weight[term] = weight;
    return 0;
}

int policy_parse(const char *text, struct policy *ret_policy, struct err *err)
{
    struct policy policy = {0};
    double sum = 0;
    for (const char *at = text;; at++) {
        size_t len = strcspn(at, "+");
        int status = parse_term(at, len, &policy, err);
        if (status < 0)
            return status;
        at += len;
        if (!*at)
            break;
    }
    for (size_t i = 0; i < POLICY_TERMS; i++)
        sum += policy.weight[i];
    for (size_t i = 0; i < POLICY_TERMS; i++)
        policy.weight[i] /= sum;
    *ret_policy = policy;
    return 0;
}

const char *policy_text(const struct policy *policy, char text[POLICY_TEXT_SIZE])
{
    size_t used = 0;
    for (size_t i = 0; i < POLICY_TERMS; i++) {
        if (policy->weight[i] >= 1)
            return strcpy(text, term_names[i]);
        if (policy->weight[i] > 0)
            used += (size_t)snprintf(text + used, POLICY_TEXT_SIZE - used, "%s%.6g*%s", used ? "+" : "",
                                     policy->weight[i], term_names[i]);
    }
    return text;
}

enum dht_order policy_order(const struct policy *policy)
{
    static const enum dht_order orders[POLICY_TERMS] = {[POLICY_SCORE] = DHT_BY_SCORE,
                                                        [POLICY_VERSION] = DHT_BY_VERSION,
                                                        [POLICY_COST] = DHT_BY_DISTANCE,
                                                        [POLICY_NEAREST] = DHT_BY_DISTANCE,
                                                        [POLICY_MONEY] = DHT_BY_DISTANCE};
    size_t heaviest = 0;
    for (size_t i = 1; i < POLICY_TERMS; i++)
        if (policy->weight[i] > policy->weight[heaviest])
            heaviest = i;
    return orders[heaviest];
}

/* ---- numbers ---- */

static double clamp(double value, double least, double most)
{
    return value < least ? least : value > most ? most : value;
}

double policy_claim_s(double score)
{
    if (!isfinite(score) || score >= 0)
        return -1;
    return clamp(-score, CLAIM_LEAST_S, CLAIM_MOST_S);
}

static double round_trip_s(const struct policy_candidate *candidate)
{
    double rtt_s = candidate->rtt_s >= 0        ? candidate->rtt_s
                   : candidate->distance_s >= 0 ? candidate->distance_s
                                                : POLICY_RTT_UNKNOWN_S;
    return rtt_s > RTT_LEAST_S ? rtt_s : RTT_LEAST_S;
}

static double transfer_s(const struct policy_candidate *candidate)
{
    double claim_s = policy_claim_s(candidate->score);
    double busy = 1 + LOAD_FACTOR * clamp(candidate->load, 0, 1);
    if (candidate->goodput_bytes_per_s <= 0)
        return busy * (claim_s >= 0 ? claim_s : POLICY_TRANSFER_UNKNOWN_S);
    double measured_s = MIB / candidate->goodput_bytes_per_s;
    if (candidate->received_bytes >= POLICY_PROVED_BYTES)
        return measured_s;
    return busy * fmax(measured_s, claim_s);
}

static double cost_s(const struct policy_candidate *candidate)
{
    return round_trip_s(candidate) + transfer_s(candidate) + FAILURE_S * candidate->failures;
}

static double score_of(const struct policy_candidate *candidate)
{
    return isnan(candidate->score) ? -SCORE_MOST : clamp(candidate->score, -SCORE_MOST, SCORE_MOST);
}

/* What the terms of one candidate are measured against. */
struct scale {
    double lowest_score, highest_score;
    double lowest_cost_s;
    double shortest_s;
    uint32_t lowest_price;
    size_t versions; /* different ones */
};

/* How many different versions among the candidates are below this one. A version counts where it stands first. */
static size_t versions_below(const struct policy_candidate *all, size_t count, const struct dht_version *version)
{
    size_t below = 0;
    for (size_t i = 0; i < count; i++) {
        bool first = !version || dht_version_compare(&all[i].version, version) < 0;
        for (size_t j = 0; j < i && first; j++)
            first = dht_version_compare(&all[j].version, &all[i].version) != 0;
        below += first;
    }
    return below;
}

static struct scale scale_of(const struct policy_candidate *all, size_t count)
{
    struct scale scale = {.lowest_score = INFINITY,
                          .highest_score = -INFINITY,
                          .lowest_cost_s = INFINITY,
                          .shortest_s = INFINITY,
                          .lowest_price = UINT32_MAX,
                          .versions = versions_below(all, count, NULL)};
    for (size_t i = 0; i < count; i++) {
        scale.lowest_score = fmin(scale.lowest_score, score_of(&all[i]));
        scale.highest_score = fmax(scale.highest_score, score_of(&all[i]));
        scale.lowest_cost_s = fmin(scale.lowest_cost_s, all[i].cost_s);
        scale.shortest_s = fmin(scale.shortest_s, round_trip_s(&all[i]));
        if (all[i].price < scale.lowest_price)
            scale.lowest_price = all[i].price;
    }
    return scale;
}

static double value_of(const struct policy *policy, const struct scale *scale, const struct policy_candidate *all,
                       size_t count, const struct policy_candidate *one)
{
    double range = scale->highest_score - scale->lowest_score;
    double terms[POLICY_TERMS] = {
        [POLICY_SCORE] = range > 0 ? (score_of(one) - scale->lowest_score) / range : 1,
        [POLICY_VERSION] =
            scale->versions > 1 ? (double)versions_below(all, count, &one->version) / (double)(scale->versions - 1) : 1,
        [POLICY_COST] = scale->lowest_cost_s / one->cost_s,
        [POLICY_NEAREST] = scale->shortest_s / round_trip_s(one),
        [POLICY_MONEY] = one->price == scale->lowest_price ? 1 : (double)scale->lowest_price / one->price,
    };
    double value = 0;
    for (size_t i = 0; i < POLICY_TERMS; i++)
        value += policy->weight[i] * terms[i];
    return value;
}

static int by_value(const void *a, const void *b)
{
    const struct policy_candidate *one = a, *other = b;
    if (one->value != other->value)
        return one->value > other->value ? -1 : 1;
    if (one->cost_s != other->cost_s)
        return one->cost_s < other->cost_s ? -1 : 1;
    return id_compare(&one->node, &other->node);
}

void policy_rank(const struct policy *policy, struct policy_candidate *candidates, size_t count)
{
    for (size_t i = 0; i < count; i++)
        candidates[i].cost_s = cost_s(&candidates[i]);
    struct scale scale = scale_of(candidates, count);
    for (size_t i = 0; i < count; i++)
        candidates[i].value = value_of(policy, &scale, candidates, count, &candidates[i]);
    qsort(candidates, count, sizeof *candidates, by_value);
}
