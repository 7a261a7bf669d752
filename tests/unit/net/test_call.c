#include "node/net/call.h"

#include "node/base/wire.h"
#include "tests/unit/net/rig.h"

struct answer {
    unsigned count;
    struct err err;
    char data[64];
    size_t len;
};

static void on_reply(void *ctx, int status, const struct err *err, const uint8_t *data, size_t len)
{
    struct answer *answer = ctx;
    answer->count++;
    answer->err = (struct err){0};
    assert_int_equal(status, err ? err->code : 0);
    if (err)
        answer->err = *err;
    answer->len = len;
    if (len > 0)
        memcpy(answer->data, data, len < sizeof answer->data ? len : sizeof answer->data);
}

static void setup(struct rig *rig, struct side *a, struct side *b)
{
    rig_pair(rig, a, b);
    side_dial(a, b, true);
    RIG_UNTIL(rig, a->ups == 1 && b->ups == 1);
}

static int ask(struct side *side, const char *method, const void *data, size_t len, struct answer *answer)
{
    struct err err = {0};
    return calls_send(side->calls, side->link, method, data, len, 1000, on_reply, answer, &err);
}

static void echo(struct side *side, struct link *link, const char *method, const uint8_t *data, size_t len,
                 struct call_request *request)
{
    OWNED(buf_release) struct buf reply = BUF(LIMIT_CONTROL_BYTES);
    (void)side;
    (void)link;
    buf_add_str(&reply, method);
    buf_add(&reply, data, len);
    call_reply(request, reply.data, reply.len);
}

static void test_call__answers(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    struct answer first = {0}, second = {0};
    setup(&rig, &a, &b);
    b.at_request = a.at_request = echo;
    assert_int_equal(ask(&a, "hello", "-you", 4, &first), 0);
    assert_int_equal(ask(&b, "x", NULL, 0, &second), 0); /* both ways at once */
    assert_int_equal(first.count, 0);
    RIG_UNTIL(&rig, first.count == 1 && second.count == 1);
    assert_int_equal(first.err.code, 0);
    assert_memory_equal(first.data, "hello-you", 9);
    assert_int_equal(first.len, 9);
    assert_memory_equal(second.data, "x", 1);
    rig_part(&rig, &a, &b);
}

static struct err refusal;

static void refuse(struct side *side, struct link *link, const char *method, const uint8_t *data, size_t len,
                   struct call_request *request)
{
    (void)side;
    (void)link;
    (void)method;
    (void)data;
    (void)len;
    call_refuse(request, &refusal);
}

static void refused_as(int code, const char *text, int want_code, const char *want_text)
{
    struct rig rig;
    struct side a, b;
    struct answer answer = {0};
    setup(&rig, &a, &b);
    b.at_request = refuse;
    refusal.code = code;
    snprintf(refusal.text, sizeof refusal.text, "%s", text);
    assert_int_equal(ask(&a, "hello", NULL, 0, &answer), 0);
    RIG_UNTIL(&rig, answer.count == 1);
    assert_int_equal(answer.err.code, want_code);
    assert_string_equal(answer.err.text, want_text);
    rig_part(&rig, &a, &b);
}

static void test_call__refusals_carry_code_and_text(void **state)
{
    (void)state;
    refused_as(ERR_CONFLICT, "it runs already", ERR_CONFLICT, "it runs already");
    /* That the link has ended is said by nobody else. */
    refused_as(ERR_CLOSED, "gone", ERR_UNAVAILABLE, "gone");
    /* A code of a later version, and a text that would draw on a terminal. */
    refused_as(-200, "new", ERR_INTERNAL, "new");
    refused_as(ERR_IO, "a\x1b[2J\nb", ERR_IO, "a\\x1b[2J\\x0ab");
    refused_as(1, "no code", ERR_INTERNAL, "no code");
}

