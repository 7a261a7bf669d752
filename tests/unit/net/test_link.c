#include "node/net/link.h"

#include "node/base/wire.h"
#include "tests/unit/net/rig.h"

#define TYPE (SESSION_TYPE_APP + 5)

static void test_link__up_and_down_in_pairs(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    rig_pair(&rig, &a, &b);
    side_dial(&a, &b, true);
    assert_true(links_dialling(a.links, side_id(&b)));
    assert_int_equal(links_dials(a.links), 1);
    RIG_UNTIL(&rig, a.ups == 1 && b.ups == 1);
    assert_true(id_equal(&link_peer(a.link)->id, side_id(&b)));
    assert_true(id_equal(&link_peer(b.link)->id, side_id(&a)));
    assert_true(link_dialled(a.link) && !link_dialled(b.link));
    assert_ptr_equal(links_find(a.links, side_id(&b)), a.link);
    side_dial(&a, &b, true); /* there is one */
    assert_int_equal(links_dials(a.links), 0);
    links_cut(a.links, side_id(&b), SESSION_REASON_DONE);
    assert_null(links_find(a.links, side_id(&b)));
    assert_int_equal(a.downs, 0); /* not from inside the call */
    RIG_UNTIL(&rig, a.downs == 1 && b.downs == 1);
    assert_int_equal(a.failures + b.failures, 0);
    rig_part(&rig, &a, &b);
}

static void test_link__reason_of_the_peer_is_told(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    rig_pair(&rig, &a, &b);
    side_dial(&a, &b, true);
    RIG_UNTIL(&rig, a.ups == 1 && b.ups == 1);
    side_close(&b);
    RIG_UNTIL(&rig, a.downs == 1);
    assert_string_equal(a.why, "the peer stops");
    rig_part(&rig, &a, &b);
}

static bool is_one_link(const struct side *a, const struct side *b)
{
    return links_count(a->links) == 1 && links_count(b->links) == 1 && a->ups == a->downs + 1 && b->ups == b->downs + 1;
}

/* Both dial in the same moment: both ends keep the one that the smaller id dialled. */
static void test_link__crossed_dials_leave_one(void **state)
{
    (void)state;
    for (int round = 0; round < 8; round++) {
        struct rig rig;
        struct side a, b;
        rig_pair(&rig, &a, &b);
        side_dial(&a, &b, true);
        side_dial(&b, &a, true);
        if (round % 2)
            rig_run(&rig, 1);
        RIG_UNTIL(&rig, a.ups > 0 && b.ups > 0 && is_one_link(&a, &b));
        rig_run(&rig, 50);
        assert_true(is_one_link(&a, &b));
        struct link *kept = links_find(a.links, side_id(&b));
        if (b.ups == 2 || a.ups == 2)
            assert_true(link_dialled(kept));
        assert_int_equal(link_dialled(kept), !link_dialled(links_find(b.links, side_id(&a))));
        assert_int_equal(a.failures + b.failures, 0); /* a duplicate is no failure of a dial */
        rig_part(&rig, &a, &b);
    }
}

/* Of one dialler, by id and by address: the two ends may see them open in different orders. */
static void test_link__two_dials_of_one_leave_one(void **state)
{
    (void)state;
    for (int round = 0; round < 8; round++) {
        struct rig rig;
        struct side a, b;
        rig_pair(&rig, &a, &b);
        side_dial(&a, &b, true);
        side_dial(&a, &b, false);
        side_dial(&a, &b, false); /* not a third one */
        assert_true(links_dials(a.links) <= 2);
        RIG_UNTIL(&rig, a.ups > 0 && b.ups > 0 && is_one_link(&a, &b));
        rig_run(&rig, 50);
        assert_true(is_one_link(&a, &b));
        rig_part(&rig, &a, &b);
    }
}

