#include "tests/unit/identity/forge.h"

#include <sys/stat.h>

static struct err err;
static char why[IDENTITY_WHY_SIZE];

/* A host that may admit, a guest with an invitation of one use and its request, and what the host sees of it. */
struct scene {
    struct forge_node host, guest;
    struct admission_guard *guard;
    struct invitation invitation;
    struct buf request, reply;
    uint8_t remote_static[CRYPTO_DH_BYTES];
    struct admission admission;
    struct admission_result result;
};

static void set_scene(struct scene *s, unsigned uses)
{
    memset(s, 0, sizeof *s);
    s->host = forge_founder();
    s->guest = forge_node();
    s->request = s->reply = BUF(8192);
    s->invitation = (struct invitation){.host = "h", .port = 1, .cluster = *identity_cluster(s->host.identity)};
    assert_int_equal(admission_guard_new(&s->guard, &err), 0);
    assert_int_equal(invitation_create(s->host.identity, uses, 900, RIGHT_ADMIT, NOW, s->invitation.secret, &err), 0);
    assert_int_equal(identity_expect_cluster(s->guest.identity, &s->invitation.cluster, &err), 0);
    struct identity_peer peer;
    assert_int_equal(forge_verify(s->guest.identity, s->host.identity, NOW, &peer, why, &err), 0);
    assert_int_equal(admission_request(s->guest.identity, &s->invitation, &peer, "edge-7", &s->request, &err), 0);
    forge_static(s->guest.identity, s->remote_static);
    s->admission = (struct admission){.peer.guest = true,
                                      .remote_static = s->remote_static,
                                      .source = {4, 1, {10, 0, 0, 1}},
                                      .wall_s = NOW,
                                      .hints = (const uint8_t *)"hints",
                                      .hints_len = 5};
}

static void clear_scene(struct scene *s)
{
    forge_done(&s->host);
    forge_done(&s->guest);
    admission_guard_free(s->guard);
    buf_release(&s->request);
    buf_release(&s->reply);
}

static int answer(struct scene *s)
{
    buf_clear(&s->reply);
    return admission_answer(s->host.identity, s->guard, &s->admission, s->request.data, s->request.len, &s->reply,
                            &s->result, why, &err);
}

static int accept_reply(struct scene *s)
{
    const uint8_t *hints;
    size_t hints_len;
    return admission_accept(s->guest.identity, s->reply.data, s->reply.len, NOW, &hints, &hints_len, &err);
}

static void test_admission__guest_becomes_a_member(void **state)
{
    (void)state;
    struct scene s;
    set_scene(&s, 1);
    assert_int_equal(answer(&s), 0);
    assert_string_equal(s.result.name, "edge-7");
    assert_true(id_equal(&s.result.id, identity_id(s.guest.identity)));
    const uint8_t *hints;
    size_t hints_len;
    assert_int_equal(admission_accept(s.guest.identity, s.reply.data, s.reply.len, NOW, &hints, &hints_len, &err), 0);
    assert_int_equal(hints_len, 5);
    assert_memory_equal(hints, "hints", 5);
    forge_reopen(&s.guest);
    assert_true(identity_is_member(s.guest.identity));
    assert_int_equal(identity_rights(s.guest.identity), RIGHT_ADMIT);
    assert_false(identity_has_root(s.guest.identity));
    clear_scene(&s);
}

