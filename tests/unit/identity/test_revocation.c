#include "tests/unit/identity/forge.h"

static struct err err;
static char why[IDENTITY_WHY_SIZE];
static struct identity_peer peer;

#define RECORD_MAX 2048

/* founder -> middle -> leaf, and a second member beside the middle one. */
struct family {
    struct forge_node founder, middle, leaf, uncle;
};

static struct family forge_family(void)
{
    struct family family = {forge_founder(), forge_node(), forge_node(), forge_node()};
    assert_int_equal(forge_join(&family.founder, &family.middle, RIGHT_ADMIT), 0);
    assert_int_equal(forge_join(&family.founder, &family.uncle, RIGHT_ADMIT), 0);
    assert_int_equal(forge_join(&family.middle, &family.leaf, RIGHT_ADMIT), 0);
    return family;
}

static void family_done(struct family *family)
{
    forge_done(&family->founder);
    forge_done(&family->middle);
    forge_done(&family->leaf);
    forge_done(&family->uncle);
}

static int judge(struct forge_node *host, struct forge_node *subject)
{
    return forge_verify(host->identity, subject->identity, NOW, &peer, why, &err);
}

static void test_revocation__root_revokes_by_id_alone(void **state) /* faults 85 */
{
    (void)state;
    struct family f = forge_family();
    OWNED(buf_release) struct buf record = BUF(RECORD_MAX);
    const struct id *leaf = identity_id(f.leaf.identity);
    assert_int_equal(judge(&f.uncle, &f.leaf), 0);
    assert_int_equal(identity_revoke(f.founder.identity, leaf, NULL, 0, NOW, &record, &err), 0);
    assert_int_equal(judge(&f.founder, &f.leaf), ERR_AUTH);

    struct id node;
    assert_int_equal(identity_add_revocation(f.uncle.identity, record.data, record.len, &node, &err), 1);
    assert_true(id_equal(&node, leaf));
    assert_int_equal(identity_add_revocation(f.uncle.identity, record.data, record.len, &node, &err), 0);
    assert_true(identity_is_revoked(f.uncle.identity, leaf));
    assert_int_equal(judge(&f.uncle, &f.leaf), ERR_AUTH);
    assert_string_equal(err.text, "certificate not accepted");
    assert_non_null(strstr(why, "revoked"));
    forge_reopen(&f.uncle);
    assert_int_equal(judge(&f.uncle, &f.leaf), ERR_AUTH);
    assert_int_equal(judge(&f.uncle, &f.middle), 0);
    size_t len;
    assert_int_equal(identity_revocation_count(f.uncle.identity), 1);
    assert_memory_equal(identity_revocation_at(f.uncle.identity, 0, &len), record.data, record.len);
    family_done(&f);
}

static void test_revocation__whoever_is_below_falls_too(void **state) /* faults 85 */
{
    (void)state;
    struct family f = forge_family();
    OWNED(buf_release) struct buf record = BUF(RECORD_MAX);
    assert_int_equal(identity_revoke(f.founder.identity, identity_id(f.middle.identity), NULL, 0, NOW, &record, &err),
                     0);
    assert_int_equal(judge(&f.founder, &f.middle), ERR_AUTH);
    assert_int_equal(judge(&f.founder, &f.leaf), ERR_AUTH);
    assert_int_equal(judge(&f.founder, &f.uncle), 0);
    family_done(&f);
}

/* A key is revoked, not a certificate: a fresh chain by another way does not help. */
static void test_revocation__another_chain_of_the_key_is_refused(void **state) /* faults 85 */
{
    (void)state;
    struct family f = forge_family();
    OWNED(buf_release) struct buf record = BUF(RECORD_MAX);
    struct id node;
    assert_int_equal(identity_revoke(f.middle.identity, identity_id(f.leaf.identity), NULL, 0, NOW, &record, &err), 0);
    assert_int_equal(identity_add_revocation(f.founder.identity, record.data, record.len, &node, &err), 1);
    struct chain chain;
    assert_int_equal(identity_issue(f.uncle.identity, identity_public_key(f.leaf.identity), 0, NOW, &chain, &err), 0);
    assert_int_equal(identity_chain_judge(f.uncle.identity, &chain, 0, NOW, why, &err), 0);
    assert_int_equal(identity_chain_judge(f.founder.identity, &chain, 0, NOW, why, &err), ERR_AUTH);
    family_done(&f);
}

static void test_revocation__issuer_needs_the_chain(void **state)
{
    (void)state;
    struct family f = forge_family();
    OWNED(buf_release) struct buf record = BUF(RECORD_MAX);
    OWNED(buf_release) struct buf chain = BUF(LIMIT_CHAIN_BYTES);
    const struct id *leaf = identity_id(f.leaf.identity);
    assert_int_equal(identity_payload(f.leaf.identity, &chain, &err), 0);
    /* beside, below, unknown */
    assert_int_equal(identity_revoke(f.uncle.identity, leaf, NULL, 0, NOW, &record, &err), ERR_NOTFOUND);
    assert_int_equal(identity_revoke(f.uncle.identity, leaf, chain.data, chain.len, NOW, &record, &err), ERR_DENIED);
    assert_int_equal(identity_revoke(f.leaf.identity, leaf, chain.data, chain.len, NOW, &record, &err), ERR_DENIED);
    assert_int_equal(identity_revoke(f.middle.identity, leaf, chain.data, chain.len - 1, NOW, &record, &err),
                     ERR_INVALID);
    assert_int_equal(record.len, 0);
    assert_int_equal(identity_revoke(f.middle.identity, leaf, chain.data, chain.len, NOW, &record, &err), 0);
    family_done(&f);
}

