#include "tests/unit/identity/forge.h"

static struct err err;
static char why[IDENTITY_WHY_SIZE];

static void test_peer__member_knows_member(void **state)
{
    (void)state;
    struct forge_node host = forge_founder();
    struct forge_node guest = forge_node();
    assert_int_equal(forge_join(&host, &guest, 0), 0);
    struct identity_peer peer;
    assert_int_equal(forge_verify(host.identity, guest.identity, NOW, &peer, why, &err), 0);
    assert_false(peer.guest);
    assert_int_equal(peer.rights, 0);
    assert_true(id_equal(&peer.id, identity_id(guest.identity)));
    assert_memory_equal(peer.public_key, identity_public_key(guest.identity), 32);
    assert_int_equal(forge_verify(guest.identity, host.identity, NOW, &peer, why, &err), 0);
    assert_int_equal(peer.rights, RIGHT_ALL);
    forge_done(&host);
    forge_done(&guest);
}

static void test_peer__empty_payload_is_a_guest(void **state)
{
    (void)state;
    struct forge_node host = forge_founder();
    struct forge_node guest = forge_node();
    struct identity_peer peer;
    assert_int_equal(forge_verify(host.identity, guest.identity, NOW, &peer, why, &err), 0);
    assert_true(peer.guest);
    assert_int_equal(peer.rights, 0);
    forge_done(&host);
    forge_done(&guest);
}

/* Whatever is wrong, the other side reads one text; the log reads the reason. */
static void test_peer__all_refusals_read_the_same(void **state) /* faults 84 */
{
    (void)state;
    struct forge_node host = forge_founder();
    struct forge_node stranger = forge_founder();
    struct identity_peer peer;
    char seen[4][IDENTITY_WHY_SIZE];
    for (unsigned i = 0; i < 4; i++) {
        OWNED(buf_release) struct buf payload = BUF(LIMIT_CHAIN_BYTES);
        uint8_t remote_static[CRYPTO_DH_BYTES];
        const struct identity *subject = i == 0 ? stranger.identity : host.identity;
        forge_static(i == 1 ? stranger.identity : subject, remote_static);
        assert_int_equal(identity_payload(subject, &payload, &err), 0);
        size_t len = i == 2 ? payload.len - 1 : payload.len;
        uint64_t now = i == 3 ? NOW + 2 * YEAR : NOW;
        assert_int_equal(identity_verify_peer(host.identity, remote_static, payload.data, len, now, &peer, why, &err),
                         ERR_AUTH);
        assert_string_equal(err.text, "certificate not accepted");
        memcpy(seen[i], why, sizeof why);
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(seen[j], why);
    }
    forge_done(&host);
    forge_done(&stranger);
}

/* The chain of a member, shown in a session of somebody else's key. */
static void test_peer__borrowed_chain_is_refused(void **state) /* faults 88 */
{
    (void)state;
    struct forge_node host = forge_founder();
    struct forge_node thief = forge_node();
    OWNED(buf_release) struct buf payload = BUF(LIMIT_CHAIN_BYTES);
    assert_int_equal(identity_payload(host.identity, &payload, &err), 0);
    uint8_t remote_static[CRYPTO_DH_BYTES];
    forge_static(thief.identity, remote_static);
    struct identity_peer peer;
    assert_int_equal(
        identity_verify_peer(host.identity, remote_static, payload.data, payload.len, NOW, &peer, why, &err), ERR_AUTH);
    assert_non_null(strstr(why, "another key"));
    forge_done(&host);
    forge_done(&thief);
}

/* A newcomer that named no cluster believes nobody. */
static void test_peer__without_a_cluster_nobody_is_believed(void **state) /* faults 87 */
{
    (void)state;
    struct forge_node host = forge_founder();
    struct forge_node guest = forge_node();
    struct identity_peer peer;
    assert_int_equal(forge_verify(guest.identity, host.identity, NOW, &peer, why, &err), ERR_AUTH);
    forge_done(&host);
    forge_done(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peer__member_knows_member),
        cmocka_unit_test(test_peer__empty_payload_is_a_guest),
        cmocka_unit_test(test_peer__all_refusals_read_the_same),
        cmocka_unit_test(test_peer__borrowed_chain_is_refused),
        cmocka_unit_test(test_peer__without_a_cluster_nobody_is_believed),
    };
    return crypto_init(NULL) < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
