/* The manifest of a migration: what moves, as signed JSON. It comes from another node and is hostile until checked. */
#pragma once

#include "node/migrate/migrate.h"

struct manifest {
    struct guid id;
    struct id source;
    struct id target;
    bool final;                          /* made after the stop: restore from this one */
    uint64_t issued_ms;                  /* wall */
    struct runtime_container *container; /* owned */
    struct migrate_object *objects;      /* owned */
    size_t count;
};

void manifest_release(struct manifest *manifest);

/* Append an object; ERR_LIMIT beyond MIGRATE_MAX_OBJECTS. */
int manifest_add(struct manifest *manifest, const struct migrate_object *object, struct err *err);
/* The first object of a role (and name, unless NULL), or NULL. */
const struct migrate_object *manifest_find(const struct manifest *manifest, enum migrate_role role, const char *name);

/* {"text": "<the manifest as JSON>", "signature": "<hex>"}; NULL when out of memory. */
json_t *manifest_seal(const struct manifest *manifest, const struct migrate_ops *ops);
/* ERR_AUTH unless public_key signed it; ERR_INVALID for what is malformed, unsafe or contradicts itself. */
int manifest_open(const json_t *sealed, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES],
                  struct manifest *ret_manifest, struct err *err);

const char *migrate_role_name(enum migrate_role role);
