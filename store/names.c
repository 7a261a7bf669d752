/* Pins and references: who or what wants an object to be there. */
#include <string.h>

#include "node/base/wire.h"
#include "store/core.h"

#define VERSION_BYTES 16
#define REF_KEY_MAX_BYTES (1 + STORE_REF_NAME_MAX_BYTES + 1 + VERSION_BYTES)
#define REF_HEAD_BYTES (ID_BYTES + 1)

static struct store_span span(const void *data, size_t len)
{
    return (struct store_span){.data = data, .len = len};
}

/* ---- pins: a row (digest, owner) each ---- */

struct pin {
    uint8_t key[ID_BYTES + STORE_OWNER_MAX_BYTES];
    size_t len;
};

static int pin_key(const struct id *digest, const char *owner, struct pin *ret_pin, struct err *err)
{
    size_t len = strlen(owner);
    if (len == 0 || len > STORE_OWNER_MAX_BYTES)
        return err_set(err, ERR_INVALID, "the owner of a pin has 1 to %d bytes, not %zu", STORE_OWNER_MAX_BYTES, len);
    memcpy(ret_pin->key, digest->b, ID_BYTES);
    memcpy(ret_pin->key + ID_BYTES, owner, len);
    ret_pin->len = ID_BYTES + len;
    return 0;
}

static int put_pin(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct pin *pin = ctx;
    return store_db_put(txn, STORE_DB_PIN, span(pin->key, pin->len), span("", 0), err);
}

static int delete_pin(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct pin *pin = ctx;
    int status = store_db_del(txn, STORE_DB_PIN, span(pin->key, pin->len), err);
    return status < 0 ? status : 0;
}

static int find_pin(struct store_db_txn *txn, void *ctx, struct err *err)
{
    const struct id *digest = ctx;
    struct store_span prefix = span(digest->b, ID_BYTES);
    struct store_span key;
    struct store_span value;
    return store_db_next(txn, STORE_DB_PIN, prefix, prefix, false, &key, &value, err);
}

int store_pin(struct store *store, const struct id *digest, const char *owner, struct err *err)
{
    struct pin pin;
    int status = pin_key(digest, owner, &pin, err);
    return status < 0 ? status : store_db_update(store->db, put_pin, &pin, err);
}

int store_unpin(struct store *store, const struct id *digest, const char *owner, struct err *err)
{
    struct pin pin;
    int status = pin_key(digest, owner, &pin, err);
    return status < 0 ? status : store_db_update(store->db, delete_pin, &pin, err);
}

int store_pinned(struct store *store, const struct id *digest, struct err *err)
{
    struct id id = *digest;
    return store_db_view(store->db, find_pin, &id, err);
}

/* ---- references: a row (kind, name, NUL, version) each, so that versions of a name are neighbours, in order; those
 * that keep their object have a second row (digest, key) in the keep table ---- */

struct ref_key {
    uint8_t bytes[REF_KEY_MAX_BYTES];
    size_t len;
};

static int ref_prefix(uint8_t kind, const char *name, struct ref_key *ret_key, struct err *err)
{
    size_t len = strlen(name);
    if (len == 0 || len > STORE_REF_NAME_MAX_BYTES)
        return err_set(err, ERR_INVALID, "the name of a reference has 1 to %d bytes, not %zu", STORE_REF_NAME_MAX_BYTES,
                       len);
    ret_key->bytes[0] = kind;
    memcpy(ret_key->bytes + 1, name, len + 1);
    ret_key->len = 1 + len + 1;
    return 0;
}

static int ref_key(uint8_t kind, const char *name, struct store_version version, struct ref_key *ret_key,
                   struct err *err)
{
    int status = ref_prefix(kind, name, ret_key, err);
    if (status < 0)
        return status;
    wire_store_u64(ret_key->bytes + ret_key->len, version.epoch);
    wire_store_u64(ret_key->bytes + ret_key->len + 8, version.counter);
    ret_key->len += VERSION_BYTES;
    return 0;
}

/* name, value: into key and value, which they live as long as. */
static bool decode_ref(struct store_span key, struct store_span value, struct store_ref *ret_ref)
{
    if (key.len < 1 + 1 + 1 + VERSION_BYTES || key.data[key.len - VERSION_BYTES - 1] != '\0' ||
        value.len < REF_HEAD_BYTES)
        return false;
    *ret_ref = (struct store_ref){
        .kind = key.data[0],
        .name = (const char *)key.data + 1,
        .version.epoch = wire_load_u64(key.data + key.len - 16),
        .version.counter = wire_load_u64(key.data + key.len - 8),
        .keep = value.data[ID_BYTES] != 0,
        .value = value.data + REF_HEAD_BYTES,
        .value_len = value.len - REF_HEAD_BYTES,
    };
    memcpy(ret_ref->digest.b, value.data, ID_BYTES);
    return true;
}

static struct store_span keep_key(const struct id *digest, struct store_span key,
                                  uint8_t buffer[ID_BYTES + REF_KEY_MAX_BYTES])
{
    memcpy(buffer, digest->b, ID_BYTES);
    memcpy(buffer + ID_BYTES, key.data, key.len);
    return span(buffer, ID_BYTES + key.len);
}

