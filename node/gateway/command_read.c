/* Commands that look at one sorted set. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/tree.h"
#include "node/gateway/command.h"

/* ---- ranges as clients write them ---- */

/* A score, or "(" and a score; NaN is none. */
static bool parse_score_end(const struct resp_arg *arg, double *ret_score, bool *ret_excluded)
{
    char *end = NULL;
    bool excluded = arg->data[0] == '(';
    double score = strtod(arg->data + excluded, &end);
    if (*end != 0 || isnan(score))
        return false;
    *ret_score = score;
    *ret_excluded = excluded;
    return true;
}

bool command_scores(struct call *call, size_t min_index, size_t max_index, struct set_scores *ret_scores)
{
    if (parse_score_end(&call->args[min_index], &ret_scores->min, &ret_scores->min_excluded) &&
        parse_score_end(&call->args[max_index], &ret_scores->max, &ret_scores->max_excluded))
        return true;
    resp_put(call->out, "-ERR min or max is not a float\r\n");
    return false;
}

/* "-", "+", "[name" or "(name" */
static bool parse_name_end(const struct resp_arg *arg, struct set_bound *ret_bound)
{
    if (arg->len == 0)
        return false;
    switch (arg->data[0]) {
    case '-':
    case '+':
        *ret_bound = (struct set_bound){.kind = arg->data[0] == '-' ? SET_BOUND_LEAST : SET_BOUND_MOST};
        return arg->len == 1;
    case '[':
    case '(':
        *ret_bound = (struct set_bound){SET_BOUND_NAME, arg->data + 1, arg->len - 1, arg->data[0] == '('};
        return true;
    default:
        return false;
    }
}

bool command_names(struct call *call, size_t min_index, size_t max_index, struct set_bound ret_ends[2])
{
    if (parse_name_end(&call->args[min_index], &ret_ends[0]) && parse_name_end(&call->args[max_index], &ret_ends[1]))
        return true;
    resp_put(call->out, "-ERR min or max not valid string range item\r\n");
    return false;
}

struct set_range command_ranks(const struct set *set, int64_t first, int64_t last)
{
    int64_t count = (int64_t)set_count(set);
    first = first < 0 ? first + count : first;
    last = last < 0 ? last + count : last;
    first = first < 0 ? 0 : first;
    last = last >= count ? count - 1 : last;
    if (first > last)
        return (struct set_range){0, 0};
    return (struct set_range){(size_t)first, (size_t)last + 1};
}

/* ---- one member, or a number ---- */

void command_zcard(struct call *call)
{
    resp_put_integer(call->out, (int64_t)set_count(call->set));
}

void command_zcount(struct call *call)
{
    struct set_scores scores;
    if (!command_scores(call, 2, 3, &scores))
        return;
    struct set_range range = set_range_of_scores(call->set, &scores);
    resp_put_integer(call->out, (int64_t)(range.end - range.begin));
}

void command_zlexcount(struct call *call)
{
    struct set_bound ends[2];
    if (!command_names(call, 2, 3, ends))
        return;
    struct set_range range = set_range_of_names(call->set, &ends[0], &ends[1]);
    resp_put_integer(call->out, (int64_t)(range.end - range.begin));
}

static void put_score_of(struct call *call, size_t index)
{
    const struct set_member *member = set_find(call->set, call->args[index].data, call->args[index].len);
    if (member)
        resp_put_score(call->out, member->score);
    else
        resp_put(call->out, RESP_NIL);
}

void command_zscore(struct call *call)
{
    put_score_of(call, 2);
}

void command_zmscore(struct call *call)
{
    resp_put_array(call->out, call->count - 2);
    for (size_t i = 2; i < call->count; i++)
        put_score_of(call, i);
}

static void put_rank(struct call *call, bool backwards)
{
    const struct set_member *member = set_find(call->set, call->args[2].data, call->args[2].len);
    if (!member) {
        resp_put(call->out, RESP_NIL);
        return;
    }
    size_t rank = tree_rank(&call->set->order, &member->node);
    resp_put_integer(call->out, (int64_t)(backwards ? set_count(call->set) - 1 - rank : rank));
}

void command_zrank(struct call *call)
{
    put_rank(call, false);
}

void command_zrevrank(struct call *call)
{
    put_rank(call, true);
}

/* ---- ranges of members ---- */

enum by { BY_ANY, BY_RANK, BY_SCORE, BY_NAME };

/* What the words of a ZRANGE, or one of its kin, ask for. */
struct query {
    enum by by;
    bool backwards;
    bool backwards_given; /* by the command's name */
    bool with_scores;
    int64_t offset, limit; /* limit < 0: all */
};

/* One of the options at args[*index]; false if it is none. What an integer is not has been replied to, and *ret_bad is
 * set. */