static void test_revocation__cut_or_changed_records_are_refused(void **state) /* faults 85 */
{
    (void)state;
    struct family f = forge_family();
    OWNED(buf_release) struct buf record = BUF(RECORD_MAX);
    struct id node;
    assert_int_equal(identity_revoke(f.middle.identity, identity_id(f.leaf.identity), NULL, 0, NOW, &record, &err), 0);
    for (size_t len = 0; len < record.len; len++)
        assert_int_equal(identity_add_revocation(f.uncle.identity, record.data, len, &node, &err), ERR_PROTOCOL);
    for (size_t i = 0; i < record.len; i++) {
        record.data[i] ^= 0x10;
        assert_true(identity_add_revocation(f.uncle.identity, record.data, record.len, &node, &err) < 0);
        record.data[i] ^= 0x10;
    }
    assert_int_equal(identity_revocation_count(f.uncle.identity), 0);
    assert_int_equal(identity_add_revocation(f.uncle.identity, record.data, record.len, &node, &err), 1);
    family_done(&f);
}

/* The leaf says that it stands above the middle, with signer places that are not its own. */
static void test_revocation__nobody_revokes_upwards(void **state) /* faults 85 */
{
    (void)state;
    struct family f = forge_family();
    OWNED(buf_release) struct buf record = BUF(RECORD_MAX);
    assert_int_equal(identity_revoke(f.middle.identity, identity_id(f.leaf.identity), NULL, 0, NOW, &record, &err), 0);
    struct id node;
    for (unsigned signer = 0; signer < 256; signer++) {
        record.data[9] = (uint8_t)signer;
        int status = identity_add_revocation(f.uncle.identity, record.data, record.len, &node, &err);
        assert_int_equal(status, signer == 2 ? 1 : ERR_AUTH); /* root is 0, founder 1, middle 2 */
    }
    family_done(&f);
}

/* The chain of a node that the signer admitted, in a record about one that it did not. */
static void test_revocation__chain_must_be_the_nodes_own(void **state) /* faults 85 */
{
    (void)state;
    struct family f = forge_family();
    OWNED(buf_release) struct buf record = BUF(RECORD_MAX);
    OWNED(buf_release) struct buf chain = BUF(LIMIT_CHAIN_BYTES);
    const struct id *uncle = identity_id(f.uncle.identity);
    assert_int_equal(identity_payload(f.leaf.identity, &chain, &err), 0);
    assert_int_equal(identity_revoke(f.middle.identity, uncle, chain.data, chain.len, NOW, &record, &err), ERR_AUTH);
    assert_false(identity_is_revoked(f.middle.identity, uncle));
    family_done(&f);
}

static void test_revocation__other_cluster_is_refused(void **state)
{
    (void)state;
    struct forge_node here = forge_founder();
    struct forge_node there = forge_founder();
    OWNED(buf_release) struct buf record = BUF(RECORD_MAX);
    struct id node;
    assert_int_equal(identity_revoke(there.identity, identity_id(here.identity), NULL, 0, NOW, &record, &err), 0);
    assert_int_equal(identity_add_revocation(here.identity, record.data, record.len, &node, &err), ERR_AUTH);
    forge_done(&here);
    forge_done(&there);
}

/* A member fills the list with nodes of its own making: the root's word still finds a place. */
static void test_revocation__full_list_gives_way_to_the_root(void **state)
{
    (void)state;
    struct family f = forge_family();
    struct id node;
    OWNED(buf_release) struct buf last = BUF(RECORD_MAX);
    OWNED(buf_release) struct buf record = BUF(RECORD_MAX);
    assert_int_equal(identity_revoke(f.middle.identity, identity_id(f.leaf.identity), NULL, 0, NOW, &record, &err), 0);
    assert_int_equal(identity_add_revocation(f.uncle.identity, record.data, record.len, &node, &err), 1);
    while (f.uncle.identity->revocation_count < LIMIT_REVOCATIONS) {
        struct revocation *slot = &f.uncle.identity->revocations[f.uncle.identity->revocation_count++];
        *slot = f.uncle.identity->revocations[0];
        slot->record = malloc(slot->len);
        memcpy(slot->record, record.data, slot->len);
        crypto_random(&slot->node, sizeof slot->node);
    }
    assert_int_equal(identity_revoke(f.founder.identity, identity_id(f.middle.identity), NULL, 0, NOW, &last, &err), 0);
    assert_int_equal(identity_add_revocation(f.uncle.identity, last.data, last.len, &node, &err), 1);
    assert_int_equal(identity_revocation_count(f.uncle.identity), LIMIT_REVOCATIONS);
    assert_true(identity_is_revoked(f.uncle.identity, identity_id(f.middle.identity)));
    f.uncle.identity->revocations[0].node.b[0] ^= 1;
    assert_int_equal(identity_add_revocation(f.uncle.identity, record.data, record.len, &node, &err), ERR_LIMIT);
    family_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_revocation__root_revokes_by_id_alone),
        cmocka_unit_test(test_revocation__whoever_is_below_falls_too),
        cmocka_unit_test(test_revocation__another_chain_of_the_key_is_refused),
        cmocka_unit_test(test_revocation__issuer_needs_the_chain),
        cmocka_unit_test(test_revocation__cut_or_changed_records_are_refused),
        cmocka_unit_test(test_revocation__nobody_revokes_upwards),
        cmocka_unit_test(test_revocation__chain_must_be_the_nodes_own),
        cmocka_unit_test(test_revocation__other_cluster_is_refused),
        cmocka_unit_test(test_revocation__full_list_gives_way_to_the_root),
    };
    return crypto_init(NULL) < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