/* 1 if it was there. */
static int delete_ref(struct store_db_txn *txn, struct store_span key, struct err *err)
{
    struct store_span value;
    struct store_ref ref;
    int got = store_db_get(txn, STORE_DB_REF, key, &value, err);
    if (got != 1)
        return got;
    if (decode_ref(key, value, &ref) && ref.keep) {
        uint8_t buffer[ID_BYTES + REF_KEY_MAX_BYTES];
        int status = store_db_del(txn, STORE_DB_KEEP, keep_key(&ref.digest, key, buffer), err);
        if (status < 0)
            return status;
    }
    return store_db_del(txn, STORE_DB_REF, key, err);
}

struct ref_change {
    struct ref_key key;
    const struct store_ref *ref; /* NULL: remove */
};

static int change_ref(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct ref_change *change = ctx;
    struct store_span key = span(change->key.bytes, change->key.len);
    int was_there = delete_ref(txn, key, err);
    if (was_there < 0 || !change->ref)
        return was_there;
    uint8_t value[REF_HEAD_BYTES + STORE_REF_VALUE_MAX_BYTES];
    memcpy(value, change->ref->digest.b, ID_BYTES);
    value[ID_BYTES] = change->ref->keep;
    if (change->ref->value_len > 0)
        memcpy(value + REF_HEAD_BYTES, change->ref->value, change->ref->value_len);
    int status = store_db_put(txn, STORE_DB_REF, key, span(value, REF_HEAD_BYTES + change->ref->value_len), err);
    if (status == 0 && change->ref->keep) {
        uint8_t buffer[ID_BYTES + REF_KEY_MAX_BYTES];
        status = store_db_put(txn, STORE_DB_KEEP, keep_key(&change->ref->digest, key, buffer), span("", 0), err);
    }
    return status;
}

int store_ref_set(struct store *store, const struct store_ref *ref, struct err *err)
{
    if (ref->value_len > STORE_REF_VALUE_MAX_BYTES)
        return err_set(err, ERR_LIMIT, "the value of reference '%s' has %zu bytes, more than %d", ref->name,
                       ref->value_len, STORE_REF_VALUE_MAX_BYTES);
    struct ref_change change = {.ref = ref};
    int status = ref_key(ref->kind, ref->name, ref->version, &change.key, err);
    return status < 0 ? status : store_db_update(store->db, change_ref, &change, err);
}

int store_ref_remove(struct store *store, uint8_t kind, const char *name, struct store_version version, struct err *err)
{
    struct ref_change change = {.ref = NULL};
    int status = ref_key(kind, name, version, &change.key, err);
    return status < 0 ? status : store_db_update(store->db, change_ref, &change, err);
}

struct ref_query {
    struct ref_key key;
    bool latest; /* the key is a prefix: the last that begins with it */
    struct store_ref ref;
    struct buf *value;
};

static int find_ref(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct ref_query *query = ctx;
    struct store_span key = span(query->key.bytes, query->key.len);
    struct store_span value;
    int got = query->latest ? store_db_last(txn, STORE_DB_REF, key, &key, &value, err)
                            : store_db_get(txn, STORE_DB_REF, key, &value, err);
    if (got != 1)
        return got;
    if (!decode_ref(key, value, &query->ref))
        return err_set(err, ERR_CORRUPT, "a reference in the store's index is malformed; run `cmig-node fsck`");
    if (query->value && buf_add(query->value, query->ref.value, query->ref.value_len) < 0)
        return err_set(err, ERR_LIMIT, "the value of a reference, %zu bytes, does not fit", query->ref.value_len);
    query->ref.name = NULL;
    query->ref.value = NULL;
    query->ref.value_len = 0;
    return 1;
}

static int get_ref(struct store *store, struct ref_query *query, struct store_ref *ret_ref, struct err *err)
{
    int got = store_db_view(store->db, find_ref, query, err);
    if (got == 1)
        *ret_ref = query->ref;
    return got;
}

int store_ref_get(struct store *store, uint8_t kind, const char *name, struct store_version version,
                  struct store_ref *ret_ref, struct buf *ret_value, struct err *err)
{
    struct ref_query query = {.value = ret_value};
    int status = ref_key(kind, name, version, &query.key, err);
    return status < 0 ? status : get_ref(store, &query, ret_ref, err);
}

int store_ref_latest(struct store *store, uint8_t kind, const char *name, struct store_ref *ret_ref,
                     struct buf *ret_value, struct err *err)
{
    struct ref_query query = {.latest = true, .value = ret_value};
    int status = ref_prefix(kind, name, &query.key, err);
    return status < 0 ? status : get_ref(store, &query, ret_ref, err);
}

struct ref_walk {
    store_ref_cb cb;
    void *ctx;
};

static int each_ref(struct store_span key, struct store_span value, void *ctx)
{
    struct ref_walk *walk = ctx;
    struct store_ref ref;
    return decode_ref(key, value, &ref) ? walk->cb(&ref, walk->ctx) : 0;
}

int store_ref_each(struct store *store, uint8_t kind, const char *name, store_ref_cb cb, void *ctx, struct err *err)
{
    struct ref_key prefix = {.bytes = {kind}, .len = 1};
    int status = name ? ref_prefix(kind, name, &prefix, err) : 0;
    if (status < 0)
        return status;
    struct ref_walk walk = {cb, ctx};
    struct store_span all = {0};
    return store_db_each(store->db, STORE_DB_REF, span(prefix.bytes, prefix.len), all, each_ref, &walk, err);
}
