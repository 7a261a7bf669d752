#include "tests/unit/identity/forge.h"

#include <sys/wait.h>

static struct err err;
static unsigned rights;

static void test_book__uses_run_out(void **state) /* faults 86 */
{
    (void)state;
    struct forge_node node = forge_founder();
    uint8_t secret[INVITATION_SECRET_BYTES];
    assert_int_equal(invitation_create(node.identity, 2, 900, RIGHT_ADMIT, NOW, secret, &err), 0);
    assert_int_equal(invitation_redeem(node.identity, secret, NOW, &rights, &err), 0);
    assert_int_equal(rights, RIGHT_ADMIT);
    forge_reopen(&node);
    assert_int_equal(invitation_redeem(node.identity, secret, NOW, &rights, &err), 0);
    assert_int_equal(invitation_redeem(node.identity, secret, NOW, &rights, &err), ERR_AUTH);
    forge_done(&node);
}

static void test_book__all_refusals_read_the_same(void **state) /* faults 86 */
{
    (void)state;
    struct forge_node node = forge_founder();
    uint8_t used[INVITATION_SECRET_BYTES], late[INVITATION_SECRET_BYTES], wrong[INVITATION_SECRET_BYTES] = {0};
    assert_int_equal(invitation_create(node.identity, 1, 900, 0, NOW, used, &err), 0);
    assert_int_equal(invitation_create(node.identity, 1, 10, 0, NOW, late, &err), 0);
    assert_int_equal(invitation_redeem(node.identity, used, NOW, &rights, &err), 0);
    uint8_t mistyped[INVITATION_SECRET_BYTES];
    memcpy(mistyped, late, sizeof late);
    mistyped[15] ^= 1;
    const uint8_t *bad[] = {used, late, wrong, mistyped};
    for (size_t i = 0; i < 4; i++) {
        struct err refusal = {0};
        assert_int_equal(invitation_redeem(node.identity, bad[i], NOW + 10, &rights, &refusal), ERR_AUTH);
        assert_string_equal(refusal.text, "invitation not accepted");
    }
    assert_int_equal(invitation_redeem(node.identity, late, NOW + 9, &rights, &err), 0);
    forge_done(&node);
}

static void test_book__terms_are_checked(void **state) /* faults 86 */
{
    (void)state;
    struct forge_node node = forge_founder();
    struct forge_node guest = forge_node();
    struct forge_node worker = forge_node();
    uint8_t secret[INVITATION_SECRET_BYTES];
    assert_int_equal(invitation_create(node.identity, 0, 900, 0, NOW, secret, &err), ERR_INVALID);
    assert_int_equal(invitation_create(node.identity, 10001, 900, 0, NOW, secret, &err), ERR_INVALID);
    assert_int_equal(invitation_create(node.identity, 1, 0, 0, NOW, secret, &err), ERR_INVALID);
    assert_int_equal(invitation_create(node.identity, 1, 31 * 86400, 0, NOW, secret, &err), ERR_INVALID);
    assert_int_equal(invitation_create(guest.identity, 1, 900, 0, NOW, secret, &err), ERR_DENIED);
    assert_int_equal(forge_join(&node, &guest, RIGHT_ADMIT), 0);
    assert_int_equal(invitation_create(guest.identity, 1, 900, RIGHT_PROXY, NOW, secret, &err), ERR_DENIED);
    assert_int_equal(forge_join(&node, &worker, 0), 0);
    assert_int_equal(invitation_create(worker.identity, 1, 900, 0, NOW, secret, &err), ERR_DENIED);
    forge_done(&node);
    forge_done(&guest);
    forge_done(&worker);
}

static void test_book__is_bounded_and_spent_ones_make_room(void **state)
{
    (void)state;
    struct forge_node node = forge_founder();
    uint8_t secret[INVITATION_SECRET_BYTES];
    for (unsigned i = 0; i < LIMIT_INVITATIONS; i++)
        assert_int_equal(invitation_create(node.identity, 1, i == 3 ? 10 : 900, 0, NOW, secret, &err), 0);
    assert_int_equal(invitation_create(node.identity, 1, 900, 0, NOW, secret, &err), ERR_LIMIT);
    assert_int_equal(invitation_create(node.identity, 1, 900, 0, NOW + 10, secret, &err), 0);
    assert_int_equal(invitation_create(node.identity, 1, 900, 0, NOW + 10, secret, &err), ERR_LIMIT);
    forge_done(&node);
}

static void test_book__damaged_book_admits_nobody(void **state)
{
    (void)state;
    struct forge_node node = forge_founder();
    uint8_t secret[INVITATION_SECRET_BYTES];
    assert_int_equal(invitation_create(node.identity, 1, 900, 0, NOW, secret, &err), 0);
    OWNED(owned_free) char *path = file_path("%s/invitations", node.dir);
    assert_int_equal(truncate(path, 30), 0);
    assert_int_equal(invitation_redeem(node.identity, secret, NOW, &rights, &err), ERR_CORRUPT);
    assert_int_equal(invitation_create(node.identity, 1, 900, 0, NOW, secret, &err), ERR_CORRUPT);
    forge_done(&node);
}

/* Eight processes with one single-use secret: one of them is let in. */
static void test_book__single_use_admits_one_of_many_at_once(void **state) /* faults 86 */
{
    (void)state;
    struct forge_node node = forge_founder();
    uint8_t secret[INVITATION_SECRET_BYTES];
    assert_int_equal(invitation_create(node.identity, 1, 900, 0, NOW, secret, &err), 0);
    int admitted = 0;
    pid_t children[8];
    for (size_t i = 0; i < 8; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            struct identity *identity;
            if (identity_open(node.dir, &identity, NULL) < 0)
                _exit(2);
            int status = invitation_redeem(identity, secret, NOW, &rights, NULL);
            _exit(status == 0 ? 1 : status == ERR_AUTH ? 0 : 2);
        }
    }
    for (size_t i = 0; i < 8; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
        admitted += WEXITSTATUS(status);
    }
    assert_int_equal(admitted, 1);
    forge_done(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_book__uses_run_out),
        cmocka_unit_test(test_book__all_refusals_read_the_same),
        cmocka_unit_test(test_book__terms_are_checked),
        cmocka_unit_test(test_book__is_bounded_and_spent_ones_make_room),
        cmocka_unit_test(test_book__damaged_book_admits_nobody),
        cmocka_unit_test(test_book__single_use_admits_one_of_many_at_once),
    };
    return crypto_init(NULL) < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