/* Used up, late, mistyped, for another key, revoked, malformed: the same bytes go out. */
static void test_admission__all_refusals_are_the_same_bytes(void **state) /* faults 86 */
{
    (void)state;
    static const uint8_t refusal[] = {1, 3, 1};
    for (int fault = 0; fault < 7; fault++) {
        struct scene s;
        set_scene(&s, 1);
        int expected = ERR_AUTH;
        if (fault == 0)
            assert_int_equal(answer(&s), 0);
        else if (fault == 1)
            s.admission.wall_s += 900;
        else if (fault == 2)
            s.request.data[2] ^= 1;
        else if (fault == 3)
            s.remote_static[0] ^= 1;
        else if (fault == 4) {
            OWNED(buf_release) struct buf record = BUF(2048);
            assert_int_equal(
                identity_revoke(s.host.identity, identity_id(s.guest.identity), NULL, 0, NOW, &record, &err), 0);
        } else if (fault == 5) {
            s.request.len--;
            expected = ERR_PROTOCOL;
        } else if (fault == 6) {
            buf_add(&s.request, "\x03", 1); /* rights, for instance: faults 88 */
            expected = ERR_PROTOCOL;
        }
        assert_int_equal(answer(&s), expected);
        assert_string_equal(err.text, "not admitted");
        assert_int_equal(s.reply.len, sizeof refusal);
        assert_memory_equal(s.reply.data, refusal, sizeof refusal);
        assert_int_not_equal(why[0], '\0');
        assert_int_equal(accept_reply(&s), ERR_AUTH);
        assert_false(identity_is_member(s.guest.identity));
        clear_scene(&s);
    }
}

/* Asking for a certificate for somebody else's key, over a session of one's own. */
static void test_admission__key_of_another_node_is_refused(void **state) /* faults 88 */
{
    (void)state;
    struct scene s;
    set_scene(&s, 1);
    struct forge_node other = forge_node();
    memcpy(s.request.data + 18, identity_public_key(other.identity), 32);
    assert_int_equal(answer(&s), ERR_AUTH);
    assert_non_null(strstr(why, "another key"));
    /* and the invitation was not used up by it */
    memcpy(s.request.data + 18, identity_public_key(s.guest.identity), 32);
    assert_int_equal(answer(&s), 0);
    forge_done(&other);
    clear_scene(&s);
}

/* An invitation without rights makes a member that can let nobody in, whatever it tries. */
static void test_admission__worker_cannot_admit(void **state) /* faults 86 */
{
    (void)state;
    struct scene s;
    set_scene(&s, 1);
    struct forge_node worker = forge_node();
    struct forge_node friend = forge_node();
    assert_int_equal(forge_join(&s.host, &worker, 0), 0);
    assert_int_equal(identity_expect_cluster(friend.identity, &s.invitation.cluster, &err), 0);
    struct identity_peer peer;
    OWNED(buf_release) struct buf request = BUF(256);
    assert_int_equal(forge_verify(friend.identity, worker.identity, NOW, &peer, why, &err), 0);
    assert_int_equal(admission_request(friend.identity, &s.invitation, &peer, "", &request, &err), ERR_AUTH);
    assert_int_equal(request.len, 0);

    /* a chain that the worker signs all the same */
    struct certificate certificate;
    struct chain chain = worker.identity->chain;
    identity_certificate_fill(&certificate, identity_public_key(friend.identity), 0, NOW, NOW, NOW + 1000);
    identity_chain_append(&chain, &certificate, &worker.identity->key);
    assert_int_equal(identity_chain_judge(s.host.identity, &chain, 0, NOW, why, &err), ERR_AUTH);
    assert_non_null(strstr(why, "without the right to admit"));
    forge_done(&worker);
    forge_done(&friend);
    clear_scene(&s);
}

/* Somebody between newcomer and inviter, a member of a cluster of his own: the secret stays where it is. */
static void test_admission__secret_is_not_shown_to_a_stranger(void **state) /* faults 87 */
{
    (void)state;
    struct scene s;
    set_scene(&s, 1);
    struct forge_node middle = forge_founder();
    struct forge_node guest = forge_node();
    struct identity_peer peer = {0};
    OWNED(buf_release) struct buf request = BUF(256);
    assert_int_equal(identity_expect_cluster(guest.identity, &s.invitation.cluster, &err), 0);
    assert_int_equal(forge_verify(guest.identity, middle.identity, NOW, &peer, why, &err), ERR_AUTH);
    peer.guest = true; /* or he shows no chain at all */
    assert_int_equal(admission_request(guest.identity, &s.invitation, &peer, "", &request, &err), ERR_AUTH);
    /* or the newcomer was made to expect his cluster */
    assert_int_equal(identity_expect_cluster(guest.identity, identity_cluster(middle.identity), &err), 0);
    assert_int_equal(forge_verify(guest.identity, middle.identity, NOW, &peer, why, &err), 0);
    assert_int_equal(admission_request(guest.identity, &s.invitation, &peer, "", &request, &err), ERR_AUTH);
    assert_int_equal(request.len, 0);
    forge_done(&middle);
    forge_done(&guest);
    clear_scene(&s);
}

