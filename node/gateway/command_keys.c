/* Commands on sets as a whole, and those that list sets or members. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/gateway/command.h"

/* Sets that Redis keeps as one small block are told whole by ZSCAN, in order, whatever COUNT says. So are they here:
 * zset-max-listpack-entries and -value of redis.conf 7.0. */
#define WHOLE_MEMBERS 128
#define WHOLE_BYTES 64

void command_dbsize(struct call *call)
{
    resp_put_integer(call->out, (int64_t)sets_count(call->sets));
}

void command_del(struct call *call)
{
    int64_t removed = 0;
    for (size_t i = 1; i < call->count; i++) {
        struct err err;
        struct set *set = command_set(call, i);
        if (!set || set_count(set) == 0)
            continue;
        if (sets_clear(call->sets, set, &err) < 0) {
            command_failed(call, &err);
            return;
        }
        removed++;
    }
    resp_put_integer(call->out, removed);
}

void command_exists(struct call *call)
{
    int64_t count = 0;
    for (size_t i = 1; i < call->count; i++) {
        const struct set *set = command_set(call, i);
        count += set && set_count(set) > 0;
    }
    resp_put_integer(call->out, count);
}

void command_type(struct call *call)
{
    if (set_count(call->set) > 0)
        resp_put(call->out, "+zset\r\n");
    else
        resp_put(call->out, "+none\r\n");
}

/* ---- expiry ---- */

struct expire {
    bool nx, xx, gt, lt;
};

static bool parse_expire_options(struct call *call, struct expire *expire)
{
    for (size_t i = 3; i < call->count; i++) {
        const struct resp_arg *arg = &call->args[i];
        if (command_is(arg, "NX")) {
            expire->nx = true;
        } else if (command_is(arg, "XX")) {
            expire->xx = true;
        } else if (command_is(arg, "GT")) {
            expire->gt = true;
        } else if (command_is(arg, "LT")) {
            expire->lt = true;
        } else {
            resp_put_error(call->out, "ERR Unsupported option %s", arg->data);
            return false;
        }
    }
    const char *why = NULL;
    if (expire->nx && (expire->xx || expire->gt || expire->lt))
        why = "NX and XX, GT or LT options at the same time are not compatible";
    else if (expire->gt && expire->lt)
        why = "GT and LT options at the same time are not compatible";
    if (why)
        resp_put_error(call->out, "ERR %s", why);
    return why == NULL;
}

/* args[2] in `unit_ms`, counted from `base_ms`, as wall milliseconds. */
static bool parse_moment(struct call *call, uint64_t base_ms, int64_t unit_ms, int64_t *ret_ms)
{
    int64_t value;
    if (!command_integer(call, 2, &value))
        return false;
    if (!__builtin_mul_overflow(value, unit_ms, &value) && !__builtin_add_overflow(value, (int64_t)base_ms, ret_ms))
        return true;
    resp_put_error(call->out, "ERR invalid expire time in '%s' command", call->command->name);
    return false;
}

/* Of a set without an end NX, GT and LT see an end at infinity. */
static bool is_wanted(const struct expire *expire, int64_t ms, int64_t old_ms)
{
    if (old_ms == 0)
        return !expire->xx && !expire->gt;
    return !expire->nx && !(expire->gt && ms <= old_ms) && !(expire->lt && ms >= old_ms);
}

static void expire_at(struct call *call, uint64_t base_ms, int64_t unit_ms)
{
    struct expire expire = {0};
    int64_t ms;
    if (!parse_expire_options(call, &expire) || !parse_moment(call, base_ms, unit_ms, &ms))
        return;
    uint64_t wall = sets_wall_ms(call->sets);
    int64_t old = call->set->expires_ms > wall ? (int64_t)call->set->expires_ms : 0;
    if (set_count(call->set) == 0 || !is_wanted(&expire, ms, old)) {
        resp_put_integer(call->out, 0);
        return;
    }
    struct err err;
    int status = ms <= (int64_t)wall ? sets_clear(call->sets, call->set, &err)
                                     : sets_expire(call->sets, call->set, (uint64_t)ms, &err);
    if (status < 0)
        command_failed(call, &err);
    else
        resp_put_integer(call->out, 1);
}

void command_expire(struct call *call)
{
    expire_at(call, sets_wall_ms(call->sets), 1000);
}

void command_pexpire(struct call *call)
{
    expire_at(call, sets_wall_ms(call->sets), 1);
}

void command_expireat(struct call *call)
{
    expire_at(call, 0, 1000);
}

void command_pexpireat(struct call *call)
{
    expire_at(call, 0, 1);
}