/* A peer was restarted, and its old link is still thought to be alive here: whoever dialled that. */
static void restarted(bool old_dialled_here, bool smaller_here)
{
    struct rig rig;
    struct side a, b;
    rig_pair(&rig, &a, &b);
    struct side *here = smaller_here ? &a : &b, *there = smaller_here ? &b : &a;
    side_dial(old_dialled_here ? here : there, old_dialled_here ? there : here, true);
    RIG_UNTIL(&rig, a.ups == 1 && b.ups == 1);
    struct side again = {.who = there->who};
    side_open(&again, &rig);
    rig.ahead_ms += LIMIT_HANDSHAKE_MS + 1;
    side_dial(&again, here, true);
    RIG_UNTIL(&rig, again.ups == 1 && here->ups == 2 && here->downs == 1);
    assert_int_equal(again.downs, 0);
    assert_int_equal(links_count(here->links), 1);
    assert_ptr_equal(links_find(here->links, side_id(&again)), here->link);
    RIG_UNTIL(&rig, there->downs == 1);
    side_close(&again);
    rig_part(&rig, &a, &b);
}

static void test_link__restarted_peer_replaces_its_old_link(void **state)
{
    (void)state;
    restarted(true, true);
    restarted(true, false);
    restarted(false, true);
    restarted(false, false);
}

static void test_link__wrong_node(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    rig_pair(&rig, &a, &b);
    struct id other = *side_id(&b);
    other.b[0] ^= 1;
    struct addr addr = side_addr(&b);
    struct err err = {0};
    assert_int_equal(links_dial(a.links, &addr, &other, &err), 0);
    RIG_UNTIL(&rig, a.failures == 1);
    assert_int_equal(a.failure, ERR_AUTH);
    /* This node itself, which any node would be. */
    addr = side_addr(&a);
    assert_int_equal(links_dial(a.links, &addr, NULL, &err), 0);
    RIG_UNTIL(&rig, a.failures == 2);
    assert_int_equal(a.failure, ERR_CONFLICT);
    rig_run(&rig, 50);
    assert_int_equal(a.ups + b.ups, 0);
    rig_part(&rig, &a, &b);
}

static void test_link__nobody_there(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    rig_pair(&rig, &a, &b);
    struct addr addr = side_addr(&b);
    struct err err = {0};
    side_close(&b);
    assert_int_equal(links_dial(a.links, &addr, side_id(&b), &err), 0);
    RIG_UNTIL(&rig, a.failures == 1);
    assert_int_equal(a.failure, ERR_UNAVAILABLE);
    rig_part(&rig, &a, &b);
}

/* faults 84 */
static void test_link__another_cluster(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    rig_pair(&rig, &a, &b);
    struct side x = {.who = forge_founder()};
    side_open(&x, &rig);
    side_dial(&x, &a, false);
    RIG_UNTIL(&rig, x.failures == 1);
    rig_run(&rig, 20);
    assert_int_equal(x.ups + a.ups, 0);
    side_close(&x);
    forge_done(&x.who);
    rig_part(&rig, &a, &b);
}

static void test_link__revoked_node_is_out(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    rig_pair(&rig, &a, &b);
    struct side *root = identity_has_root(a.who.identity) ? &a : &b, *out = root == &a ? &b : &a;
    OWNED(buf_release) struct buf record = BUF(LIMIT_CONTROL_BYTES);
    struct err err = {0};
    assert_int_equal(identity_revoke(root->who.identity, side_id(out), NULL, 0, NOW, &record, &err), 0);
    side_dial(root, out, true);
    RIG_UNTIL(&rig, root->failures == 1);
    assert_int_equal(root->ups, 0);
    /* The dialler of a session opens it first; it hears at once that it is not wanted. */
    side_dial(out, root, true);
    RIG_UNTIL(&rig, out->ups == 1 && out->downs == 1);
    assert_int_equal(root->ups, 0);
    rig_part(&rig, &a, &b);
}