static bool parse_option(struct call *call, size_t *index, struct query *query, bool *ret_bad)
{
    const struct resp_arg *arg = &call->args[*index];
    if (command_is(arg, "WITHSCORES")) {
        query->with_scores = true;
    } else if (command_is(arg, "LIMIT") && *index + 2 < call->count) {
        *ret_bad =
            !command_integer(call, *index + 1, &query->offset) || !command_integer(call, *index + 2, &query->limit);
        *index += 2;
    } else if (!query->backwards_given && command_is(arg, "REV")) {
        query->backwards = true;
    } else if (query->by == BY_ANY && command_is(arg, "BYLEX")) {
        query->by = BY_NAME;
    } else if (query->by == BY_ANY && command_is(arg, "BYSCORE")) {
        query->by = BY_SCORE;
    } else {
        return false;
    }
    return true;
}

static bool parse_query(struct call *call, struct query *query)
{
    for (size_t i = 4; i < call->count; i++) {
        bool bad = false;
        if (!parse_option(call, &i, query, &bad)) {
            command_syntax_error(call);
            return false;
        }
        if (bad)
            return false;
    }
    if (query->by == BY_ANY)
        query->by = BY_RANK;
    if (query->limit != -1 && query->by == BY_RANK) {
        resp_put(call->out,
                 "-ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX\r\n");
        return false;
    }
    if (query->with_scores && query->by == BY_NAME) {
        resp_put(call->out, "-ERR syntax error, WITHSCORES not supported in combination with BYLEX\r\n");
        return false;
    }
    return true;
}

/* The ranks that are asked for, forwards. */
static bool find_range(struct call *call, const struct query *query, struct set_range *ret_range)
{
    struct set_scores scores;
    struct set_bound ends[2];
    int64_t first, last;
    size_t min = query->backwards ? 3 : 2;
    size_t max = query->backwards ? 2 : 3;
    switch (query->by) {
    case BY_SCORE:
        if (!command_scores(call, min, max, &scores))
            return false;
        *ret_range = set_range_of_scores(call->set, &scores);
        return true;
    case BY_NAME:
        if (!command_names(call, min, max, ends))
            return false;
        *ret_range = set_range_of_names(call->set, &ends[0], &ends[1]);
        return true;
    default:
        if (!command_integer(call, 2, &first) || !command_integer(call, 3, &last))
            return false;
        *ret_range = command_ranks(call->set, first, last);
        return true;
    }
}

/* Ranks of the range as they count from the other end. */
static void turn_range(const struct set *set, struct set_range *range)
{
    size_t all = set_count(set);
    *range = (struct set_range){all - range->end, all - range->begin};
}

/* Leave what LIMIT says; it counts from where the answer begins. */
static void limit_range(const struct query *query, struct set_range *range)
{
    size_t count = range->end - range->begin;
    size_t skipped = query->offset < 0 || (uint64_t)query->offset > count ? count : (size_t)query->offset;
    size_t kept = count - skipped;
    if (query->limit >= 0 && (uint64_t)query->limit < kept)
        kept = (size_t)query->limit;
    if (query->backwards)
        range->begin = range->end - skipped - kept;
    else
        range->begin += skipped;
    range->end = range->begin + kept;
}

static void put_range(struct call *call, const struct query *query, const struct set_range *range)
{
    size_t count = range->end - range->begin;
    resp_put_array(call->out, query->with_scores ? 2 * count : count);
    struct tree_cursor cursor;
    struct tree_node *node =
        count > 0 ? tree_seek(&call->set->order, &cursor, query->backwards ? range->end - 1 : range->begin) : NULL;
    for (; count > 0 && !call->out->failed; count--) {
        const struct set_member *member = TREE_OF(node, struct set_member, node);
        resp_put_bulk(call->out, member->name.bytes, member->name.len);
        if (query->with_scores)
            resp_put_score(call->out, member->score);
        node = query->backwards ? tree_prev(&cursor) : tree_next(&cursor);
    }
}

static void answer_query(struct call *call, enum by by, bool backwards)
{
    struct query query = {.by = by, .backwards = backwards, .backwards_given = by != BY_ANY, .limit = -1};
    struct set_range range;
    if (!parse_query(call, &query) || !find_range(call, &query, &range))
        return;
    if (query.by != BY_RANK)
        limit_range(&query, &range);
    else if (query.backwards)
        turn_range(call->set, &range);
    put_range(call, &query, &range);
}

void command_zrange(struct call *call)
{
    answer_query(call, BY_ANY, false);
}

void command_zrangebylex(struct call *call)
{
    answer_query(call, BY_NAME, false);
}

void command_zrangebyscore(struct call *call)
{
    answer_query(call, BY_SCORE, false);
}

void command_zrevrange(struct call *call)
{
    answer_query(call, BY_RANK, true);
}

void command_zrevrangebylex(struct call *call)
{
    answer_query(call, BY_NAME, true);
}

void command_zrevrangebyscore(struct call *call)
{
    answer_query(call, BY_SCORE, true);
}