void command_persist(struct call *call)
{
    struct err err;
    bool ends = set_count(call->set) > 0 && sets_ttl_ms(call->sets, call->set) >= 0;
    if (ends && sets_expire(call->sets, call->set, 0, &err) < 0)
        command_failed(call, &err);
    else
        resp_put_integer(call->out, ends);
}

/* -2: no such set, -1: no end; else the milliseconds left, or the moment itself, in `unit_ms`, rounded. */
static void put_end(struct call *call, bool moment, int64_t unit_ms)
{
    int64_t left = sets_ttl_ms(call->sets, call->set);
    if (set_count(call->set) == 0)
        left = -2;
    if (left < 0)
        resp_put_integer(call->out, left);
    else
        resp_put_integer(call->out, ((moment ? (int64_t)call->set->expires_ms : left) + unit_ms / 2) / unit_ms);
}

void command_ttl(struct call *call)
{
    put_end(call, false, 1000);
}

void command_pttl(struct call *call)
{
    put_end(call, false, 1);
}

void command_expiretime(struct call *call)
{
    put_end(call, true, 1000);
}

void command_pexpiretime(struct call *call)
{
    put_end(call, true, 1);
}

/* ---- patterns ---- */

/* One character against a class, *at behind its "["; moves *at behind its "]". A class that does not end ends with the
 * pattern. */
static bool class_has(const char **at, const char *end, unsigned char c)
{
    const char *p = *at;
    bool found = false;
    bool negated = p < end && *p == '^';
    p += negated;
    while (p < end && *p != ']') {
        if (*p == '\\' && end - p >= 2) {
            found |= (unsigned char)p[1] == c;
            p += 2;
        } else if (end - p >= 3 && p[1] == '-') {
            unsigned char low = (unsigned char)p[0], high = (unsigned char)p[2];
            found |= low <= high ? low <= c && c <= high : high <= c && c <= low;
            p += 3;
        } else {
            found |= (unsigned char)*p++ == c;
        }
    }
    *at = p < end ? p + 1 : p;
    return found != negated;
}

/* One character against one element of the pattern that is no star; moves *at behind it. */
static bool element_fits(const char **at, const char *end, char c)
{
    const char *p = (*at)++;
    if (*p == '?')
        return true;
    if (*p == '[')
        return class_has(at, end, (unsigned char)c);
    if (*p == '\\' && end - p >= 2)
        return *(*at)++ == c;
    return *p == c;
}

bool command_matches(const char *pattern, size_t pattern_len, const char *text, size_t text_len)
{
    const char *end = pattern + pattern_len;
    const char *text_end = text + text_len;
    /* Only the last star can have to take more, so this costs at most the product of the lengths. */
    const char *star = NULL, *star_text = NULL;
    while (text < text_end || pattern < end) {
        if (pattern < end && *pattern == '*') {
            star = ++pattern;
            star_text = text;
        } else if (pattern < end && text < text_end && element_fits(&pattern, end, *text)) {
            text++;
        } else if (star && star_text < text_end) {
            pattern = star;
            text = ++star_text;
        } else {
            return false;
        }
    }
    return true;
}

/* ---- listing ---- */

/* What a listing asks for, and what it has found. */
struct listing {
    const struct resp_arg *pattern; /* NULL: all */
    size_t count;                   /* to look at, about */
    bool none;                      /* of another type */
    bool small;                     /* the set of the members is */
    struct buf found;               /* owned */
    size_t found_count;
    size_t seen;
};

static void release_listing(struct listing *listing)
{
    buf_release(&listing->found);
}

/* Redis keeps integers of small sets as such, and ZSCAN tells them so. */
static void put_kept_score(struct buf *out, double score)
{
    char text[RESP_SCORE_TEXT_SIZE];
    if (fabs(score) > (double)(INT64_MAX / 2) || score != trunc(score)) {
        resp_put_score(out, score);
        return;
    }
    int len = snprintf(text, sizeof text, "%lld", (long long)score);
    resp_put_bulk(out, text, (size_t)len);
}

static void list_name(struct listing *listing, const struct name *name, const double *score)
{
    const struct resp_arg *pattern = listing->pattern;
    listing->seen++;
    if (listing->none || (pattern && !command_matches(pattern->data, pattern->len, name->bytes, name->len)))
        return;
    resp_put_bulk(&listing->found, name->bytes, name->len);
    listing->found_count++;
    if (score) {
        if (listing->small)
            put_kept_score(&listing->found, *score);
        else
            resp_put_score(&listing->found, *score);
        listing->found_count++;
    }
}

