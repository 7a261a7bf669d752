/*
 * WANTED (the set is read) -> COMMITTING (it is written; the disk has to follow) -> SAYING (the mesh is given it, as it
 * is all that was written here) -> GIVEN (who took it is asked for) -> done. A clock looks at all that are under way:
 * they are few and seldom.
 */
#include "node/gateway/hand.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "node/base/limits.h"
#include "node/base/scope.h"

#define LOOK_MS 10
#define DISK_MS 10000
#define GIVEN_MS 5000 /* for the mesh */
#define TRIES_MAX 4   /* while nobody takes it: a node that has just started knows nobody yet */
#define AGAIN_MS 250
#define HANDS_MAX 64 /* x 1.7 KiB; as many as the API has connections */

enum state { WANTED, COMMITTING, SAYING, GIVEN };

struct hand {
    TAILQ_ENTRY(hand)
    entry;
    struct hands *hands; /* borrowed */
    enum state state;
    uint64_t deadline_ms;
    uint64_t commit;
    bool given; /* the mesh has answered */
    unsigned tries;
    uint64_t again_ms;
    size_t holders;
    struct id id; /* of the set */
    bool removes;
    double score;
    struct dht_version version;
    hand_done_cb done;
    void *ctx; /* borrowed */
    char set[LIMIT_SET_NAME_BYTES + 1];
    char member[LIMIT_SET_MEMBER_BYTES + 1];
};

TAILQ_HEAD(hand_list, hand);

struct hands {
    struct sets *sets;         /* borrowed */
    struct registry *registry; /* borrowed */
    struct clock clock;
    struct hand_list list; /* owned */
    size_t count;
    uv_timer_t timer;
    bool closing, closed;
};

static void finish(struct hand *hand, int status, const struct err *err)
{
    struct hands *hands = hand->hands;
    TAILQ_REMOVE(&hands->list, hand, entry);
    hands->count--;
    hand->done(hand->ctx, status, err, hand->holders);
    free(hand);
}

static void fail(struct hand *hand, int code, const char *text)
{
    struct err err;
    err_set(&err, code, "'%.80s' was not written: %s", hand->set, text);
    finish(hand, code, &err);
}

/* ---- the states ---- */

static int put(struct hand *hand, struct set *set, struct err *err)
{
    struct sets *sets = hand->hands->sets;
    size_t len = strlen(hand->member);
    struct set_member *member = set_find(set, hand->member, len);
    if (!hand->removes)
        return sets_put(sets, set, hand->member, len, hand->score, err);
    if (!member)
        return err_set(err, ERR_NOTFOUND, "'%.80s' has no member '%.80s'", hand->set, hand->member);
    return sets_remove(sets, set, member, err);
}

static void write_into(struct hand *hand, struct set *set)
{
    struct err err;
    int status = put(hand, set, &err);
    if (status < 0) {
        finish(hand, status, &err);
        return;
    }
    hand->version = set_find_any(set, hand->member, strlen(hand->member))->version;
    hand->commit = sets_gathering(hand->hands->sets);
    hand->state = COMMITTING;
    sets_commit(hand->hands->sets);
}

static void on_wanted(struct hand *hand)
{
    struct sets *sets = hand->hands->sets;
    struct set *set;
    if (sets_failure(sets)) {
        fail(hand, sets_failure(sets)->code, sets_failure(sets)->text);
        return;
    }
    if (sets_is_full(sets))
        return;
    switch (sets_want(sets, hand->set, strlen(hand->set), &set)) {
    case SETS_READY:
        write_into(hand, set);
        break;
    case SETS_WAIT: /* not for ever: the sets give up by themselves */
        break;
    case SETS_UNKNOWN:
        fail(hand, ERR_UNAVAILABLE, "the mesh could not be read, and nothing is known of it here");
        break;
    case SETS_FULL:
        fail(hand, ERR_LIMIT, "too many sets are in use");
        break;
    }
}

static void on_committing(struct hand *hand, uint64_t now_ms)
{
    if (sets_durable(hand->hands->sets) < hand->commit)
        return;
    hand->state = SAYING;
    hand->deadline_ms = now_ms + GIVEN_MS;
}

/* Not told of which member: of two that are written into one set at once either may be meant, and the holders are the
 * same. */
static void on_given(void *ctx, const struct id *key, size_t accepted)
{
    struct hands *hands = ctx;
    struct hand *hand;
    TAILQ_FOREACH (hand, &hands->list, entry)
        if (hand->state == GIVEN && id_equal(&hand->id, key)) {
            hand->given = accepted > 0 || hand->tries == TRIES_MAX;
            hand->holders = accepted;
            hand->state = hand->given ? GIVEN : SAYING;
            hand->again_ms = clock_mono_ms(&hands->clock) + AGAIN_MS;
        }
}

/* The mesh was given it when it is no longer queued for that; then it is said once more, with the wish to hear who took
 * it. Somebody may have written something newer meanwhile. */
