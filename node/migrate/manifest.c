#include "node/migrate/manifest.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/scope.h"

OWNED_DEFINE(owned_json, json_t, json_decref)

static const char signed_as[] = "cmig migration manifest 1";

static const char *const role_names[] = {
#define X(name, text) [name] = text,
    MIGRATE_ROLES(X)
#undef X
};

const char *migrate_role_name(enum migrate_role role)
{
    return role_names[role];
}

void manifest_release(struct manifest *manifest)
{
    if (manifest->container)
        runtime_container_free(manifest->container);
    free(manifest->objects);
    *manifest = (struct manifest){0};
}

int manifest_add(struct manifest *manifest, const struct migrate_object *object, struct err *err)
{
    if (manifest->count >= MIGRATE_MAX_OBJECTS)
        return err_set(err, ERR_LIMIT, "a migration of more than %d objects", MIGRATE_MAX_OBJECTS);
    struct migrate_object *objects = realloc(manifest->objects, (manifest->count + 1) * sizeof *objects);
    if (!objects)
        return err_set(err, ERR_NOMEM, "no memory for a manifest");
    manifest->objects = objects;
    manifest->objects[manifest->count++] = *object;
    return 0;
}

const struct migrate_object *manifest_find(const struct manifest *manifest, enum migrate_role role, const char *name)
{
    for (size_t i = 0; i < manifest->count; i++) {
        const struct migrate_object *object = &manifest->objects[i];
        if (object->role == role && (!name || strcmp(object->name, name) == 0))
            return object;
    }
    return NULL;
}

/* ---- writing ---- */

static json_t *object_to_json(const struct migrate_object *object)
{
    char digest[DIGEST_TEXT_SIZE];
    return json_pack("{s:s, s:s, s:s, s:I, s:s}", "role", role_names[object->role], "kind",
                     store_kind_name(object->kind), "digest", digest_text(&object->digest, digest), "size_bytes",
                     (json_int_t)object->size_bytes, "name", object->name);
}

static json_t *manifest_to_json(const struct manifest *manifest)
{
    char id[GUID_TEXT_SIZE], source[ID_HEX_SIZE], target[ID_HEX_SIZE];
    json_t *objects = json_array();
    for (size_t i = 0; i < manifest->count; i++)
        json_array_append_new(objects, object_to_json(&manifest->objects[i]));
    return json_pack("{s:i, s:s, s:s, s:s, s:b, s:I, s:o, s:o}", "version", 1, "id", guid_text(&manifest->id, id),
                     "source", id_hex(&manifest->source, source), "target", id_hex(&manifest->target, target), "final",
                     manifest->final, "issued_ms", (json_int_t)manifest->issued_ms, "container",
                     runtime_container_to_json(manifest->container), "objects", objects);
}

/* The signature covers the purpose too, so that nothing else that this key signs can pass as a manifest. */
static int signed_bytes(const char *text, struct buf *buf)
{
    buf_add(buf, signed_as, sizeof signed_as);
    buf_add_str(buf, text);
    return buf->failed ? ERR_NOMEM : 0;
}

json_t *manifest_seal(const struct manifest *manifest, const struct migrate_ops *ops)
{
    OWNED(owned_json) json_t *json = manifest_to_json(manifest);
    OWNED(owned_free) char *text = json ? json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_MANIFEST_BYTES + sizeof signed_as);
    if (!text || signed_bytes(text, &bytes) < 0)
        return NULL;
    uint8_t signature[CRYPTO_SIGNATURE_BYTES];
    char hex[2 * CRYPTO_SIGNATURE_BYTES + 1];
    ops->sign(ops->ctx, bytes.data, bytes.len, signature);
    hex_encode(signature, sizeof signature, hex);
    return json_pack("{s:s, s:s}", "text", text, "signature", hex);
}

/* ---- reading ---- */

static bool role_parse(const char *text, enum migrate_role *ret_role)
{
    for (size_t i = 0; i < MIGRATE_ROLE_COUNT; i++) {
        if (strcmp(text, role_names[i]) == 0) {
            *ret_role = (enum migrate_role)i;
            return true;
        }
    }
    return false;
}

static bool kind_parse(const char *text, enum store_kind *ret_kind)
{
    for (unsigned kind = 0; kind < 256; kind++) {
        if (store_kind_is_valid(kind) && strcmp(text, store_kind_name((enum store_kind)kind)) == 0) {
            *ret_kind = (enum store_kind)kind;
            return true;
        }
    }
    return false;
}

/* Names become parts of paths at the destination, so each role has its one shape. */
static bool object_name_is_valid(const struct migrate_object *object)
{
    struct guid guid;
    unsigned number = 0;
    int end = 0;
    switch (object->role) {
    case MIGRATE_VOLUME:
        return guid_parse(object->name, &guid);
    case MIGRATE_PAGES:
        return sscanf(object->name, "pages-%5u.img%n", &number, &end) == 1 && end > 0 && object->name[end] == '\0' &&
               object->name[6] >= '0' && object->name[6] <= '9';
    default:
        return object->name[0] == '\0';
    }
}

