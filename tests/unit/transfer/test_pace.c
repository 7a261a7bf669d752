/* Limits in virtual time: exact over seconds, smooth within them, changed while bytes move. */
#include "tests/test.h"

#include "transfer/pace.h"

#define MBIT 125000ull

/* Somebody who always has more to send, in frames of at most 32 KiB, and asks again every step_ms. */
struct sender {
    struct pace_peer peer;
    unsigned class;
    uint64_t sent;
    uint64_t largest; /* in one go */
};

static uint64_t send_now(struct pace *pace, struct sender *sender, uint64_t now_ms)
{
    uint64_t sent = 0;
    for (;;) {
        uint64_t room = transfer_pace_room(pace, &sender->peer, PACE_UP, sender->class, now_ms);
        size_t part = transfer_pace_part(room, 32768);
        if (part == 0)
            break;
        transfer_pace_take(pace, &sender->peer, PACE_UP, sender->class, part, now_ms);
        sent += part;
    }
    sender->sent += sent;
    if (sent > sender->largest)
        sender->largest = sent;
    return sent;
}

static void run(struct pace *pace, struct sender *senders, unsigned n, uint64_t from_ms, uint64_t to_ms,
                unsigned step_ms)
{
    for (uint64_t now = from_ms; now < to_ms; now += step_ms) {
        for (unsigned i = 0; i < n; i++)
            send_now(pace, &senders[(now / step_ms + i) % n], now);
    }
}

static void assert_near(uint64_t got, uint64_t wanted, unsigned percent)
{
    if (got * 100 > wanted * (100 + percent) || got * 100 < wanted * (100 - percent))
        fail_msg("%llu, and not %llu", (unsigned long long)got, (unsigned long long)wanted);
}

static void test_pace__no_limit_is_none(void **state)
{
    (void)state;
    struct pace pace = {0};
    struct pace_peer peer = {0};
    assert_false(transfer_pace_is_limited(&pace, PACE_UP));
    transfer_pace_take(&pace, &peer, PACE_UP, EXCHANGE_LAYER, 1ull << 50, 1);
    assert_true(transfer_pace_room(&pace, &peer, PACE_UP, EXCHANGE_LAYER, 1) == UINT64_MAX);
    assert_int_equal(transfer_pace_part(UINT64_MAX, 32768), 32768);
    assert_int_equal(transfer_pace_part(0, 32768), 0);
}

/* Within 2 % over five seconds, from 1 Mbit/s to 10 Gbit/s, however often the sender looks. */
static void test_pace__exact_over_seconds(void **state)
{
    (void)state;
    static const uint64_t RATES[] = {MBIT, 10 * MBIT, 100 * MBIT, 1000 * MBIT, 10000 * MBIT};
    for (unsigned i = 0; i < sizeof RATES / sizeof RATES[0]; i++) {
        for (unsigned step_ms = 1; step_ms <= 17; step_ms += 4) {
            struct pace pace = {0};
            struct sender sender = {.class = EXCHANGE_LAYER};
            transfer_pace_set(&pace, &(struct exchange_limits){.up.total = RATES[i]});
            run(&pace, &sender, 1, 1000, 6000, step_ms);
            assert_near(sender.sent, 5 * RATES[i], 2);
        }
    }
}

/* At 1 Mbit/s nothing else waits for more than two parts: 66 ms. */
static void test_pace__slow_is_smooth(void **state)
{
    (void)state;
    struct pace pace = {0};
    struct sender sender = {.class = EXCHANGE_LAYER};
    transfer_pace_set(&pace, &(struct exchange_limits){.up.total = MBIT});
    run(&pace, &sender, 1, 1000, 100000, PACE_STEP_MS);
    assert_true(sender.largest <= 2 * PACE_PART_BYTES);
    uint64_t before = sender.sent;
    for (uint64_t now = 100000; now < 110000; now += 200) {
        run(&pace, &sender, 1, now, now + 200, PACE_STEP_MS);
        assert_true(sender.sent > before && sender.sent - before <= MBIT / 5 + PACE_PART_BYTES);
        before = sender.sent;
    }
}

/* Idleness saves up PACE_BURST_MS and no more. */
static void test_pace__idleness_saves_little(void **state)
{
    (void)state;
    struct pace pace = {0};
    struct sender sender = {.class = EXCHANGE_LAYER};
    transfer_pace_set(&pace, &(struct exchange_limits){.up.total = 1000 * MBIT});
    run(&pace, &sender, 1, 1000, 1100, 1);
    assert_true(send_now(&pace, &sender, 3600000) <= 1000 * MBIT * PACE_BURST_MS / 1000 + 32768);
}

