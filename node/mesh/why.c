#include "node/mesh/why.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/scope.h"

#define CANDIDATES_MAX 64
#define KEY_SHOWN_SIZE 600

struct why_question {
    TAILQ_ENTRY(why_question)
    entry;
    struct whys *whys; /* borrowed */
    struct policy policy;
    char text[KEY_SHOWN_SIZE];
    bool here_is_enough; /* an object is the same wherever it is */
    uint64_t request;    /* the DHT's */
    content_why_cb done;
    void *ctx;
};

/* JSON has no infinities. */
static double json_number_of(double number)
{
    return number > DBL_MAX ? DBL_MAX : number < -DBL_MAX ? -DBL_MAX : number;
}

static json_t *real_or_null(double number, bool known)
{
    return known ? json_real(json_number_of(number)) : json_null();
}

static json_t *measured_of(const struct policy_candidate *candidate)
{
    if (candidate->rtt_s < 0)
        return json_null();
    return json_pack("{s:f, s:I, s:I, s:i, s:f, s:f}", "rtt_ms", candidate->rtt_s * 1000, "goodput_bytes_per_s",
                     (json_int_t)candidate->goodput_bytes_per_s, "received_bytes",
                     (json_int_t)candidate->received_bytes, "failures", (int)candidate->failures, "load",
                     candidate->load, "price", candidate->price / 1000.0);
}

static const char *reason_of(const struct policy_candidate *candidate, size_t rank)
{
    if (rank == 1)
        return "the highest value by this policy";
    return candidate->rtt_s < 0 ? "a lower value; not connected, so nothing was measured"
                                : "a lower value than the chosen one";
}

static json_t *candidate_json(const struct why_question *why, const struct policy_candidate *candidate, size_t rank,
                              bool chosen)
{
    char id[ID_HEX_SIZE];
    double claim_s = policy_claim_s(candidate->score);
    return json_pack("{s:I, s:s, s:s, s:f, s:I, s:I, s:o, s:o, s:o, s:f, s:f, s:b, s:s}", "rank", (json_int_t)rank,
                     "node", id_hex(&candidate->node, id), "name", mesh_name_of(why->whys->mesh, &candidate->node),
                     "score", json_number_of(candidate->score), "epoch", (json_int_t)candidate->version.epoch,
                     "counter", (json_int_t)candidate->version.counter, "claimed_cost",
                     real_or_null(claim_s, claim_s >= 0), "expected_rtt_ms",
                     real_or_null(candidate->distance_s * 1000, candidate->distance_s >= 0), "measured",
                     measured_of(candidate), "cost", candidate->cost_s, "value", candidate->value, "chosen",
                     (int)chosen, "reason", reason_of(candidate, rank));
}

/* Of what is here nothing is to be decided. */
static json_t *own_json(const struct why_question *why, const struct dht_record *record)
{
    char id[ID_HEX_SIZE];
    return json_pack("{s:i, s:s, s:s, s:f, s:I, s:I, s:n, s:n, s:n, s:f, s:f, s:b, s:s}", "rank", 0, "node",
                     id_hex(&record->member, id), "name", mesh_name_of(why->whys->mesh, &record->member), "score",
                     json_number_of(record->score), "epoch", (json_int_t)record->version.epoch, "counter",
                     (json_int_t)record->version.counter, "claimed_cost", "expected_rtt_ms", "measured", "cost", 0.0,
                     "value", 1.0, "chosen", (int)why->here_is_enough, "reason", "it is here already");
}

static void on_found(void *ctx, const struct dht_found *found, size_t count)
{
    OWNED(owned_free) struct why_question *why = ctx;
    struct whys *whys = why->whys;
    char text[POLICY_TEXT_SIZE];
    bool here = false;
    json_t *candidates = json_array();
    struct policy_candidate ranked[CANDIDATES_MAX];
    TAILQ_REMOVE(&whys->open, why, entry);
    for (size_t i = 0; i < count; i++)
        if (id_equal(&found[i].record.member, mesh_self(whys->mesh))) {
            json_array_append_new(candidates, own_json(why, &found[i].record));
            here = why->here_is_enough;
        }
    size_t others = providers_rank(whys->content, whys->mesh, &why->policy, found, count, ranked);
    for (size_t i = 0; i < others; i++)
        json_array_append_new(candidates, candidate_json(why, &ranked[i], i + 1, i == 0 && !here));
    why->done(why->ctx, json_pack("{s:s, s:s, s:o}", "key", why->text, "policy", policy_text(&why->policy, text),
                                  "candidates", candidates));
}

void whys_init(struct whys *whys, const struct content *content)
{
    *whys = (struct whys){.content = content};
    TAILQ_INIT(&whys->open);
}

void whys_ask(struct whys *whys, uint64_t now_ms, const char *text, const struct provider_key *key,
              const struct policy *policy, content_why_cb done, void *ctx)
{
    struct dht_get_options options = {.limit = CANDIDATES_MAX, .order = policy_order(policy), .want_lease = true};
    struct why_question *why = malloc(sizeof *why);
    if (!why)
        abort(); /* the contract is one callback */
    *why = (struct why_question){
        .whys = whys, .policy = *policy, .here_is_enough = key->kind == DHT_OBJECT, .done = done, .ctx = ctx};
    strncat(why->text, text, sizeof why->text - 1);
    TAILQ_INSERT_TAIL(&whys->open, why, entry);
    if (dht_get(mesh_dht(whys->mesh), now_ms, &key->key, &options, on_found, why, &why->request, NULL) < 0)
        on_found(why, NULL, 0);
    mesh_dht_changed(whys->mesh);
}

void whys_close(struct whys *whys)
{
    struct why_question *why;
    while ((why = TAILQ_FIRST(&whys->open))) {
        dht_cancel(mesh_dht(whys->mesh), why->request);
        on_found(why, NULL, 0);
    }
}
