/* Commands that change one sorted set. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/gateway/command.h"

/* ---- ZADD and ZINCRBY ---- */

struct add {
    bool nx, xx, gt, lt, changed, increment;
    size_t first; /* args from here on are pairs of score and member */
    size_t pairs;
    size_t added, updated;
    bool done; /* the last pair was not passed over */
    double score;
};

static bool parse_flag(const struct resp_arg *arg, struct add *add)
{
    const struct {
        const char *word;
        bool *flag;
    } flags[] = {{"NX", &add->nx}, {"XX", &add->xx},      {"GT", &add->gt},
                 {"LT", &add->lt}, {"CH", &add->changed}, {"INCR", &add->increment}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (command_is(arg, flags[i].word)) {
            *flags[i].flag = true;
            return true;
        }
    }
    return false;
}

static bool parse_add(struct call *call, struct add *add)
{
    while (add->first < call->count && parse_flag(&call->args[add->first], add))
        add->first++;
    size_t words = call->count - add->first;
    add->pairs = words / 2;
    if (words == 0 || words % 2 != 0) {
        command_syntax_error(call);
        return false;
    }
    const char *why = NULL;
    if (add->nx && add->xx)
        why = "XX and NX options at the same time are not compatible";
    else if ((add->gt && add->nx) || (add->lt && add->nx) || (add->gt && add->lt))
        why = "GT, LT, and/or NX options at the same time are not compatible";
    else if (add->increment && add->pairs > 1)
        why = "INCR option supports a single increment-element pair";
    if (why)
        resp_put_error(call->out, "ERR %s", why);
    return why == NULL;
}

/* All pairs are checked before one is added. */
static bool check_pairs(struct call *call, const struct add *add)
{
    double score;
    for (size_t i = add->first; i < call->count; i += 2) {
        if (!resp_parse_score(&call->args[i], &score)) {
            resp_put(call->out, "-ERR value is not a valid float\r\n");
            return false;
        }
    }
    for (size_t i = add->first + 1; i < call->count; i += 2) {
        if (call->args[i].len == 0 || call->args[i].len > LIMIT_SET_MEMBER_BYTES) {
            resp_put_error(call->out, "ERR a member has 1 to %d bytes", LIMIT_SET_MEMBER_BYTES);
            return false;
        }
    }
    return true;
}

/* One pair. False: replied with an error. */
static bool add_pair(struct call *call, struct add *add, const struct resp_arg *score_arg, const struct resp_arg *name)
{
    const struct set_member *member = set_find(call->set, name->data, name->len);
    double score = 0;
    resp_parse_score(score_arg, &score);
    add->done = false;
    if (member ? add->nx : add->xx)
        return true;
    if (member && add->increment)
        score += member->score;
    if (isnan(score)) {
        resp_put(call->out, "-ERR resulting score is not a number (NaN)\r\n");
        return false;
    }
    if (member && ((add->lt && score >= member->score) || (add->gt && score <= member->score)))
        return true;
    add->done = true;
    add->score = score;
    score += 0.0; /* -0 is kept as 0, as in the small sets of Redis */
    if (member && score == member->score)
        return true;
    struct err err;
    bool there = member != NULL;
    if (sets_put(call->sets, call->set, name->data, name->len, score, &err) < 0) {
        command_failed(call, &err);
        return false;
    }
    add->added += !there;
    add->updated += there;
    return true;
}

static void run_add(struct call *call, struct add *add)
{
    if (!check_pairs(call, add))
        return;
    for (size_t i = add->first; i < call->count; i += 2)
        if (!add_pair(call, add, &call->args[i], &call->args[i + 1]))
            return;
    if (!add->increment)
        resp_put_integer(call->out, (int64_t)(add->changed ? add->added + add->updated : add->added));
    else if (add->done)
        resp_put_score(call->out, add->score);
    else
        resp_put(call->out, RESP_NIL);
}

void command_zadd(struct call *call)
{
    struct add add = {.first = 2};
    if (parse_add(call, &add))
        run_add(call, &add);
}

void command_zincrby(struct call *call)
{
    struct add add = {.first = 2, .pairs = 1, .increment = true};
    run_add(call, &add);
}

/* ---- removing ---- */

void command_zrem(struct call *call)
{
    int64_t removed = 0;
    for (size_t i = 2; i < call->count; i++) {
        struct err err;
        struct set_member *member = set_find(call->set, call->args[i].data, call->args[i].len);
        if (!member)
            continue;
        if (sets_remove(call->sets, call->set, member, &err) < 0) {
            command_failed(call, &err);
            return;
        }
        removed++;
    }
    resp_put_integer(call->out, removed);
}

static void remove_range(struct call *call, const struct set_range *range)
{
    size_t count = range->end - range->begin;
    for (size_t i = 0; i < count; i++) {
        struct err err;
        if (sets_remove(call->sets, call->set, set_at(call->set, range->begin), &err) < 0) {
            command_failed(call, &err);
            return;
        }
    }
    resp_put_integer(call->out, (int64_t)count);
}

void command_zremrangebyrank(struct call *call)
{
    int64_t first, last;
    if (!command_integer(call, 2, &first) || !command_integer(call, 3, &last))
        return;
    struct set_range range = command_ranks(call->set, first, last);
    remove_range(call, &range);
}

void command_zremrangebyscore(struct call *call)
{
    struct set_scores scores;
    if (!command_scores(call, 2, 3, &scores))
        return;
    struct set_range range = set_range_of_scores(call->set, &scores);
    remove_range(call, &range);
}

void command_zremrangebylex(struct call *call)
{
    struct set_bound ends[2];
    if (!command_names(call, 2, 3, ends))
        return;
    struct set_range range = set_range_of_names(call->set, &ends[0], &ends[1]);
    remove_range(call, &range);
}

static void pop(struct call *call, bool highest)
{
    size_t count = 1;
    if (call->count > 3) {
        command_syntax_error(call);
        return;
    }
    if (call->count == 3 && !command_length(call, 2, &count))
        return;
    size_t all = set_count(call->set);
    count = count < all ? count : all;
    size_t start = call->out->len;
    resp_put_array(call->out, 2 * count);
    for (size_t i = 0; i < count; i++) {
        struct err err;
        struct set_member *member = set_at(call->set, highest ? set_count(call->set) - 1 : 0);
        resp_put_bulk(call->out, member->name.bytes, member->name.len);
        resp_put_score(call->out, member->score);
        if (sets_remove(call->sets, call->set, member, &err) < 0) {
            call->out->len = start;
            command_failed(call, &err);
            return;
        }
    }
}

void command_zpopmax(struct call *call)
{
    pop(call, true);
}

void command_zpopmin(struct call *call)
{
    pop(call, false);
}