static void test_pace__peer_and_class_have_their_own(void **state)
{
    (void)state;
    struct pace pace = {0};
    struct sender senders[3] = {{.class = EXCHANGE_LAYER}, {.class = EXCHANGE_LAYER}, {.class = EXCHANGE_PREFETCH}};
    struct exchange_limits limits = {.up = {.total = 100 * MBIT, .peer = 30 * MBIT}};
    limits.up.classes[EXCHANGE_PREFETCH] = 5 * MBIT;
    transfer_pace_set(&pace, &limits);
    run(&pace, senders, 3, 1000, 6000, 1);
    assert_near(senders[0].sent, 5 * 30 * MBIT, 2);
    assert_near(senders[1].sent, 5 * 30 * MBIT, 2);
    assert_near(senders[2].sent, 5 * 5 * MBIT, 2);
    assert_false(transfer_pace_is_limited(&pace, PACE_DOWN));
    assert_true(transfer_pace_room(&pace, &senders[2].peer, PACE_DOWN, EXCHANGE_PREFETCH, 6000) == UINT64_MAX);
}

/* Lowered, raised, lifted and set again while bytes move; each counts at once. */
static void test_pace__changed_while_running(void **state)
{
    (void)state;
    struct pace pace = {0};
    struct sender sender = {.class = EXCHANGE_VOLUME};
    static const uint64_t RATES[] = {100 * MBIT, 2 * MBIT, 1000 * MBIT, 10 * MBIT};
    uint64_t now = 1000;
    for (unsigned i = 0; i < sizeof RATES / sizeof RATES[0]; i++) {
        transfer_pace_set(&pace, &(struct exchange_limits){.up.total = RATES[i]});
        sender.sent = 0;
        run(&pace, &sender, 1, now, now + 5000, PACE_STEP_MS);
        assert_near(sender.sent, 5 * RATES[i], 3);
        now += 5000;
    }
    transfer_pace_set(&pace, &(struct exchange_limits){0});
    assert_true(transfer_pace_room(&pace, &sender.peer, PACE_UP, sender.class, now) == UINT64_MAX);
}

/* Downloads are taken when they are asked for: what was asked too much is made up for, what did not come is free. */
static void test_pace__debt_and_giving_back(void **state)
{
    (void)state;
    struct pace pace = {0};
    struct pace_peer peer = {0};
    transfer_pace_set(&pace, &(struct exchange_limits){.down.total = 1u << 20});
    assert_true(transfer_pace_room(&pace, &peer, PACE_DOWN, EXCHANGE_LAYER, 1000) > 0);
    transfer_pace_take(&pace, &peer, PACE_DOWN, EXCHANGE_LAYER, 1u << 20, 1000);
    assert_int_equal(transfer_pace_room(&pace, &peer, PACE_DOWN, EXCHANGE_LAYER, 1900), 0);
    transfer_pace_give_back(&pace, &peer, PACE_DOWN, EXCHANGE_LAYER, 512u << 10, 1900);
    assert_true(transfer_pace_room(&pace, &peer, PACE_DOWN, EXCHANGE_LAYER, 1900) > 0);
    transfer_pace_give_back(&pace, &peer, PACE_DOWN, EXCHANGE_LAYER, 1u << 30, 1900); /* never more than a burst */
    assert_true(transfer_pace_room(&pace, &peer, PACE_DOWN, EXCHANGE_LAYER, 1900) <= (1u << 20) * PACE_BURST_MS / 1000);
}

/* Rates and amounts that no link has overflow nothing. */
static void test_pace__absurd_numbers(void **state)
{
    (void)state;
    struct pace pace = {0};
    struct pace_peer peer = {0};
    transfer_pace_set(&pace, &(struct exchange_limits){.up.total = UINT64_MAX, .up.peer = (1ull << 40) - 1});
    for (unsigned i = 0; i < 8; i++)
        transfer_pace_take(&pace, &peer, PACE_UP, EXCHANGE_FREEZE, UINT64_MAX, 1 + i);
    assert_int_equal(transfer_pace_room(&pace, &peer, PACE_UP, EXCHANGE_FREEZE, 2), 0);
    assert_true(transfer_pace_room(&pace, &peer, PACE_UP, EXCHANGE_FREEZE, UINT64_MAX / 2) <= UINT64_MAX);
    transfer_pace_set(&pace, &(struct exchange_limits){.up.total = 1});
    struct pace_peer other = {0};
    uint64_t sent = 0;
    for (uint64_t now = 1000; now < 100000; now += 10) {
        size_t part = transfer_pace_part(transfer_pace_room(&pace, &other, PACE_UP, EXCHANGE_FREEZE, now), 1);
        transfer_pace_take(&pace, &other, PACE_UP, EXCHANGE_FREEZE, part, now);
        sent += part;
    }
    assert_true(sent <= PACE_PART_BYTES + 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pace__no_limit_is_none),
        cmocka_unit_test(test_pace__exact_over_seconds),
        cmocka_unit_test(test_pace__slow_is_smooth),
        cmocka_unit_test(test_pace__idleness_saves_little),
        cmocka_unit_test(test_pace__peer_and_class_have_their_own),
        cmocka_unit_test(test_pace__changed_while_running),
        cmocka_unit_test(test_pace__debt_and_giving_back),
        cmocka_unit_test(test_pace__absurd_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