static void test_link__guest_is_known_as_one_and_may_not_stay(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    struct err err = {0};
    rig_pair(&rig, &a, &b);
    struct side guest = {.who = forge_node()};
    assert_int_equal(identity_expect_cluster(guest.who.identity, identity_cluster(a.who.identity), &err), 0);
    side_open(&guest, &rig);
    side_dial(&guest, &a, false);
    RIG_UNTIL(&rig, guest.ups == 1 && a.ups == 1);
    assert_true(link_peer(a.link)->guest);
    assert_int_equal(links_count(a.links), 0); /* of members */
    rig.ahead_ms += LIMIT_GUEST_MS - 1000;
    assert_int_equal(link_send(guest.link, TYPE, "x", 1, NULL, 0, &err), 0);
    RIG_UNTIL(&rig, a.messages == 1);
    rig_run(&rig, 20);
    assert_int_equal(a.downs, 0);
    rig.ahead_ms += 2000; /* it is alive, and that is not enough */
    assert_int_equal(link_send(guest.link, TYPE, "x", 1, NULL, 0, &err), 0);
    RIG_UNTIL(&rig, a.downs == 1 && guest.downs == 1);
    side_close(&guest);
    forge_done(&guest.who);
    rig_part(&rig, &a, &b);
}

/* A stranger that sends a byte now and then is cut by the deadline, faults 24. */
static void test_link__slow_handshake_is_closed(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    rig_pair(&rig, &a, &b);
    int slow = rig_stranger(&a);
    assert_int_equal(send(slow, "\0", 1, 0), 1);
    rig_run(&rig, 50);
    assert_false(rig_is_closed(slow));
    rig.ahead_ms += LIMIT_HANDSHAKE_MS;
    assert_int_equal(send(slow, "\0", 1, 0), 1);
    RIG_UNTIL(&rig, rig_is_closed(slow));
    /* What is no handshake at all is closed at once. */
    int rubbish = rig_stranger(&a);
    assert_int_equal(send(rubbish, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    RIG_UNTIL(&rig, rig_is_closed(rubbish));
    close(slow);
    close(rubbish);
    rig_part(&rig, &a, &b);
}

/* TCP connects and then nothing comes: the dial fails in time. */
static void test_link__dial_to_the_mute_fails(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    rig_pair(&rig, &a, &b);
    int mute = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sock = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sock;
    assert_int_equal(bind(mute, (struct sockaddr *)&sock, sizeof sock), 0);
    assert_int_equal(listen(mute, 4), 0);
    assert_int_equal(getsockname(mute, (struct sockaddr *)&sock, &len), 0);
    struct addr addr = sock_to_addr((struct sockaddr *)&sock);
    struct err err = {0};
    assert_int_equal(links_dial(a.links, &addr, side_id(&b), &err), 0);
    rig_run(&rig, LIMIT_HANDSHAKE_MS - 1000);
    assert_int_equal(a.failures, 0);
    RIG_UNTIL(&rig, a.failures == 1);
    assert_int_equal(a.failure, ERR_TIMEOUT);
    close(mute);
    rig_part(&rig, &a, &b);
}

static void test_link__strangers_of_one_block_have_few_places(void **state)
{
    (void)state;
    enum { COUNT = LIMIT_SESSIONS_PER_BLOCK + 6 };
    struct rig rig;
    struct side a, b;
    rig_pair(&rig, &a, &b);
    int fds[COUNT], open = 0;
    for (int i = 0; i < COUNT; i++) {
        fds[i] = rig_stranger(&a);
        rig_run(&rig, 2);
    }
    rig_run(&rig, 50);
    for (int i = 0; i < COUNT; i++)
        open += !rig_is_closed(fds[i]);
    assert_int_equal(open, LIMIT_SESSIONS_PER_BLOCK);
    /* What this node dials is not theirs to deny. */
    side_dial(&a, &b, true);
    RIG_UNTIL(&rig, a.ups == 1 && b.ups == 1);
    for (int i = 0; i < COUNT; i++)
        close(fds[i]);
    rig_run(&rig, 50);
    links_cut(a.links, side_id(&b), SESSION_REASON_DONE);
    RIG_UNTIL(&rig, b.downs == 1);
    side_dial(&b, &a, true);
    RIG_UNTIL(&rig, b.ups == 2);
    rig_part(&rig, &a, &b);
}

/* ---- inside callbacks ---- */

static void flood(struct side *side, struct link *link)
{
    static const uint8_t bytes[SESSION_FRAME_BYTES];
    (void)side;
    struct err err;
    int status = 0;
    for (int i = 0; i < 1000 && status == 0; i++)
        status = link_send(link, TYPE, NULL, 0, bytes, sizeof bytes - 1, &err);
    assert_true(status == 0 || status == ERR_LIMIT || status == ERR_CLOSED);
}

static int flood_back(struct side *side, struct link *link, const uint8_t *data, size_t len, struct err *err)
{
    (void)data;
    (void)len;
    (void)err;
    flood(side, link);
    return 0;
}

static int die(struct side *side, struct link *link, const uint8_t *data, size_t len, struct err *err)
{
    (void)link;
    (void)data;
    (void)len;
    (void)err;
    links_close(side->links, SESSION_REASON_SHUTDOWN);
    return 0;
}

static void send_too_late(struct side *side, struct link *link)
{
    struct err err = {0};
    (void)side;
    assert_int_equal(link_send(link, TYPE, "x", 1, NULL, 0, &err), ERR_CLOSED);
    assert_int_equal(link_room(link), 0);
    link_close(link, SESSION_REASON_DONE);
}

/* One side sends all it can whenever it may, the other dies in the middle of a message of it. */
static void test_link__send_in_callbacks_while_the_peer_dies(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    rig_pair(&rig, &a, &b);
    a.at_up = flood;
    a.at_message = flood_back;
    a.at_down = b.at_down = send_too_late;
    b.at_up = flood;
    b.at_message = die;
    side_dial(&a, &b, true);
    RIG_UNTIL(&rig, a.ups == 1 && a.downs == 1 && b.ups == 1 && b.downs == 1);
    rig_part(&rig, &a, &b);
}

static void close_at_once(struct side *side, struct link *link)
{
    (void)side;
    link_close(link, SESSION_REASON_DONE);
    link_close(link, SESSION_REASON_DONE);
}

static int refuse(struct side *side, struct link *link, const uint8_t *data, size_t len, struct err *err)
{
    (void)data;
    (void)len;
    link_close(link, SESSION_REASON_DONE);
    links_cut(side->links, &link_peer(link)->id, SESSION_REASON_DONE);
    return err_set(err, ERR_PROTOCOL, "not that");
}

static void test_link__close_in_callbacks(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    rig_pair(&rig, &a, &b);
    a.at_up = close_at_once;
    side_dial(&a, &b, true);
    RIG_UNTIL(&rig, a.ups == 1 && a.downs == 1 && b.ups == b.downs);
    a.at_up = flood;
    b.at_message = refuse;
    rig_run(&rig, 20);
    unsigned before = b.ups;
    side_dial(&b, &a, true);
    RIG_UNTIL(&rig, b.ups == before + 1 && b.downs == b.ups && a.downs == 2);
    rig_part(&rig, &a, &b);
}

/* Closing while a handshake is in the middle, in either role, leaks nothing and tells who dialled. */
static void test_link__closed_in_the_middle_of_handshakes(void **state)
{
    (void)state;
    for (int turns = 0; turns < 12; turns++) {
        struct rig rig;
        struct side a, b;
        rig_pair(&rig, &a, &b);
        side_dial(&a, &b, true);
        side_dial(&b, &a, false);
        for (int i = 0; i < turns; i++)
            uv_run(&rig.loop, UV_RUN_NOWAIT);
        side_close(&a);
        side_close(&b);
        rig_part(&rig, &a, &b);
    }
}

#define PORTION_BYTES 65536u
#define PORTIONS 160u

/* Sends as the exchange does: so much at a time, and more when it is told that bytes have left. */
static void send_portions(struct side *side, struct link *link)
{
    static const uint8_t portion[PORTION_BYTES];
    struct err err = {0};
    for (unsigned i = 0; i < 8 && side->writables < PORTIONS; i++, side->writables++)
        assert_int_equal(link_send(link, TYPE, NULL, 0, portion, sizeof portion, &err), 0);
}

static int count_bytes(struct side *side, struct link *link, const uint8_t *data, size_t len, struct err *err)
{
    (void)link, (void)data, (void)err;
    side->got_bytes += len;
    return 0;
}

/* Also where the kernel takes all of it at once. */
static void test_link__who_sends_is_told_when_it_has_left(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    rig_pair(&rig, &a, &b);
    b.at_message = count_bytes;
    side_dial(&a, &b, true);
    RIG_UNTIL(&rig, a.ups == 1 && b.ups == 1);
    a.at_writable = send_portions;
    send_portions(&a, a.link);
    RIG_UNTIL(&rig, b.got_bytes == (uint64_t)PORTIONS * PORTION_BYTES);
    assert_int_equal(a.ups, 1);
    rig_part(&rig, &a, &b);
}

static int expect_next(struct side *side, struct link *link, const uint8_t *data, size_t len, struct err *err)
{
    (void)link, (void)err;
    assert_int_equal(len, 4);
    assert_int_equal(wire_load_u32(data), side->got_bytes);
    side->got_bytes++;
    return 0;
}

/* What is sent in one turn is written together: nothing is lost of it, also when the link is closed in that turn. */
static void test_link__many_small_ones_and_good_bye(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    rig_pair(&rig, &a, &b);
    b.at_message = expect_next;
    side_dial(&a, &b, true);
    RIG_UNTIL(&rig, a.ups == 1 && b.ups == 1);
    for (uint32_t i = 0; i < 1000; i++) {
        uint8_t number[4];
        wire_store_u32(number, i);
        assert_int_equal(link_send(a.link, TYPE, number, sizeof number, NULL, 0, NULL), 0);
    }
    link_close(a.link, SESSION_REASON_DONE);
    RIG_UNTIL(&rig, a.downs == 1 && b.downs == 1);
    assert_int_equal(b.got_bytes, 1000);
    rig_part(&rig, &a, &b);
}

static void test_link__listen(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    struct err err = {0};
    rig_pair(&rig, &a, &b);
    struct addr taken = side_addr(&a), any = rig_loopback(0);
    assert_int_equal(links_listen(b.links, &taken, &err), ERR_BUSY);
    assert_int_equal(links_listen(b.links, &any, &err), 0); /* what failed is no hindrance */
    assert_int_not_equal(links_port(b.links, 0), links_port(b.links, 1));
    struct addr second = rig_loopback(links_port(b.links, 1));
    assert_int_equal(links_dial(a.links, &second, side_id(&b), &err), 0);
    RIG_UNTIL(&rig, a.ups == 1 && b.ups == 1);
    links_unlisten(b.links, 1);
    assert_int_equal(links_port(b.links, 1), 0);
    rig_part(&rig, &a, &b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_link__up_and_down_in_pairs),
        cmocka_unit_test(test_link__reason_of_the_peer_is_told),
        cmocka_unit_test(test_link__crossed_dials_leave_one),
        cmocka_unit_test(test_link__two_dials_of_one_leave_one),
        cmocka_unit_test(test_link__restarted_peer_replaces_its_old_link),
        cmocka_unit_test(test_link__wrong_node),
        cmocka_unit_test(test_link__nobody_there),
        cmocka_unit_test(test_link__another_cluster),
        cmocka_unit_test(test_link__revoked_node_is_out),
        cmocka_unit_test(test_link__guest_is_known_as_one_and_may_not_stay),
        cmocka_unit_test(test_link__slow_handshake_is_closed),
        cmocka_unit_test(test_link__dial_to_the_mute_fails),
        cmocka_unit_test(test_link__strangers_of_one_block_have_few_places),
        cmocka_unit_test(test_link__send_in_callbacks_while_the_peer_dies),
        cmocka_unit_test(test_link__close_in_callbacks),
        cmocka_unit_test(test_link__closed_in_the_middle_of_handshakes),
        cmocka_unit_test(test_link__who_sends_is_told_when_it_has_left),
        cmocka_unit_test(test_link__many_small_ones_and_good_bye),
        cmocka_unit_test(test_link__listen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
