#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/migrate/state.h"

OWNED_DEFINE(owned_json, json_t, json_decref)

static const char table[] = "migrate";
#define ROW_MAX_BYTES 4096
#define ROW_KEY_BYTES (1 + GUID_BYTES)

static const char *const state_names[] = {
#define X(name, text) [name] = text,
    JOURNAL_STATES(X)
#undef X
};

static void row_key(enum journal_side side, const struct guid *id, uint8_t key[ROW_KEY_BYTES])
{
    key[0] = (uint8_t)side;
    memcpy(key + 1, id->b, GUID_BYTES);
}

int journal_write(struct store *store, const struct journal_row *row, struct err *err)
{
    char container[GUID_TEXT_SIZE], peer[ID_HEX_SIZE];
    OWNED(owned_json)
    json_t *json = json_pack("{s:s, s:s, s:s, s:I}", "state", state_names[row->state], "container",
                             guid_text(&row->container, container), "peer", id_hex(&row->peer, peer), "epoch",
                             (json_int_t)row->epoch);
    OWNED(owned_free) char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    if (!text)
        return err_set(err, ERR_NOMEM, "no memory for the journal");
    uint8_t key[ROW_KEY_BYTES];
    row_key(row->side, &row->id, key);
    return store_table_put(store, table, key, sizeof key, text, strlen(text), err);
}

int journal_remove(struct store *store, enum journal_side side, const struct guid *id, struct err *err)
{
    uint8_t key[ROW_KEY_BYTES];
    row_key(side, id, key);
    return store_table_put(store, table, key, sizeof key, NULL, 0, err);
}

static bool state_parse(const char *text, enum journal_state *ret_state)
{
    for (size_t i = 0; i < sizeof state_names / sizeof state_names[0]; i++) {
        if (strcmp(text, state_names[i]) == 0) {
            *ret_state = (enum journal_state)i;
            return true;
        }
    }
    return false;
}

static int row_parse(const uint8_t *key, size_t key_len, const void *value, size_t value_len,
                     struct journal_row *ret_row, struct err *err)
{
    OWNED(owned_json) json_t *json = json_loadb(value, value_len, 0, NULL);
    const char *state = NULL, *container = NULL, *peer = NULL;
    json_int_t epoch = 0;
    struct journal_row row = {0};
    if (key_len != ROW_KEY_BYTES || (key[0] != JOURNAL_SOURCE && key[0] != JOURNAL_TARGET) || !json ||
        json_unpack(json, "{s:s, s:s, s:s, s:I}", "state", &state, "container", &container, "peer", &peer, "epoch",
                    &epoch) < 0 ||
        !state_parse(state, &row.state) || !guid_parse(container, &row.container) || !id_parse_hex(peer, &row.peer) ||
        epoch < 0)
        return err_set(err, ERR_CORRUPT, "a row of the migration journal is malformed");
    row.side = (enum journal_side)key[0];
    memcpy(row.id.b, key + 1, GUID_BYTES);
    row.epoch = (uint64_t)epoch;
    *ret_row = row;
    return 0;
}

int journal_read(struct store *store, enum journal_side side, const struct guid *id, struct journal_row *ret_row,
                 struct err *err)
{
    uint8_t key[ROW_KEY_BYTES];
    row_key(side, id, key);
    OWNED(buf_release) struct buf value = BUF(ROW_MAX_BYTES);
    int status = store_table_get(store, table, key, sizeof key, &value, err);
    if (status <= 0)
        return status;
    status = row_parse(key, sizeof key, value.data, value.len, ret_row, err);
    return status < 0 ? status : 1;
}

struct all_rows {
    struct journal_row *rows;
    size_t count;
    struct err *err;
};

static int add_row(const void *key, size_t key_len, const void *value, size_t value_len, void *ctx)
{
    struct all_rows *all = ctx;
    struct journal_row *rows = realloc(all->rows, (all->count + 1) * sizeof *rows);
    if (!rows)
        return err_set(all->err, ERR_NOMEM, "no memory for the journal");
    all->rows = rows;
    struct err err;
    if (row_parse(key, key_len, value, value_len, &rows[all->count], &err) == 0)
        all->count++;
    else
        log_error("migrate", "%s", err.text);
    return 0;
}

int journal_all(struct store *store, struct journal_row **ret_rows, size_t *ret_count, struct err *err)
{
    struct all_rows all = {.err = err};
    int status = store_table_each(store, table, NULL, 0, NULL, 0, add_row, &all, err);
    if (status < 0) {
        free(all.rows);
        return status;
    }
    *ret_rows = all.rows;
    *ret_count = all.count;
    return 0;
}