static void list_set(void *ctx, struct set *set)
{
    list_name(ctx, &set->name, NULL);
}

static void list_member(void *ctx, struct name *name)
{
    const struct set_member *member = (struct set_member *)((char *)name - offsetof(struct set_member, name));
    if (!member->tombstone)
        list_name(ctx, name, &member->score);
}

static void put_listing(struct call *call, const struct listing *listing)
{
    resp_put_array(call->out, listing->found_count);
    buf_add(call->out, listing->found.data, listing->found.len);
    call->out->failed |= listing->found.failed;
}

static void put_page(struct call *call, uint64_t cursor, const struct listing *listing)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)cursor);
    resp_put_array(call->out, 2);
    resp_put_text(call->out, text);
    put_listing(call, listing);
}

void command_keys(struct call *call)
{
    OWNED(release_listing) struct listing listing = {.pattern = &call->args[1], .found = BUF(LIMIT_RESP_OUT_BYTES)};
    uint64_t cursor = 0;
    do
        cursor = sets_scan(call->sets, cursor, list_set, &listing);
    while (cursor != 0);
    put_listing(call, &listing);
}

static bool parse_cursor(struct call *call, size_t index, uint64_t *ret_cursor)
{
    const struct resp_arg *arg = &call->args[index];
    char *end = NULL;
    errno = 0;
    *ret_cursor = strtoull(arg->data, &end, 10);
    if (arg->len > 0 && !isspace((unsigned char)arg->data[0]) && *end == 0 && errno == 0)
        return true;
    resp_put(call->out, "-ERR invalid cursor\r\n");
    return false;
}

/* MATCH, COUNT and, if `typed`, TYPE. */
static bool parse_listing(struct call *call, size_t index, bool typed, struct listing *listing)
{
    int64_t count = 10;
    for (; index < call->count; index += 2) {
        const struct resp_arg *arg = &call->args[index];
        bool last = index + 1 == call->count;
        if (!last && command_is(arg, "COUNT")) {
            if (!command_integer(call, index + 1, &count))
                return false;
        } else if (!last && command_is(arg, "MATCH")) {
            listing->pattern = arg + 1;
        } else if (!last && typed && command_is(arg, "TYPE")) {
            listing->none = !command_is(arg + 1, "ZSET");
        } else {
            count = 0;
        }
        if (count < 1) {
            command_syntax_error(call);
            return false;
        }
    }
    listing->count = (size_t)count;
    return true;
}

void command_scan(struct call *call)
{
    OWNED(release_listing) struct listing listing = {.found = BUF(LIMIT_RESP_OUT_BYTES)};
    uint64_t cursor;
    if (!parse_cursor(call, 1, &cursor) || !parse_listing(call, 2, true, &listing))
        return;
    /* Buckets may be empty: a bounded number of them is looked at, as Redis does. */
    size_t buckets = listing.count > SIZE_MAX / 10 ? SIZE_MAX : listing.count * 10;
    do
        cursor = sets_scan(call->sets, cursor, list_set, &listing);
    while (cursor != 0 && listing.seen < listing.count && --buckets > 0);
    put_page(call, cursor, &listing);
}

static bool is_small(const struct set *set)
{
    if (set_count(set) > WHOLE_MEMBERS)
        return false;
    for (size_t i = 0; i < set_count(set); i++)
        if (set_at(set, i)->name.len > WHOLE_BYTES)
            return false;
    return true;
}

static uint64_t list_members(const struct set *set, uint64_t cursor, struct listing *listing)
{
    listing->small = is_small(set);
    if (listing->small) {
        for (size_t i = 0; i < set_count(set); i++)
            list_name(listing, &set_at(set, i)->name, &set_at(set, i)->score);
        return 0;
    }
    size_t buckets = listing->count > SIZE_MAX / 10 ? SIZE_MAX : listing->count * 10;
    do
        cursor = names_scan(&set->members, cursor, list_member, listing);
    while (cursor != 0 && listing->seen < listing->count && --buckets > 0);
    return cursor;
}

void command_zscan(struct call *call)
{
    OWNED(release_listing) struct listing listing = {.found = BUF(LIMIT_RESP_OUT_BYTES)};
    uint64_t cursor;
    if (!parse_cursor(call, 2, &cursor))
        return;
    if (set_count(call->set) == 0) {
        put_page(call, 0, &listing);
        return;
    }
    if (!parse_listing(call, 3, false, &listing))
        return;
    cursor = list_members(call->set, cursor, &listing);
    put_page(call, cursor, &listing);
}
