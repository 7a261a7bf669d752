#include "tests/unit/identity/forge.h"

#include <sys/stat.h>

static struct err err;

static char *path_of(const struct forge_node *node, const char *name)
{
    return file_path("%s/%s", node->dir, name);
}

/* Opening DIR now fails with `code`. */
static void assert_unopenable(struct forge_node *node, int code)
{
    struct identity *identity = NULL;
    assert_int_equal(identity_open(node->dir, &identity, &err), code);
    assert_null(identity);
    assert_non_null(strstr(err.text, node->dir));
}

static void overwrite(const struct forge_node *node, const char *name, const char *text)
{
    OWNED(owned_free) char *path = path_of(node, name);
    assert_int_equal(file_write_atomic(path, text, strlen(text), 0600, &err), 0);
}

static void test_identity__key_is_made_once_and_private(void **state)
{
    (void)state;
    struct forge_node node = forge_node();
    struct id id = *identity_id(node.identity);
    struct id expected;
    crypto_id_of(identity_public_key(node.identity), 32, &expected);
    assert_true(id_equal(&id, &expected));
    OWNED(owned_free) char *path = path_of(&node, "node.key");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    forge_reopen(&node);
    assert_true(id_equal(&id, identity_id(node.identity)));
    assert_false(identity_is_member(node.identity));
    forge_done(&node);
}

static void test_identity__key_that_others_read_is_refused(void **state)
{
    (void)state;
    struct forge_node node = forge_node();
    OWNED(owned_free) char *path = path_of(&node, "node.key");
    assert_int_equal(chmod(path, 0640), 0);
    assert_unopenable(&node, ERR_DENIED);
    assert_int_equal(chmod(path, 0600), 0);
    forge_reopen(&node);
    forge_done(&node);
}

static void test_identity__malformed_key_is_refused_and_kept(void **state)
{
    (void)state;
    struct forge_node node = forge_node();
    const char *bad[] = {
        "",
        "00\n",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000000000000000000000000000000000000000000G\n",
        "ABCDEF0000000000000000000000000000000000000000000000000000000000\n",
        "00000000000000000000000000000000000000000000000000000000000000000\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        overwrite(&node, "node.key", bad[i]);
        assert_unopenable(&node, ERR_CORRUPT);
    }
    OWNED(owned_free) char *path = path_of(&node, "node.key");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/dev/zero", path), 0);
    assert_unopenable(&node, ERR_IO);
    forge_done(&node);
}

static void test_identity__init_makes_a_cluster_once(void **state)
{
    (void)state;
    struct forge_node node = forge_founder();
    assert_true(identity_is_member(node.identity));
    assert_true(identity_has_root(node.identity));
    assert_int_equal(identity_rights(node.identity), RIGHT_ALL);
    assert_int_equal(identity_expires(node.identity), NOW + YEAR);
    struct id cluster = *identity_cluster(node.identity);
    assert_int_equal(identity_init(node.identity, NOW, &err), ERR_EXISTS);
    forge_reopen(&node);
    assert_true(identity_is_member(node.identity));
    assert_true(id_equal(&cluster, identity_cluster(node.identity)));
    assert_int_equal(identity_init(node.identity, NOW, &err), ERR_EXISTS);
    forge_done(&node);
}

/* Killed between the root key and the chain: init goes on with the same root key. */
static void test_identity__interrupted_init_is_taken_up(void **state)
{
    (void)state;
    struct forge_node node = forge_founder();
    struct id cluster = *identity_cluster(node.identity);
    OWNED(owned_free) char *path = path_of(&node, "chain");
    assert_int_equal(unlink(path), 0);
    forge_reopen(&node);
    assert_false(identity_is_member(node.identity));
    assert_int_equal(identity_init(node.identity, NOW, &err), 0);
    assert_true(id_equal(&cluster, identity_cluster(node.identity)));
    forge_done(&node);
}

static void test_identity__damaged_files_are_named(void **state)
{
    (void)state;
    const char *names[] = {"chain", "cluster", "revocations", "root.key"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct forge_node node = forge_founder();
        overwrite(&node, names[i], "nonsense");
        assert_unopenable(&node, ERR_CORRUPT); /* faults 89: a deny list that cannot be read admits nobody */
        assert_non_null(strstr(err.text, names[i]));
        forge_done(&node);
    }
}

static void test_identity__chain_of_another_key_is_refused(void **state)
{
    (void)state;
    struct forge_node node = forge_founder();
    struct forge_node other = forge_founder();
    OWNED(buf_release) struct buf chain = BUF(LIMIT_CHAIN_BYTES);
    assert_int_equal(identity_payload(other.identity, &chain, &err), 0);
    OWNED(owned_free) char *path = path_of(&node, "chain");
    assert_int_equal(file_write_atomic(path, chain.data, chain.len, 0600, &err), 0);
    assert_unopenable(&node, ERR_CORRUPT);
    assert_int_equal(identity_adopt_chain(node.identity, chain.data, chain.len, NOW, &err), ERR_AUTH);
    forge_done(&node);
    forge_done(&other);
}

static void test_identity__renewal_from_root(void **state)
{
    (void)state;
    struct forge_node node = forge_founder();
    assert_false(identity_should_renew(node.identity, NOW));
    assert_false(identity_should_renew(node.identity, NOW + YEAR * 2 / 3 - 10));
    assert_true(identity_should_renew(node.identity, NOW + YEAR * 2 / 3 + 10));
    assert_int_equal(identity_renew_from_root(node.identity, NOW + YEAR / 2, &err), 0);
    assert_int_equal(identity_expires(node.identity), NOW + YEAR / 2 + YEAR);
    struct forge_node guest = forge_node();
    assert_false(identity_should_renew(guest.identity, NOW));
    assert_int_equal(identity_renew_from_root(guest.identity, NOW, &err), ERR_UNSUPPORTED);
    forge_done(&node);
    forge_done(&guest);
}

static void test_identity__member_expects_no_other_cluster(void **state)
{
    (void)state;
    struct forge_node node = forge_founder();
    struct id other = {{9}};
    assert_int_equal(identity_expect_cluster(node.identity, &other, &err), ERR_CONFLICT);
    assert_int_equal(identity_expect_cluster(node.identity, identity_cluster(node.identity), &err), 0);
    forge_done(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity__key_is_made_once_and_private),
        cmocka_unit_test(test_identity__key_that_others_read_is_refused),
        cmocka_unit_test(test_identity__malformed_key_is_refused_and_kept),
        cmocka_unit_test(test_identity__init_makes_a_cluster_once),
        cmocka_unit_test(test_identity__interrupted_init_is_taken_up),
        cmocka_unit_test(test_identity__damaged_files_are_named),
        cmocka_unit_test(test_identity__chain_of_another_key_is_refused),
        cmocka_unit_test(test_identity__renewal_from_root),
        cmocka_unit_test(test_identity__member_expects_no_other_cluster),
    };
    return crypto_init(NULL) < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
