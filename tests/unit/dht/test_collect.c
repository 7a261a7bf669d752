#include "tests/unit/dht/rig.h"

#define HOLDERS 4

struct result {
    struct rig *rig;
    unsigned calls;
    int status;
    size_t count; /* as it was said in the end */
    size_t told;
    double scores;
    uint64_t cancels; /* this request, at the first record */
};

static void on_each(void *ctx, const struct dht_record *record)
{
    struct result *result = ctx;
    result->told++;
    result->scores += record->score;
    if (result->cancels)
        dht_cancel(result->rig->dht, result->cancels);
}

static void on_collected(void *ctx, int status, size_t count)
{
    struct result *result = ctx;
    result->calls++;
    result->status = status;
    result->count = count;
}

static uint64_t collect(struct rig *rig, const struct id *key, struct result *result)
{
    uint64_t request;
    *result = (struct result){.rig = rig};
    rig->sent_count = 0;
    assert_int_equal(dht_collect(rig->dht, rig->now_ms, key, 5000, on_each, on_collected, result, &request, NULL), 0);
    return request;
}

/* A holder that a test plays: another dht, whose answers are carried over by hand. */
struct holder {
    struct rig *rig;
    struct rig_peer peer;
};

static void make_holder(struct holder *holder, unsigned number)
{
    holder->rig = rig_new();
    holder->peer = rig_peer(number);
}

/* All rigs have one key, so that to a holder we are somebody else. */
static struct rig_peer asker(void)
{
    return rig_peer(900);
}

/* Everything that was asked of the holders is answered by them, in both directions, until nothing more is said. */
static void talk(struct rig *rig, struct holder *holders, size_t count)
{
    struct rig_peer us = asker();
    for (size_t done = 0; done < rig->sent_count; done++) {
        if (rig->sent_count > RIG_SENT_MAX / 2) { /* forget what is behind us */
            rig->sent_count -= done;
            memmove(rig->sent, rig->sent + done, rig->sent_count * sizeof *rig->sent);
            done = 0;
        }
        struct rig_sent sent = rig->sent[done];
        for (size_t i = 0; i < count; i++) {
            struct rig *other = holders[i].rig;
            if (!id_equal(&sent.to.id, &holders[i].peer.contact.id))
                continue;
            other->sent_count = 0;
            dht_input(other->dht, other->now_ms, &us.contact, sent.bytes, sent.len);
            for (size_t n = 0; n < other->sent_count; n++)
                if (id_equal(&other->sent[n].to.id, &us.contact.id))
                    dht_input(rig->dht, rig->now_ms, &holders[i].peer.contact, other->sent[n].bytes,
                              other->sent[n].len);
        }
        dht_tick(rig->dht, rig->now_ms);
    }
}

static struct rig *rig_with(struct holder holders[HOLDERS])
{
    struct rig *rig = rig_new();
    for (unsigned i = 0; i < HOLDERS; i++) {
        make_holder(&holders[i], i);
        rig_meet(rig, &holders[i].peer);
    }
    return rig;
}

static void free_all(struct rig *rig, struct holder holders[HOLDERS])
{
    rig_free(rig);
    for (unsigned i = 0; i < HOLDERS; i++)
        rig_free(holders[i].rig);
}

/* Members with the scores from 0 up to `count`; those for which `skip` is true are missing. */
static void fill(struct holder *holder, const struct id *key, unsigned count, unsigned skip)
{
    for (unsigned i = 0; i < count; i++) {
        struct rig_peer member = rig_peer(100 + i);
        struct dht_record record = rig_record(&member, key, i, 1);
        if (i != skip)
            assert_int_equal(rig_hold(holder->rig, &record), DHT_ACCEPTED);
    }
}

static void test_collect__alone(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(1), other = rig_key(2);
    struct result result;
    struct dht_value value = {.score = 4};
    assert_int_equal(dht_publish(rig->dht, rig->now_ms, &key, DHT_OBJECT, &value, NULL), 0);
    collect(rig, &key, &result);
    assert_int_equal(result.calls, 0);
    rig_run(rig, 1);
    assert_true(result.calls == 1 && result.status == 0 && result.count == 1 && result.told == 1);
    collect(rig, &other, &result);
    rig_run(rig, 1);
    assert_true(result.calls == 1 && result.status == 0 && result.count == 0);
    rig_free(rig);
}

/* What fits into the survey's answers costs nothing beyond it. */
static void test_collect__small_sets_cost_one_round(void **state)
{
    (void)state;
    struct holder holders[HOLDERS];
    struct rig *rig = rig_with(holders);
    struct id key = rig_key(1);
    struct result result;
    for (unsigned i = 0; i < HOLDERS; i++)
        fill(&holders[i], &key, 3, 99);
    collect(rig, &key, &result);
    talk(rig, holders, HOLDERS);
    assert_true(result.calls == 1 && result.status == 0 && result.count == 3);
    size_t asked = 0;
    for (size_t i = 0; i < rig->sent_count; i++)
        asked += rig_message(rig, i).type == DHT_FIND_VALUE;
    assert_int_equal(asked, HOLDERS);
    free_all(rig, holders);
}

