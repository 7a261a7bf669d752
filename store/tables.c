/* Tables of the floors above: rows (length of the name, name, key) of one LMDB table. */
#include <string.h>

#include "node/base/wire.h"
#include "store/core.h"

#define ROW_KEY_MAX_BYTES (1 + STORE_TABLE_NAME_MAX_BYTES + STORE_TABLE_KEY_MAX_BYTES)

struct row_key {
    uint8_t bytes[ROW_KEY_MAX_BYTES];
    size_t len;
};

static struct store_span span_of(const struct row_key *key)
{
    return (struct store_span){.data = key->bytes, .len = key->len};
}

static int row_key(const char *table, const void *key, size_t key_len, struct row_key *ret_key, struct err *err)
{
    size_t name_len = strlen(table);
    if (name_len == 0 || name_len > STORE_TABLE_NAME_MAX_BYTES)
        return err_set(err, ERR_INVALID, "the name of a table has 1 to %d bytes, not %zu", STORE_TABLE_NAME_MAX_BYTES,
                       name_len);
    if (key_len > STORE_TABLE_KEY_MAX_BYTES)
        return err_set(err, ERR_INVALID, "a key of table '%s' has %zu bytes, more than %d", table, key_len,
                       STORE_TABLE_KEY_MAX_BYTES);
    ret_key->bytes[0] = (uint8_t)name_len;
    memcpy(ret_key->bytes + 1, table, name_len);
    if (key_len > 0)
        memcpy(ret_key->bytes + 1 + name_len, key, key_len);
    ret_key->len = 1 + name_len + key_len;
    return 0;
}

struct apply {
    const char *table;
    const struct store_table_op *ops;
    size_t count;
};

static int apply_op(struct store_db_txn *txn, const char *table, const struct store_table_op *op, struct err *err)
{
    struct row_key key;
    int status = row_key(table, op->key, op->key_len, &key, err);
    if (status < 0)
        return status;
    if (op->key_len == 0 || (op->value && op->value_len > STORE_TABLE_VALUE_MAX_BYTES))
        return err_set(err, ERR_INVALID, "table '%s' takes no key of %zu and value of %zu bytes", table, op->key_len,
                       op->value_len);
    struct store_span value = {op->value, op->value_len};
    status = op->value ? store_db_put(txn, STORE_DB_USER, span_of(&key), value, err)
                       : store_db_del(txn, STORE_DB_USER, span_of(&key), err);
    return status < 0 ? status : 0;
}

static int apply_all(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct apply *apply = ctx;
    int status = 0;
    for (size_t i = 0; i < apply->count && status == 0; i++)
        status = apply_op(txn, apply->table, &apply->ops[i], err);
    return status;
}

int store_table_apply(struct store *store, const char *table, const struct store_table_op *ops, size_t count,
                      struct err *err)
{
    struct apply apply = {table, ops, count};
    return store_db_update(store->db, apply_all, &apply, err);
}

int store_table_put(struct store *store, const char *table, const void *key, size_t key_len, const void *value,
                    size_t value_len, struct err *err)
{
    struct store_table_op op = {key, key_len, value, value_len};
    return store_table_apply(store, table, &op, 1, err);
}

struct table_query {
    struct row_key key;
    struct buf *value;
};

static int get_value(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct table_query *query = ctx;
    struct store_span value;
    int got = store_db_get(txn, STORE_DB_USER, span_of(&query->key), &value, err);
    if (got == 1 && value.len > 0 && buf_add(query->value, value.data, value.len) < 0)
        return err_set(err, ERR_LIMIT, "a value of %zu bytes does not fit", value.len);
    return got;
}

int store_table_get(struct store *store, const char *table, const void *key, size_t key_len, struct buf *ret_value,
                    struct err *err)
{
    struct table_query query = {.value = ret_value};
    int status = row_key(table, key, key_len, &query.key, err);
    return status < 0 ? status : store_db_view(store->db, get_value, &query, err);
}

struct table_walk {
    size_t skip; /* of the row's key, to reach the caller's */
    store_table_cb cb;
    void *ctx;
};

static int each_row(struct store_span key, struct store_span value, void *ctx)
{
    struct table_walk *walk = ctx;
    return walk->cb(key.data + walk->skip, key.len - walk->skip, value.data, value.len, walk->ctx);
}

/* Does `a` come before `b`, as LMDB orders keys? */
static bool is_before(const struct row_key *a, const struct row_key *b)
{
    int order = memcmp(a->bytes, b->bytes, a->len < b->len ? a->len : b->len);
    return order != 0 ? order < 0 : a->len < b->len;
}

int store_table_each(struct store *store, const char *table, const void *prefix, size_t prefix_len, const void *from,
                     size_t from_len, store_table_cb cb, void *ctx, struct err *err)
{
    struct row_key whole;
    struct row_key start;
    int status = row_key(table, prefix, prefix_len, &whole, err);
    if (status == 0)
        status = row_key(table, from, from_len, &start, err);
    if (status < 0)
        return status;
    struct table_walk walk = {1 + strlen(table), cb, ctx};
    const struct row_key *first = is_before(&start, &whole) ? &whole : &start;
    return store_db_each(store->db, STORE_DB_USER, span_of(&whole), span_of(first), each_row, &walk, err);
}