static void test_admission__guessing_locks_the_source_out(void **state) /* faults 86 */
{
    (void)state;
    struct scene s;
    set_scene(&s, 1);
    s.request.data[2] ^= 1;
    for (int i = 0; i < 4; i++)
        assert_int_equal(answer(&s), ERR_AUTH);
    s.request.data[2] ^= 1; /* the right one, too soon */
    assert_int_equal(answer(&s), ERR_AUTH);
    assert_non_null(strstr(why, "wait"));
    s.admission.source.ip[1] = 9; /* from elsewhere it is good */
    assert_int_equal(answer(&s), 0);
    clear_scene(&s);
}

/* What is durable before the answer: after a crash, the use is gone. */
static void test_admission__redeemed_before_it_is_answered(void **state)
{
    (void)state;
    struct scene s;
    set_scene(&s, 1);
    assert_int_equal(answer(&s), 0);
    forge_reopen(&s.host);
    assert_int_equal(answer(&s), ERR_AUTH);
    struct chain chain;
    assert_int_equal(identity_issued_find(s.host.identity, identity_id(s.guest.identity), &chain, &err), 0);
    clear_scene(&s);
}

static void test_admission__longest_chain_admits_nobody(void **state)
{
    (void)state;
    struct forge_node nodes[LIMIT_CHAIN_CERTS + 1];
    nodes[0] = forge_founder();
    for (unsigned i = 1; i < LIMIT_CHAIN_CERTS; i++) {
        nodes[i] = forge_node();
        assert_int_equal(forge_join(&nodes[i - 1], &nodes[i], RIGHT_ADMIT), 0);
    }
    assert_int_equal(identity_rights(nodes[LIMIT_CHAIN_CERTS - 1].identity), 0);
    nodes[LIMIT_CHAIN_CERTS] = forge_node();
    assert_int_equal(forge_join(&nodes[LIMIT_CHAIN_CERTS - 1], &nodes[LIMIT_CHAIN_CERTS], 0), ERR_DENIED);
    for (unsigned i = 0; i <= LIMIT_CHAIN_CERTS; i++)
        forge_done(&nodes[i]);
}

static void test_admission__member_renews(void **state)
{
    (void)state;
    struct scene s;
    set_scene(&s, 1);
    buf_clear(&s.request);
    assert_int_equal(admission_renewal_request(s.guest.identity, &s.request, &err), ERR_CONFLICT);
    assert_int_equal(forge_join(&s.host, &s.guest, RIGHT_ADMIT), 0);
    assert_int_equal(admission_renewal_request(s.guest.identity, &s.request, &err), 0);
    assert_int_equal(answer(&s), ERR_AUTH); /* as a guest */
    assert_int_equal(forge_verify(s.host.identity, s.guest.identity, NOW, &s.admission.peer, why, &err), 0);
    assert_int_equal(answer(&s), ERR_AUTH); /* the host's ends as early */
    assert_non_null(strstr(why, "own certificate"));

    uint64_t later = NOW + YEAR - 1000;
    assert_true(identity_should_renew(s.guest.identity, later));
    assert_int_equal(identity_renew_from_root(s.host.identity, later, &err), 0);
    assert_int_equal(forge_verify(s.host.identity, s.guest.identity, later, &s.admission.peer, why, &err), 0);
    s.admission.wall_s = later;
    assert_int_equal(answer(&s), 0);
    const uint8_t *hints;
    size_t len;
    assert_int_equal(admission_accept(s.guest.identity, s.reply.data, s.reply.len, later, &hints, &len, &err), 0);
    assert_int_equal(identity_expires(s.guest.identity), later + YEAR);
    assert_int_equal(identity_rights(s.guest.identity), RIGHT_ADMIT);
    s.admission.wall_s = later + 2 * YEAR;
    assert_int_equal(answer(&s), ERR_AUTH);
    clear_scene(&s);
}