/* All agree: nothing is checked. */
static void test_collect__agreement_needs_no_signatures(void **state)
{
    (void)state;
    struct holder holders[HOLDERS];
    struct rig *rig = rig_with(holders);
    struct id key = rig_key(1);
    struct result result;
    for (unsigned i = 0; i < HOLDERS; i++)
        fill(&holders[i], &key, 150, 99);
    collect(rig, &key, &result);
    talk(rig, holders, HOLDERS);
    assert_true(result.calls == 1 && result.status == 0 && result.count == 149 && result.told == 149);
    assert_true(result.scores == 149 * 150 / 2 - 99);
    free_all(rig, holders);
}

/* Each holder lacks another member, and one has a forgery: the union of what is signed is told. */
static void test_collect__without_agreement_the_union_is_checked(void **state)
{
    (void)state;
    struct holder holders[HOLDERS];
    struct rig *rig = rig_with(holders);
    struct id key = rig_key(1);
    struct result result;
    for (unsigned i = 0; i < HOLDERS; i++)
        fill(&holders[i], &key, 100, i);
    struct rig_peer member = rig_peer(100 + 7);
    struct dht_record forged = rig_record(&member, &key, 1000, 9);
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    forged.signature[0] ^= 1;
    struct dht_span span = rig_span(&forged, &bytes);
    assert_int_equal(dht_hold_put(holders[2].rig->dht, span.at, span.len, true, NULL), DHT_ACCEPTED);
    collect(rig, &key, &result);
    talk(rig, holders, HOLDERS);
    assert_true(result.calls == 1 && result.status == 0 && result.count == 100);
    assert_true(result.scores == 99 * 100 / 2);
    assert_true(rig_stats(rig).bad_records > 0);
    free_all(rig, holders);
}

/* Holders that fall silent in the middle leave it incomplete, and that is said. */
static void test_collect__silence_is_said(void **state)
{
    (void)state;
    struct holder holders[HOLDERS];
    struct rig *rig = rig_with(holders);
    struct id key = rig_key(1);
    struct result result;
    for (unsigned i = 0; i < HOLDERS; i++)
        fill(&holders[i], &key, 150, 99);
    struct rig_peer us = asker();
    collect(rig, &key, &result);
    for (unsigned i = 0; i < HOLDERS; i++) { /* the survey alone is answered */
        struct rig_sent sent = rig->sent[i];
        for (unsigned h = 0; h < HOLDERS; h++)
            if (id_equal(&sent.to.id, &holders[h].peer.contact.id)) {
                holders[h].rig->sent_count = 0;
                dht_input(holders[h].rig->dht, holders[h].rig->now_ms, &us.contact, sent.bytes, sent.len);
                struct rig_sent *last = &holders[h].rig->sent[holders[h].rig->sent_count - 1];
                dht_input(rig->dht, rig->now_ms, &holders[h].peer.contact, last->bytes, last->len);
            }
    }
    dht_tick(rig->dht, rig->now_ms);
    assert_int_equal(result.calls, 0);
    rig_run(rig, 6000);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.status, ERR_TIMEOUT);
    free_all(rig, holders);
}

static void test_collect__cancelled_says_nothing_more(void **state)
{
    (void)state;
    struct holder holders[HOLDERS];
    struct rig *rig = rig_with(holders);
    struct id key = rig_key(1);
    struct result result;
    for (unsigned i = 0; i < HOLDERS; i++)
        fill(&holders[i], &key, 80, 99);
    uint64_t request = collect(rig, &key, &result);
    dht_cancel(rig->dht, request);
    dht_cancel(rig->dht, request);
    talk(rig, holders, HOLDERS);
    rig_run(rig, 6000);
    assert_true(result.calls == 0 && result.told == 0);
    free_all(rig, holders);

    rig = rig_with(holders);
    for (unsigned i = 0; i < HOLDERS; i++)
        fill(&holders[i], &key, 80, 99);
    request = collect(rig, &key, &result);
    result.cancels = request; /* from within */
    talk(rig, holders, HOLDERS);
    assert_true(result.calls == 0 && result.told == 1);
    assert_int_equal(rig_stats(rig).requests, 0);
    collect(rig, &key, &result); /* under way when all is freed */
    free_all(rig, holders);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_collect__alone),
        cmocka_unit_test(test_collect__small_sets_cost_one_round),
        cmocka_unit_test(test_collect__agreement_needs_no_signatures),
        cmocka_unit_test(test_collect__without_agreement_the_union_is_checked),
        cmocka_unit_test(test_collect__silence_is_said),
        cmocka_unit_test(test_collect__cancelled_says_nothing_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