static void test_call__deadline_and_late_answer(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    struct answer answer = {0}, next = {0};
    setup(&rig, &a, &b);
    assert_int_equal(ask(&a, "slow", NULL, 0, &answer), 0);
    RIG_UNTIL(&rig, b.held);
    uint64_t wake = calls_tick(a.calls);
    assert_true(wake <= rig_mono(&rig) + 1000);
    assert_int_equal(answer.count, 0);
    rig.ahead_ms += 1001;
    assert_true(calls_tick(a.calls) == UINT64_MAX);
    assert_int_equal(answer.count, 1);
    assert_int_equal(answer.err.code, ERR_TIMEOUT);
    call_reply(b.held, "late", 4);
    b.held = NULL;
    b.at_request = echo;
    assert_int_equal(ask(&a, "next", NULL, 0, &next), 0);
    RIG_UNTIL(&rig, next.count == 1);
    assert_memory_equal(next.data, "next", 4);
    assert_int_equal(answer.count, 1);
    rig_part(&rig, &a, &b);
}

static void test_call__end_of_the_link(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    struct answer answer = {0};
    setup(&rig, &a, &b);
    assert_int_equal(ask(&a, "hello", NULL, 0, &answer), 0);
    RIG_UNTIL(&rig, b.held);
    links_cut(a.links, side_id(&b), SESSION_REASON_DONE);
    RIG_UNTIL(&rig, a.downs == 1 && b.downs == 1);
    assert_int_equal(answer.count, 1);
    assert_int_equal(answer.err.code, ERR_CLOSED);
    call_reply(b.held, "x", 1); /* to nobody */
    rig_part(&rig, &a, &b);
}

/* A callback may send, cancel, and end the link; each call is told once all the same. */
static struct side *asker;

static void on_reply_ask_again(void *ctx, int status, const struct err *err, const uint8_t *data, size_t len)
{
    struct answer *answer = ctx;
    struct err why;
    on_reply(ctx, status, err, data, len);
    calls_cancel(asker->calls, ctx);
    if (asker->link && answer->count == 1) {
        calls_send(asker->calls, asker->link, "again", NULL, 0, 1000, on_reply_ask_again, ctx, &why);
        link_close(asker->link, SESSION_REASON_DONE);
    }
}

static void test_call__callbacks_may_do_what_they_like(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    struct answer answer = {0};
    struct err err = {0};
    setup(&rig, &a, &b);
    asker = &a;
    b.at_request = echo;
    assert_int_equal(calls_send(a.calls, a.link, "x", NULL, 0, 1000, on_reply_ask_again, &answer, &err), 0);
    RIG_UNTIL(&rig, a.downs == 1);
    assert_int_equal(answer.count, 2);
    assert_int_equal(answer.err.code, ERR_CLOSED);
    rig_part(&rig, &a, &b);
}

static void test_call__cancelled_is_silent(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    struct answer gone = {0}, kept = {0};
    setup(&rig, &a, &b);
    b.at_request = echo;
    assert_int_equal(ask(&a, "one", NULL, 0, &gone), 0);
    assert_int_equal(ask(&a, "two", NULL, 0, &gone), 0);
    assert_int_equal(ask(&a, "three", NULL, 0, &kept), 0);
    calls_cancel(a.calls, &gone);
    RIG_UNTIL(&rig, kept.count == 1);
    assert_int_equal(gone.count, 0);
    rig_part(&rig, &a, &b);
}