/* One entry a node, however often it renews; that of an expired node is used again. */
static void test_admission__account_of_the_issued_is_bounded(void **state)
{
    (void)state;
    struct forge_node host = forge_founder();
    struct chain chain;
    struct stat st;
    OWNED(owned_free) char *path = file_path("%s/issued", host.dir);
    for (uint8_t i = 0; i < 20; i++) {
        struct crypto_sign_key key = forge_key(i % 3);
        assert_int_equal(identity_issue(host.identity, key.public_key, 0, NOW + i, &chain, &err), 0);
    }
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 3 * (2 + LIMIT_CHAIN_BYTES));

    uint64_t later = NOW + 3 * YEAR;
    assert_int_equal(identity_renew_from_root(host.identity, later, &err), 0);
    struct crypto_sign_key key = forge_key(9);
    assert_int_equal(truncate(path, st.st_size - 5), 0); /* and what a crash tore */
    assert_int_equal(identity_issue(host.identity, key.public_key, 0, later, &chain, &err), 0);
    struct id node;
    crypto_id_of(key.public_key, 32, &node);
    assert_int_equal(identity_issued_find(host.identity, &node, &chain, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size < 3 * (2 + LIMIT_CHAIN_BYTES));
    forge_done(&host);
}

static void test_admission__cut_replies_are_refused(void **state)
{
    (void)state;
    struct scene s;
    set_scene(&s, 1);
    assert_int_equal(answer(&s), 0);
    size_t whole = s.reply.len;
    for (s.reply.len = 0; s.reply.len < whole; s.reply.len++)
        assert_int_equal(accept_reply(&s), ERR_PROTOCOL);
    assert_false(identity_is_member(s.guest.identity));
    assert_int_equal(accept_reply(&s), 0);
    clear_scene(&s);
}

static void test_admission__hostile_names_are_refused(void **state) /* faults 47 */
{
    (void)state;
    const char *names[] = {"a\nb", "-oProxyCommand=x", "../x", "a\0b", "\xff\xfe", " "};
    const size_t lengths[] = {3, 16, 4, 3, 2, 1};
    for (size_t i = 0; i < 6; i++) {
        struct scene s;
        set_scene(&s, 1);
        s.request.len -= 2 + strlen("edge-7");
        uint8_t head[2] = {0, (uint8_t)lengths[i]};
        buf_add(&s.request, head, 2);
        buf_add(&s.request, names[i], lengths[i]);
        assert_int_equal(answer(&s), ERR_PROTOCOL);
        clear_scene(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_admission__guest_becomes_a_member),
        cmocka_unit_test(test_admission__all_refusals_are_the_same_bytes),
        cmocka_unit_test(test_admission__key_of_another_node_is_refused),
        cmocka_unit_test(test_admission__worker_cannot_admit),
        cmocka_unit_test(test_admission__secret_is_not_shown_to_a_stranger),
        cmocka_unit_test(test_admission__guessing_locks_the_source_out),
        cmocka_unit_test(test_admission__redeemed_before_it_is_answered),
        cmocka_unit_test(test_admission__longest_chain_admits_nobody),
        cmocka_unit_test(test_admission__member_renews),
        cmocka_unit_test(test_admission__account_of_the_issued_is_bounded),
        cmocka_unit_test(test_admission__cut_replies_are_refused),
        cmocka_unit_test(test_admission__hostile_names_are_refused),
    };
    return crypto_init(NULL) < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
