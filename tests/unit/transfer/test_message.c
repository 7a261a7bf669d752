#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/file.h"
#include "node/base/limits.h"
#include "node/base/scope.h"
#include "transfer/message.h"
#include "transfer/transfer.h"

static int pass(const struct message *message, struct message *ret_message, uint8_t *bytes, size_t *ret_len)
{
    size_t len = transfer_message_encode(message, bytes);
    size_t list = message->n_items * transfer_message_item_bytes(message->type);
    if (list > 0)
        memcpy(bytes + len, message->items, list);
    *ret_len = len + list;
    return transfer_message_decode((uint8_t)message->type, bytes, *ret_len, ret_message, NULL);
}

static const uint8_t LIST[64] = {1, 2, 3, 4, 5, 6, 7, 8, 9};

/* One good message of each type. */
static const struct message GOOD[] = {
    {.type = MESSAGE_WANT, .object = {{7}}},
    {.type = MESSAGE_HAVE, .object = {{7}}, .root = {{8}}, .size_bytes = 1ull << 40, .flags = 1},
    {.type = MESSAGE_HAVE_NOT, .object = {{7}}},
    {.type = MESSAGE_HAVE_MORE, .root = {{8}}, .items = LIST, .n_items = 2},
    {.type = MESSAGE_PIECES, .request = 5, .piece = 2, .items = LIST, .n_items = 2},
    {.type = MESSAGE_RUN, .request = 5, .object = {{7}}, .root = {{8}}, .first = 9, .count = 256},
    {.type = MESSAGE_CHUNK,
     .request = 5,
     .index = 3,
     .encoding = 1,
     .stored_bytes = 9,
     .raw_bytes = 10,
     .items = LIST,
     .n_items = 9},
    {.type = MESSAGE_MORE, .request = 5, .items = LIST, .n_items = 9},
    {.type = MESSAGE_CANCEL, .request = 0xffffffff},
    {.type = MESSAGE_BUSY, .request = 5, .retry_ms = 500},
    {.type = MESSAGE_GONE, .request = 5},
    {.type = MESSAGE_MAP, .object = {{7}}, .root = {{8}}, .items = LIST, .n_items = 1},
    {.type = MESSAGE_MAP_IS, .root = {{8}}, .first = 16, .count = 9, .items = LIST, .n_items = 2},
    {.type = MESSAGE_RECIPE_NEED, .root = {{8}}, .items = LIST, .n_items = 4},
    {.type = MESSAGE_DEAL,
     .request = 5,
     .class = 3,
     .object = {{7}},
     .root = {{8}},
     .size_bytes = 1u << 20,
     .items = LIST,
     .n_items = 2},
    {.type = MESSAGE_DEALT, .request = 5, .first = 9, .count = 0},
    {.type = MESSAGE_GAPS,
     .request = 5,
     .class = 1,
     .object = {{7}},
     .root = {{8}},
     .basis = {{9}},
     .items = LIST,
     .n_items = 3},
    {.type = MESSAGE_SIGN, .request = 5, .items = LIST, .n_items = 2},
    {.type = MESSAGE_SIGNATURE, .request = 5, .index = 1, .items = LIST, .n_items = 12},
    {.type = MESSAGE_DELTA,
     .request = 5,
     .index = 1,
     .codec = MESSAGE_CODEC_RSYNC,
     .stored_bytes = 9,
     .raw_bytes = 100,
     .items = LIST,
     .n_items = 9},
    {.type = MESSAGE_PEERS, .object = {{7}}, .items = LIST, .n_items = 1},
    {.type = MESSAGE_RECIPE_PART, .root = {{8}}, .index = MESSAGE_PART_ROOT, .items = LIST, .n_items = 9},
};
#define N_GOOD (sizeof GOOD / sizeof GOOD[0])

static void test_message__all_types_round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_GOOD; i++) {
        uint8_t bytes[256];
        size_t len;
        struct message got;
        assert_int_equal(pass(&GOOD[i], &got, bytes, &len), 0);
        assert_true(transfer_message_encode(&GOOD[i], bytes) <= MESSAGE_HEAD_BYTES);
        assert_int_equal(got.n_items, GOOD[i].n_items);
        if (got.n_items > 0)
            assert_memory_equal(got.items, LIST, got.n_items * transfer_message_item_bytes(got.type));
        struct message expected = GOOD[i];
        expected.items = got.items;
        assert_memory_equal(&got, &expected, sizeof got);
        assert_string_not_equal(transfer_message_name((uint8_t)GOOD[i].type), "unknown");
    }
}

/* faults 2: a message cut anywhere is refused, or is one with a shorter list; nothing may follow one that has no list
 */
