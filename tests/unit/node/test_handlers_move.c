#include "node/handlers_move.h"

#include <stdio.h>
#include <string.h>

#include "node/api/json.h"
#include "node/api/protocol.h"
#include "tests/test.h"

static void test_handlers_move__phases_once_each(void **state)
{
    (void)state;
    struct move_log log = {0};
    assert_true(move_log_add(&log, "admit", 0, 0, 0));
    assert_true(move_log_add(&log, "copy", 0, 0, 0));
    assert_false(move_log_add(&log, "copy", 5, 10, 3));
    assert_int_equal(log.count, 2);
    assert_int_equal(move_log_last(&log)->number, 3);
    assert_int_equal(move_log_last(&log)->done_bytes, 5);
    assert_int_equal(log.phases[0].number, 1);
}

/* However long it takes, the log keeps the newest and does not grow. */
static void test_handlers_move__bounded(void **state)
{
    (void)state;
    struct move_log log = {0};
    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        assert_true(move_log_add(&log, name, 0, 0, 0));
    }
    assert_int_equal(log.count, MOVE_PHASES_MAX);
    assert_string_equal(move_log_last(&log)->name, "p99");
    assert_string_equal(log.phases[0].name, "p84");
    assert_int_equal(log.last, 100);
    move_log_add(&log, "a name that is longer than there is room for it", 0, 0, 0);
    assert_int_equal(strlen(move_log_last(&log)->name), MOVE_PHASE_NAME_SIZE - 1);
}

static void test_handlers_move__json_there_and_back(void **state)
{
    (void)state;
    struct err err = {0};
    struct move_phase phase = {.number = 7, .name = "copy", .done_bytes = 1, .total_bytes = 2, .rate = 3}, back = {0};
    OWNED(owned_json) json_t *json = move_phase_to_json(&phase, NULL);
    assert_true(move_phase_from_json(json, &back));
    assert_int_equal(back.number, 7);
    assert_string_equal(back.name, "copy");
    assert_int_equal(back.rate, 3);
    OWNED(owned_json) json_t *event = move_phase_to_json(&phase, API_EVENT_PHASE);
    assert_int_equal(api_json_has(event, API_FIELDS_MIGRATE_PHASE, &err), 0);
    assert_int_equal(api_json_only(event, API_FIELDS_MIGRATE_PHASE, &err), 0);
}

/* What another node says of a migration is checked before it is shown. */
static void test_handlers_move__hostile_json(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{}",
        "{\"phase\": \"\"}",
        "{\"phase\": 1}",
        "{\"phase\": \"\\u001b[2J\"}",
        "{\"phase\": \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
        "{\"phase\": \"copy\", \"number\": -1}",
        "{\"phase\": \"copy\", \"done_bytes\": 1.5}",
        "{\"phase\": \"copy\", \"more\": 1}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        struct move_phase phase;
        OWNED(owned_json) json_t *json = NULL;
        assert_int_equal(api_json_parse(bad[i], strlen(bad[i]), &json, &err), 0);
        if (move_phase_from_json(json, &phase))
            fail_msg("taken: %s", bad[i]);
    }
    struct move_phase phase;
    assert_false(move_phase_from_json(NULL, &phase));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handlers_move__phases_once_each),
        cmocka_unit_test(test_handlers_move__bounded),
        cmocka_unit_test(test_handlers_move__json_there_and_back),
        cmocka_unit_test(test_handlers_move__hostile_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