static void on_saying(struct hand *hand, uint64_t now_ms)
{
    struct hands *hands = hand->hands;
    struct set *set;
    if (now_ms < hand->again_ms || sets_want(hands->sets, hand->set, strlen(hand->set), &set) != SETS_READY)
        return;
    const struct set_member *member = set_find_any(set, hand->member, strlen(hand->member));
    bool is_ours = member && dht_version_compare(&member->version, &hand->version) == 0;
    if (is_ours && member->unsaid)
        return;
    struct set_change change = {.name = hand->member,
                                .name_len = strlen(hand->member),
                                .score = hand->removes ? 0 : hand->score,
                                .version = hand->version,
                                .tombstone = hand->removes};
    hand->state = GIVEN;
    hand->tries++;
    hand->given = !is_ours || registry_say(hands->registry, set, &change, on_given, hands, NULL) < 0;
}

static void look_at(struct hand *hand, uint64_t now_ms)
{
    if (hand->state == WANTED) {
        on_wanted(hand); /* which may end it */
        return;
    }
    if (hand->state == COMMITTING)
        on_committing(hand, now_ms);
    if (hand->state == SAYING)
        on_saying(hand, now_ms);
    if (hand->given || (now_ms >= hand->deadline_ms && hand->state != COMMITTING))
        finish(hand, 0, NULL);
    else if (now_ms >= hand->deadline_ms)
        fail(hand, ERR_TIMEOUT, "the disk takes too long");
}

static void on_timer(uv_timer_t *timer)
{
    struct hands *hands = timer->data;
    uint64_t now_ms = clock_mono_ms(&hands->clock);
    struct hand *hand, *next;
    for (hand = TAILQ_FIRST(&hands->list); hand; hand = next) {
        next = TAILQ_NEXT(hand, entry);
        look_at(hand, now_ms);
    }
    if (hands->count == 0)
        uv_timer_stop(timer);
}

/* ---- public ---- */

static int check(const struct hands *hands, const struct hand_wish *wish, struct err *err)
{
    size_t set_len = strlen(wish->set), member_len = strlen(wish->member);
    if (set_len == 0 || set_len > LIMIT_SET_NAME_BYTES)
        return err_set(err, ERR_INVALID, "the name of a set has 1 to %d bytes", LIMIT_SET_NAME_BYTES);
    if (member_len == 0 || member_len > LIMIT_SET_MEMBER_BYTES)
        return err_set(err, ERR_INVALID, "a member has 1 to %d bytes", LIMIT_SET_MEMBER_BYTES);
    if (isnan(wish->score))
        return err_set(err, ERR_INVALID, "the score is not a number");
    if (hands->closing || hands->count >= HANDS_MAX)
        return err_set(err, ERR_LIMIT, "%d writes are under way already", HANDS_MAX);
    return 0;
}

int hands_write(struct hands *hands, const struct hand_wish *wish, hand_done_cb done, void *ctx, struct err *err)
{
    int status = check(hands, wish, err);
    struct hand *hand = status == 0 ? calloc(1, sizeof *hand) : NULL;
    if (status == 0 && !hand)
        status = err_set(err, ERR_NOMEM, "no memory for a write");
    if (status < 0)
        return status;
    hand->hands = hands;
    hand->deadline_ms = clock_mono_ms(&hands->clock) + DISK_MS;
    hand->removes = wish->removes;
    hand->score = wish->score;
    hand->done = done;
    hand->ctx = ctx;
    strcpy(hand->set, wish->set);
    strcpy(hand->member, wish->member);
    hand->id = dht_key(DHT_SET, wish->set, strlen(wish->set));
    TAILQ_INSERT_TAIL(&hands->list, hand, entry);
    hands->count++;
    if (!uv_is_active((uv_handle_t *)&hands->timer))
        uv_timer_start(&hands->timer, on_timer, 0, LOOK_MS);
    return 0;
}

int hands_new(struct sets *sets, struct registry *registry, struct clock clock, struct hands **ret_hands,
              struct err *err)
{
    struct hands *hands = calloc(1, sizeof *hands);
    if (!hands)
        return err_set(err, ERR_NOMEM, "no memory for the registry");
    *hands = (struct hands){.sets = sets, .registry = registry, .clock = clock};
    TAILQ_INIT(&hands->list);
    *ret_hands = hands;
    return 0;
}

void hands_start(struct hands *hands, uv_loop_t *loop)
{
    uv_timer_init(loop, &hands->timer);
    hands->timer.data = hands;
}

static void on_closed(uv_handle_t *handle)
{
    struct hands *hands = handle->data;
    hands->closed = true;
}

void hands_close(struct hands *hands)
{
    hands->closing = true;
    while (!TAILQ_EMPTY(&hands->list))
        fail(TAILQ_FIRST(&hands->list), ERR_CANCELLED, "this node stops");
    uv_close((uv_handle_t *)&hands->timer, on_closed);
}

bool hands_closed(const struct hands *hands)
{
    return hands->closed;
}

void hands_free(struct hands *hands)
{
    free(hands);
}