static void test_call__what_cannot_be_sent(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    struct answer answer = {0};
    OWNED(owned_free) uint8_t *large = calloc(1, CALL_MAX_BYTES + 1);
    setup(&rig, &a, &b);
    b.at_request = echo;
    assert_int_equal(ask(&a, "a-method-that-is-longer-than-32-characters", NULL, 0, &answer), ERR_INVALID);
    assert_int_equal(ask(&a, "", NULL, 0, &answer), ERR_INVALID);
    assert_int_equal(ask(&a, "large", large, CALL_MAX_BYTES + 1, &answer), ERR_LIMIT);
    /* The largest arrives; its echo, with the method, is too long and is refused, not lost. */
    assert_int_equal(ask(&a, "large", large, CALL_MAX_BYTES, &answer), 0);
    RIG_UNTIL(&rig, answer.count == 1);
    assert_int_equal(answer.err.code, ERR_LIMIT);
    assert_int_equal(ask(&a, "large", large, CALL_MAX_BYTES - 5, &answer), 0);
    RIG_UNTIL(&rig, answer.count == 2);
    assert_int_equal(answer.err.code, 0);
    assert_int_equal(answer.len, CALL_MAX_BYTES);
    link_close(a.link, SESSION_REASON_DONE);
    assert_int_equal(ask(&a, "x", NULL, 0, &answer), ERR_CLOSED);
    rig_part(&rig, &a, &b);
}

static void test_call__many_that_nobody_answers(void **state)
{
    (void)state;
    struct rig rig;
    struct side a, b;
    struct answer waiting = {0}, refused = {0};
    setup(&rig, &a, &b);
    for (int i = 0; i < LIMIT_CALL_REQUESTS_PER_LINK; i++)
        assert_int_equal(ask(&a, "wait", NULL, 0, &waiting), 0);
    assert_int_equal(ask(&a, "one-more", NULL, 0, &refused), 0);
    RIG_UNTIL(&rig, refused.count == 1);
    assert_int_equal(refused.err.code, ERR_BUSY);
    assert_int_equal(waiting.count, 0);
    assert_int_equal(a.downs, 0);
    rig_part(&rig, &a, &b);
    assert_int_equal(waiting.count, LIMIT_CALL_REQUESTS_PER_LINK);
}

/* Bytes that are no call end the link and nothing else. */
static void hostile(uint8_t type, const char *bytes, size_t len)
{
    struct rig rig;
    struct side a, b;
    struct err err = {0};
    setup(&rig, &a, &b);
    assert_int_equal(link_send(b.link, type, NULL, 0, bytes, len, &err), 0);
    RIG_UNTIL(&rig, a.downs == 1 && b.downs == 1);
    assert_null(a.held);
    rig_part(&rig, &a, &b);
}

static void test_call__hostile_bytes(void **state)
{
    (void)state;
    hostile(CALL_REQUEST, "", 0);
    hostile(CALL_REQUEST, "\0\0\0\0\0\0\0\1", 8);
    hostile(CALL_REQUEST, "\0\0\0\0\0\0\0\1\0", 9);
    hostile(CALL_REQUEST, "\0\0\0\0\0\0\0\1\5abc", 12);
    hostile(CALL_REQUEST, "\0\0\0\0\0\0\0\1\3a\0b", 12);
    hostile(CALL_REQUEST, "\0\0\0\0\0\0\0\1\3a\nb", 12);
    hostile(CALL_REQUEST, "\0\0\0\0\0\0\0\1\377abc", 12);
    hostile(CALL_REQUEST, "\0\0\0\0\0\0\0\1\041abcdefghijklmnopqrstuvwxyzabcdefghij", 45);
    hostile(CALL_REPLY, "", 0);
    hostile(CALL_REPLY, "\0\0\0\0\0\0\0\1", 8);
    hostile(CALL_REPLY, "\0\0\0\0\0\0\0\1\0", 9); /* nothing was asked */
    hostile(CALL_REPLY, "\377\377\377\377\377\377\377\377\0", 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call__answers),
        cmocka_unit_test(test_call__refusals_carry_code_and_text),
        cmocka_unit_test(test_call__deadline_and_late_answer),
        cmocka_unit_test(test_call__end_of_the_link),
        cmocka_unit_test(test_call__callbacks_may_do_what_they_like),
        cmocka_unit_test(test_call__cancelled_is_silent),
        cmocka_unit_test(test_call__what_cannot_be_sent),
        cmocka_unit_test(test_call__many_that_nobody_answers),
        cmocka_unit_test(test_call__hostile_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