static void test_message__cut_or_too_long(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_GOOD; i++) {
        uint8_t bytes[256] = {0};
        size_t len;
        struct message got;
        assert_int_equal(pass(&GOOD[i], &got, bytes, &len), 0);
        for (size_t cut = 0; cut < len; cut++) {
            uint8_t *exact = malloc(cut + 1);
            memcpy(exact, bytes, cut);
            int status = transfer_message_decode((uint8_t)GOOD[i].type, exact, cut, &got, NULL);
            if (status == 0)
                assert_true(got.n_items < GOOD[i].n_items);
            else
                assert_int_equal(status, ERR_PROTOCOL);
            free(exact);
        }
        if (GOOD[i].n_items == 0)
            assert_int_equal(transfer_message_decode((uint8_t)GOOD[i].type, bytes, len + 1, &got, NULL), ERR_PROTOCOL);
    }
}

static void refused(const struct message *message)
{
    uint8_t bytes[256];
    size_t len;
    struct message got;
    assert_int_equal(pass(message, &got, bytes, &len), ERR_PROTOCOL);
}

static void test_message__impossible_fields(void **state)
{
    (void)state;
    struct message got;
    for (unsigned type = 0; type < 256; type++) {
        if (type == 0 || type > MESSAGE_RECIPE_PART)
            assert_int_equal(transfer_message_decode((uint8_t)type, LIST, 1, &got, NULL), ERR_PROTOCOL);
    }
    refused(&(struct message){.type = MESSAGE_HAVE, .flags = 2});
    refused(&(struct message){.type = MESSAGE_HAVE, .size_bytes = LIMIT_OBJECT_BYTES + 1});
    refused(&(struct message){.type = MESSAGE_RUN, .first = 1, .count = 0});
    refused(&(struct message){.type = MESSAGE_RUN, .first = 1, .count = 1, .class = EXCHANGE_CLASSES});
    refused(&(struct message){.type = MESSAGE_DEALT, .first = UINT32_MAX, .count = 2});
    refused(&(struct message){.type = MESSAGE_DELTA, .codec = 3, .stored_bytes = 1, .items = LIST, .n_items = 1});
    refused(&(struct message){
        .type = MESSAGE_DELTA, .stored_bytes = 1, .raw_bytes = LIMIT_GAP_BYTES + 1, .items = LIST, .n_items = 1});
    refused(&(struct message){.type = MESSAGE_RUN, .first = 1, .count = 257});
    refused(&(struct message){.type = MESSAGE_RUN, .first = UINT32_MAX, .count = 2});
    refused(&(struct message){.type = MESSAGE_PIECES, .piece = 1, .items = LIST, .n_items = 1});
    refused(&(struct message){.type = MESSAGE_PIECES, .piece = 2});
    refused(&(struct message){
        .type = MESSAGE_CHUNK, .encoding = 2, .stored_bytes = 1, .raw_bytes = 1, .items = LIST, .n_items = 1});
    refused(&(struct message){.type = MESSAGE_CHUNK, .stored_bytes = 2, .raw_bytes = 1, .items = LIST, .n_items = 1});
    refused(&(struct message){.type = MESSAGE_CHUNK, .stored_bytes = 1, .raw_bytes = 1, .items = LIST, .n_items = 2});
    refused(&(struct message){
        .type = MESSAGE_CHUNK, .stored_bytes = 1u << 31, .raw_bytes = 1u << 31, .items = LIST, .n_items = 2});
    refused(&(struct message){.type = MESSAGE_MAP_IS, .first = 4, .count = 8, .items = LIST, .n_items = 1});
    refused(&(struct message){.type = MESSAGE_MAP_IS, .first = 8, .count = 9, .items = LIST, .n_items = 1});
    refused(&(struct message){.type = MESSAGE_MAP_IS, .first = 0xfffffff8, .count = 8, .items = LIST, .n_items = 1});
}

/* docs/protocol-session.md lists each type by its number and name, and no others. */
static void test_message__documented(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf file = BUF(1 << 20);
    assert_int_equal(file_read("../docs/protocol-session.md", &file, NULL), 0);
    const char *doc = buf_str(&file);
    for (unsigned type = 1; type < SESSION_TYPE_APP; type++) {
        char row[64];
        const char *name = transfer_message_name((uint8_t)type);
        bool known = strcmp(name, "unknown") != 0;
        snprintf(row, sizeof row, known ? "| 0x%02x | %s |" : "| 0x%02x |", type, name);
        if (known != (strstr(doc, row) != NULL))
            fail_msg("'%s' is%s in the document", row, known ? " not" : "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message__all_types_round_trip),
        cmocka_unit_test(test_message__cut_or_too_long),
        cmocka_unit_test(test_message__impossible_fields),
        cmocka_unit_test(test_message__documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