static int object_from_json(json_t *json, struct migrate_object *ret_object, struct err *err)
{
    const char *role = NULL, *kind = NULL, *digest = NULL, *name = NULL;
    json_int_t size = -1;
    if (json_unpack(json, "{s:s, s:s, s:s, s:I, s:s !}", "role", &role, "kind", &kind, "digest", &digest, "size_bytes",
                    &size, "name", &name) < 0)
        return err_set(err, ERR_INVALID, "an object of the manifest lacks a field or has one too many");
    struct migrate_object object = {.size_bytes = (uint64_t)size};
    if (!role_parse(role, &object.role) || !kind_parse(kind, &object.kind) || !digest_parse(digest, &object.digest) ||
        size < 0 || strlen(name) >= sizeof object.name)
        return err_set(err, ERR_INVALID, "an object of the manifest has a malformed field");
    memcpy(object.name, name, strlen(name) + 1);
    if (!object_name_is_valid(&object))
        return err_set(err, ERR_INVALID, "an object of the manifest has a name that its role does not allow");
    *ret_object = object;
    return 0;
}

/* A volume that the container does not mount could be anybody's at the destination. */
static bool is_mounted(const struct runtime_container *container, const char *volume)
{
    for (size_t i = 0; i < container->spec.volume_count; i++) {
        char name[GUID_TEXT_SIZE];
        if (strcmp(guid_text(&container->spec.volumes[i].guid, name), volume) == 0)
            return true;
    }
    return false;
}

static int check_whole(const struct manifest *manifest, struct err *err)
{
    if (!manifest_find(manifest, MIGRATE_CHECKPOINT, NULL) || !manifest_find(manifest, MIGRATE_WRITABLE, NULL))
        return err_set(err, ERR_INVALID, "the manifest lacks the checkpoint or the writable layer");
    for (size_t i = 0; i < manifest->container->spec.volume_count; i++) {
        char name[GUID_TEXT_SIZE];
        guid_text(&manifest->container->spec.volumes[i].guid, name);
        if (!manifest_find(manifest, MIGRATE_VOLUME, name))
            return err_set(err, ERR_INVALID, "the manifest lacks volume '%s'", name);
    }
    for (size_t i = 0; i < manifest->count; i++) {
        const struct migrate_object *object = &manifest->objects[i];
        if (object->role == MIGRATE_VOLUME && !is_mounted(manifest->container, object->name))
            return err_set(err, ERR_INVALID, "the manifest brings volume '%s', which the container does not mount",
                           object->name);
        if (object->role != MIGRATE_IMAGE && manifest_find(manifest, object->role, object->name) != object)
            return err_set(err, ERR_INVALID, "the manifest names a %s twice", role_names[object->role]);
    }
    return 0;
}

static int manifest_from_json(json_t *json, struct manifest *ret_manifest, struct err *err)
{
    OWNED(manifest_release) struct manifest manifest = {0};
    int version = 0, final = 0;
    const char *id = NULL, *source = NULL, *target = NULL;
    json_int_t issued = 0;
    json_t *container = NULL, *objects = NULL;
    if (json_unpack(json, "{s:i, s:s, s:s, s:s, s:b, s:I, s:o, s:o !}", "version", &version, "id", &id, "source",
                    &source, "target", &target, "final", &final, "issued_ms", &issued, "container", &container,
                    "objects", &objects) < 0 ||
        version != 1 || !guid_parse(id, &manifest.id) || !id_parse_hex(source, &manifest.source) ||
        !id_parse_hex(target, &manifest.target) || !json_is_array(objects) || issued < 0)
        return err_set(err, ERR_INVALID, "the manifest lacks a field, has one too many or a malformed one");
    manifest.final = final;
    manifest.issued_ms = (uint64_t)issued;
    int status = runtime_container_from_json(container, &manifest.container, err);
    size_t index;
    json_t *item;
    json_array_foreach(objects, index, item)
    {
        struct migrate_object object;
        if (status == 0)
            status = object_from_json(item, &object, err);
        if (status == 0)
            status = manifest_add(&manifest, &object, err);
    }
    if (status == 0)
        status = check_whole(&manifest, err);
    if (status < 0)
        return status;
    *ret_manifest = manifest;
    manifest = (struct manifest){0};
    return 0;
}

int manifest_open(const json_t *sealed, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES],
                  struct manifest *ret_manifest, struct err *err)
{
    const char *text = json_string_value(json_object_get(sealed, "text"));
    const char *hex = json_string_value(json_object_get(sealed, "signature"));
    uint8_t signature[CRYPTO_SIGNATURE_BYTES];
    if (!text || !hex || !hex_decode(hex, strlen(hex), signature, sizeof signature))
        return err_set(err, ERR_AUTH, "the manifest is not signed");
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_MANIFEST_BYTES + sizeof signed_as);
    if (signed_bytes(text, &bytes) < 0)
        return err_set(err, ERR_LIMIT, "the manifest is larger than %u bytes", LIMIT_MANIFEST_BYTES);
    if (!crypto_signature_check(signature, bytes.data, bytes.len, public_key))
        return err_set(err, ERR_AUTH, "the manifest is not signed by the source of the migration");
    json_error_t where;
    OWNED(owned_json) json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &where);
    if (!json)
        return err_set(err, ERR_INVALID, "the manifest is no JSON: %s", where.text);
    return manifest_from_json(json, ret_manifest, err);
}
