#include "tests/unit/identity/forge.h"

#define CLUSTER "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define SECRET "0123456789abcdef0123456789abcdef"

static struct err err;

static void test_invitation__text_round_trips(void **state)
{
    (void)state;
    const char *hosts[] = {"10.1.2.3", "[::1]", "[fd00::7]", "edge-7.example.org", "node_1", "a", "1a.2b"};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        OWNED(owned_free) char *text = file_path("cmig://%s:7421/%s/%s", hosts[i], CLUSTER, SECRET);
        struct invitation invitation;
        char again[INVITATION_TEXT_SIZE];
        if (invitation_parse(text, &invitation, &err) < 0)
            fail_msg("%s: %s", text, err.text);
        assert_int_equal(invitation.port, 7421);
        assert_string_equal(invitation_text(&invitation, again), text);
    }
}

static void test_invitation__anything_else_is_refused(void **state) /* faults 86 */
{
    (void)state;
    const char *bad[] = {
        "",
        "cmig://",
        "cmig:///" CLUSTER "/" SECRET,
        "cmig://h/" CLUSTER "/" SECRET,
        "cmig://h:/" CLUSTER "/" SECRET,
        "cmig://h:0/" CLUSTER "/" SECRET,
        "cmig://h:65536/" CLUSTER "/" SECRET,
        "cmig://h:01/" CLUSTER "/" SECRET,
        "cmig://h:+1/" CLUSTER "/" SECRET,
        "cmig://h:1 /" CLUSTER "/" SECRET,
        "cmig://:1/" CLUSTER "/" SECRET,
        "cmig://-oProxyCommand=x:1/" CLUSTER "/" SECRET, /* faults 47 */
        "cmig://a..b:1/" CLUSTER "/" SECRET,
        "cmig://h.:1/" CLUSTER "/" SECRET,
        "cmig://1.2.3.999:1/" CLUSTER "/" SECRET,
        "cmig://1.2.3:1/" CLUSTER "/" SECRET,
        "cmig://::1:1/" CLUSTER "/" SECRET,
        "cmig://[::1]/" CLUSTER "/" SECRET,
        "cmig://[::1:1/" CLUSTER "/" SECRET,
        "cmig://[1.2.3.4]:1/" CLUSTER "/" SECRET,
        "cmig://[h]:1/" CLUSTER "/" SECRET,
        "cmig://h\n:1/" CLUSTER "/" SECRET,
        "cmig://\xff:1/" CLUSTER "/" SECRET,
        "CMIG://h:1/" CLUSTER "/" SECRET,
        " cmig://h:1/" CLUSTER "/" SECRET,
        "cmig://h:1/" CLUSTER,
        "cmig://h:1/" CLUSTER "/",
        "cmig://h:1/" CLUSTER "/" SECRET "0",
        "cmig://h:1/" CLUSTER "/" SECRET "\n",
        "cmig://h:1/" CLUSTER "0/" SECRET,
        "cmig://h:1/" CLUSTER "//" SECRET,
        "cmig://h:1/0" CLUSTER "/" SECRET,
        "cmig://h:1/00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff/" SECRET,
        "cmig://h:1/" CLUSTER "/0123456789ABCDEF0123456789abcdef",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct invitation invitation;
        if (invitation_parse(bad[i], &invitation, &err) != ERR_INVALID)
            fail_msg("accepted: '%s'", bad[i]);
        assert_null(strstr(err.text, SECRET));
    }
}

static void test_invitation__cut_anywhere_is_refused(void **state) /* faults 86 */
{
    (void)state;
    char text[] = "cmig://host.example:7421/" CLUSTER "/" SECRET;
    struct invitation invitation;
    assert_int_equal(invitation_parse(text, &invitation, &err), 0);
    for (size_t len = strlen(text); len-- > 0;) {
        text[len] = '\0';
        assert_int_equal(invitation_parse(text, &invitation, &err), ERR_INVALID);
    }
}

static void test_invitation__token_completes_an_address(void **state)
{
    (void)state;
    struct invitation invitation;
    const char *tokens[] = {CLUSTER "/" SECRET, "  " CLUSTER "/" SECRET "\r\n",
                            "cmig://other.example:99/" CLUSTER "/" SECRET "\n"};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        assert_int_equal(invitation_find("[fd00::1]:5000", tokens[i], &invitation, &err), 0);
        assert_string_equal(invitation.host, "fd00::1");
        assert_int_equal(invitation.port, 5000);
        assert_int_equal(invitation.secret[0], 0x01);
        assert_int_equal(invitation.cluster.b[1], 0x11);
    }
    assert_int_equal(invitation_find("edge", tokens[0], &invitation, &err), 0);
    assert_int_equal(invitation.port, ADDR_DEFAULT_PORT);
    assert_int_equal(invitation_find("fd00::1", tokens[0], &invitation, &err), 0);
    assert_string_equal(invitation.host, "fd00::1");
    assert_int_equal(invitation_find("cmig://h:1/" CLUSTER "/" SECRET, NULL, &invitation, &err), 0);
}

/* Without the cluster id a newcomer would show the secret to whoever answers. */
static void test_invitation__secret_alone_is_refused_with_a_remedy(void **state) /* faults 87 */
{
    (void)state;
    struct invitation invitation;
    assert_int_equal(invitation_find("edge", SECRET "\n", &invitation, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "whole invitation"));
    assert_null(strstr(err.text, SECRET));
    assert_int_equal(invitation_find("edge", NULL, &invitation, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "--token-file"));
    assert_int_equal(invitation_find("edge", " \n", &invitation, &err), ERR_INVALID);
    assert_int_equal(invitation_find("edge", CLUSTER "/" SECRET "x", &invitation, &err), ERR_INVALID);
    assert_int_equal(invitation_find("ed ge", CLUSTER "/" SECRET, &invitation, &err), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invitation__text_round_trips),
        cmocka_unit_test(test_invitation__anything_else_is_refused),
        cmocka_unit_test(test_invitation__cut_anywhere_is_refused),
        cmocka_unit_test(test_invitation__token_completes_an_address),
        cmocka_unit_test(test_invitation__secret_alone_is_refused_with_a_remedy),
    };
    return crypto_init(NULL) < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
